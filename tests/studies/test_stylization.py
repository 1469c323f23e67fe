"""Planted effects come out as they were planted: stylization, and memory of training."""

import itertools
import zlib

import numpy as np
import pandas as pd
import pytest

from bnstudy import stats
from bnstudy.studies import activation_memory, planned, stylization

SEEDS = range(8)


def noise(*key) -> float:
    """One per cent of seed noise, the same for the same key."""
    return 0.01 * np.random.default_rng(zlib.crc32(repr(key).encode())).standard_normal()


def table(more=0.2, image=0.0, companions=8.0, contrast=20.0, train_error=0.2):
    """BN's loss is `more` above instance norm's, by the image's statistics `image`."""
    rows = []
    for norm, size, seed in itertools.product(("batch", "instance"), (1, 4), SEEDS):
        batch = norm == "batch"
        loss = 2 * (1 + more * batch) * (1 + noise(norm, size, seed))
        rows.append(
            {
                "data.name": "photos", "model.name": "stylizer", "norm.name": norm,
                "train.batch_size": size, "seed": seed, "steps": 300, "test_loss": loss,
                "test_loss_image": 2 * (1 + image) * (1 + noise(size, seed)) if batch else np.nan,
                "test_loss_precise": loss if batch else np.nan,
                "test_content": loss / 2, "test_style": loss / 10,
                **{f"loss_course/{i:02d}": loss * (1 + 1 / i) for i in range(1, 21)},
                "companion_change": companions * (1 + noise(seed)) if batch else 1e-5,
                "contrast_change": (contrast if batch else 0.1) * (1 + noise(seed)),
                "train_error": train_error, "diverged_at": np.nan, "num_classes": 256,
                "device": "cpu", "torch": "2",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def verdicts(rows) -> dict[str, stats.Verdict]:
    found = stats.judge(stylization.claims(rows))
    return {v.name.removeprefix("photos stylizer: "): v for v in found}


@pytest.mark.parametrize(
    ("more", "wanted"), [(0.2, "supported"), (0.0, "refuted"), (0.05, "inconclusive")]
)
def test_a_planted_difference_in_loss_is_found(more, wanted):
    found = verdicts(table(more))["loss"]
    assert found.primary
    assert found.verdict == wanted
    # 8 seeds, two losses with 1 % each: the mean's s.d. is 0.5 %
    assert found.mean == pytest.approx(100 * more, abs=2)


def test_where_the_image_s_statistics_win_it_back_evaluation_was_the_cause():
    assert verdicts(table(0.2, 0.0))["statistics of the image"].verdict == "supported"
    assert verdicts(table(0.2, 0.2))["statistics of the image"].verdict == "refuted"


@pytest.mark.parametrize(("levels", "wanted"), [(8.0, "supported"), (0.5, "refuted")])
def test_companions_and_contrast_count_where_they_can_be_seen(levels, wanted):
    found = verdicts(table(companions=levels, contrast=levels))
    assert found["companions"].verdict == found["contrast"].verdict == wanted
    assert found["contrast, instance norm"].verdict == "shown"


def test_an_instance_norm_that_depends_on_companions_is_not_what_was_to_be_shown():
    rows = table()
    other = rows["norm.name"] == "instance"
    rows.loc[other, "companion_change"] = 1 + np.linspace(0, 0.1, other.sum())
    assert verdicts(rows)["companions, instance norm"].verdict == "not shown"


def test_an_untrained_reference_is_invalid():
    found = verdicts(table(train_error=0.8))["loss"]
    assert found.verdict == "invalid"
    assert any("trains" in reason for reason in found.reasons)


def test_figures_draw_what_the_table_says():
    rows = table()
    training, losses, changes = stylization.headline(rows)
    assert [c.label for c in training.curves] == ["batch", "instance"]
    assert training.curves[0].points["x"].max() == 300
    by = rows.groupby(["norm.name", "train.batch_size"])["test_loss"].mean()
    np.testing.assert_allclose(losses.curves[0].points["mean"], by["batch"])
    np.testing.assert_allclose(changes.curves[0].points["mean"], [8, 8], rtol=0.02)
    names = {claim.name for claim in stylization.claims(rows)}
    shown = [p.claim for p in (*stylization.headline(rows), *stylization.details(rows)) if p.claim]
    assert shown
    assert names >= set(shown)


def memory_table(kept=1.0, plain=3.0, seeds=(0,)):
    """Bytes of two networks whose norms read 1,000 bytes; BN keeps `kept` times as much more."""
    rows = []
    arms = (("none", "fused", 0.0), ("batch", "fused", kept), ("batch", "reference", plain))
    networks = (("patches", "resnet", 900.0), ("photos", "edsr", 2000.0))
    for (data, model, base), (norm, backend, maps), seed in itertools.product(
        networks, arms, seeds
    ):
        rows.append(
            {
                "data.name": data, "model.name": model, "norm.name": norm,
                "norm.backend": backend, "seed": seed, "activation_bytes": base + 1000 * maps,
                "normalized_bytes": 1000.0, "diverged_at": np.nan, "device": "cpu", "torch": "2",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def test_maps_are_counted_to_the_byte():
    found = stats.judge(activation_memory.claims(memory_table()))
    assert {v.verdict for v in found} == {"true"}
    assert len(found) == 4
    found = {v.name: v.verdict for v in stats.judge(activation_memory.claims(memory_table(1.004)))}
    assert found == {
        "patches resnet: one map, fused": "false",
        "patches resnet: 3 maps, reference": "true",
        "photos edsr: one map, fused": "false",
        "photos edsr: 3 maps, reference": "true",
    }


def test_what_is_saved_without_batch_norm_stands_beside_the_published_number():
    saved, relative = activation_memory.headline(memory_table())
    dots = {c.label: c.points["mean"].item() for c in saved.curves}
    assert dots["ResNet, fused"] == pytest.approx(100 * 1000 / 1900)
    assert dots["EDSR-like, reference"] == pytest.approx(100 * 3000 / 5000)
    assert dots["SRResNet"] == 40
    assert [c.source for c in saved.curves][-1] == "unconfirmed"
    (batch,) = (c for c in relative.curves if c.label == "batch")
    means = dict(zip(batch.points["x"], batch.points["mean"], strict=True))
    assert means == pytest.approx({"ResNet": 1900 / 900, "EDSR-like": 3000 / 2000})


def test_probes_of_both_are_known_to_the_planner():
    assert {"activation_memory", "loss_course", "companions"} <= planned.PROBED.keys()
