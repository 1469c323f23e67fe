"""Planted decibels come out as they were planted; what does not denoise is no evidence."""

import itertools

import numpy as np
import pandas as pd
import pytest

from bnstudy import stats
from bnstudy.studies import range as intensity
from bnstudy.studies import restoration, restoration_statistics

SEEDS = range(12)  # six could not pass an adjustment for several claims
COMMON = {
    "data.name": "photos", "model.name": "dncnn", "nlm_psnr": 27.0, "device": "cpu", "torch": "2",
    "diverged_at": np.nan, "num_classes": 256, "train_error": 0.2,
}  # fmt: skip


def shared(seed: int) -> float:
    """What all arms of a seed share: paired differences do not see it."""
    return np.sin(seed)


def judged(module, rows) -> dict[str, stats.Verdict]:
    found = stats.judge(module.claims(pd.DataFrame(rows)))
    return {v.name.partition(": ")[2]: v for v in found}


def denoisers(psnr) -> list[dict]:
    """Rows of `restoration`: psnr(norm, batch, patch, skip) in dB, and 0.01 dB of seed noise."""
    cells = [(n, 16, 32, True) for n in ("batch", "group", "instance", "none")]
    cells += [("batch", 2, 32, True), ("group", 2, 32, True)]
    cells += [(n, 16, 16, True) for n in ("batch", "none")]
    cells += [(n, 16, 32, False) for n in ("batch", "instance", "none")]
    draw = np.random.default_rng(0)
    rows = []
    for (norm, size, patch, skip), seed in itertools.product(cells, SEEDS):
        value = psnr(norm, size, patch, skip) + shared(seed) + 0.01 * draw.standard_normal()
        own = {"norm.name": norm, "train.batch_size": size, "data.patch_size": patch, "seed": seed,
               "model.residual": None if skip else False}  # fmt: skip
        rows.append({**COMMON, **own, "test_psnr": value, "test_psnr_image": value - 1})
    return rows


@pytest.mark.parametrize(
    ("gain", "wanted"), [(0.3, "supported"), (-0.3, "refuted"), (0.05, "inconclusive")]
)
def test_what_no_norm_gains_is_judged_against_the_margin(gain, wanted):
    found = judged(restoration, denoisers(lambda n, *_: 29 + gain * (n == "none")))["no norm"]
    assert found.primary
    assert found.unit == "dB"
    assert found.verdict == wanted
    # twelve paired differences of s.d. 0.014: a standard error of 0.004, seven of them
    assert found.mean == pytest.approx(gain, abs=0.03)


def test_differences_of_differences_have_the_sign_of_what_batch_norm_loses():
    def psnr(norm, size, patch, skip):
        lost = 0.5 * (size == 2) + 0.4 * (patch == 16) + 0.3 * (not skip)
        return 29 - lost * (norm == "batch")

    found = judged(restoration, denoisers(psnr))
    for name, lost in (("small batch", 0.5), ("small patch", 0.4), ("skip", 0.3)):
        assert found[name].mean == pytest.approx(lost, abs=0.05), name
        assert found[name].verdict == "supported"


@pytest.mark.parametrize("norm", ["batch", "group", "instance", "none"])
def test_an_arm_below_non_local_means_makes_every_claim_invalid(norm):
    rows = denoisers(lambda n, size, *_: 29.0 - 5 * (n == norm and size == 16))
    assert {v.verdict for v in judged(restoration, rows).values()} == {"invalid"}


def test_an_arm_that_fails_elsewhere_is_the_effect():
    rows = denoisers(lambda n, size, *_: 29.0 - 5 * (n == "batch" and size == 2))
    assert judged(restoration, rows)["small batch"].verdict == "supported"


def of_statistics(frozen=0.0, precise=0.0) -> list[dict]:
    rows = []
    draw = np.random.default_rng(0)
    for size, part, seed in itertools.product((2, 16), (1.0, 0.8), SEEDS):
        noise = 0.01 * draw.standard_normal(4)
        value = 29 + shared(seed) + (frozen if (size, part) == (2, 0.8) else 0)
        rows.append({
            **COMMON, "norm.name": "batch", "train.batch_size": size, "norm.freeze_at": part,
            "seed": seed, "test_psnr": value + noise[0], "whole_psnr": value + noise[1],
            "test_psnr_precise": value + precise * (size == 2) + noise[2],
            "test_psnr_image": value - 1, "blotches_precise": 2.0,
            "blotches": 2 - frozen * ((size, part) == (2, 0.8)) + noise[3],
        })  # fmt: skip
    return rows


def test_a_frozen_finish_and_precise_statistics_are_told_apart():
    found = judged(restoration_statistics, of_statistics(frozen=0.3))
    assert found["frozen"].verdict == "supported"
    assert found["blotches"].verdict == "supported"
    assert found["precise"].verdict != "supported"
    assert found["whole"].verdict == "supported"  # they are equivalent
    other = judged(restoration_statistics, of_statistics(precise=0.3))
    assert (other["frozen"].verdict, other["precise"].verdict) == ("refuted", "supported")


def of_range(lost: float) -> list[dict]:
    rows = []
    draw = np.random.default_rng(0)
    for norm, skip, seed in itertools.product(
        ("batch", "group", "instance", "none"), (True, False), SEEDS
    ):
        value = 29 + shared(seed) + 0.01 * draw.standard_normal()
        low = value - lost * (norm == "batch" and not skip) + 0.01 * draw.standard_normal()
        off = 0.5 + 60 * (norm == "instance" and not skip) + 0.01 * draw.standard_normal()
        rows.append({
            **COMMON, "norm.name": norm, "model.residual": None if skip else False, "seed": seed,
            "test_psnr": value, "psnr_contrast/025": low, "psnr_contrast/100": value,
            "offset_contrast/100": off, "offset_contrast/025": off, "psnr_mean/050": value,
            "offset_mean/050": off,
        })  # fmt: skip
    return rows


@pytest.mark.parametrize(("lost", "wanted"), [(0.5, "supported"), (0.0, "refuted")])
def test_what_low_contrast_costs_is_judged_without_the_skip(lost, wanted):
    found = judged(intensity, of_range(lost))
    assert found["low contrast"].verdict == wanted
    assert found["low contrast, skip"].verdict == "refuted"
    assert found["instance"].verdict == "supported"


def test_the_mean_of_an_arm_decides_whether_it_denoises_and_only_judged_arms_count():
    rows = of_range(0.0)
    for row in rows:
        row["test_psnr"] -= 2.5 * (row["seed"] == 3)  # one run below non-local means
        row["test_psnr"] -= 5 * (row["norm.name"] in ("group", "instance"))
    assert judged(intensity, rows)["low contrast"].verdict == "refuted"
    for row in rows:
        row["test_psnr"] -= 2 * (row["norm.name"] == "none")
    assert judged(intensity, rows)["low contrast"].verdict == "invalid"


@pytest.mark.parametrize(
    ("module", "rows"),
    [
        (restoration, denoisers(lambda *_: 29.0)),
        (restoration_statistics, of_statistics()),
        (intensity, of_range(0.0)),
    ],
)
def test_panels_show_claims_that_are_made(module, rows):
    table = pd.DataFrame(rows)
    names = {claim.name for claim in module.claims(table)}
    panels = [*module.headline(table), *module.details(table)]
    assert {panel.claim for panel in panels} - {""} <= names
    assert sum(claim.primary for claim in module.claims(table)) == 1
