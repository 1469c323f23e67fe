"""What the studies of statistics draw: the claims' own numbers, in ranges that they can have."""

import importlib
import re
from functools import cache

import numpy as np
import pandas as pd
import pytest

from bnstudy import figures, stats
from tests.studies.test_studies import SEEDS, course_table, noise, sync_table

STUDIES = ("ema_vs_precise", "population_estimate", "class_skew", "distribution_shift",
           "eval_batch", "online_stream", "sync")  # fmt: skip
SHOWN = {  # study -> the row of the headline that is the primary claim
    "ema_vs_precise": "rate 1",
    "population_estimate": "momentum 0.02",
    "class_skew": "5 classes",
    "distribution_shift": "noise",
    "eval_batch": "batch 32",
    "online_stream": "batch",
    "sync": "4 apart",
}


@pytest.fixture(scope="module")
def panels_of(table_of):
    """Study -> panels of its headline, and of its details."""
    return cache(lambda name: drawn(name, table_of(name)))


@pytest.fixture(params=STUDIES)
def study(request):
    return request.param


def module_of(name):
    return importlib.import_module(f"bnstudy.studies.{name}")


def drawn(name, table):
    """Panels of the headline, and those of the details."""
    found = module_of(name)
    return found.headline(table), found.details(table)


def curve_of(panels, label, claim=""):
    (found,) = [c for p in panels for c in p.curves if c.label == label and p.claim == claim]
    return found


def test_a_headline_has_the_dot_of_the_primary_claim(study, table_of, panels_of):
    panels, _ = panels_of(study)
    assert 1 <= len(panels) <= 3
    claims = module_of(study).claims(table_of(study))
    primary = next((c for c in claims if c.primary), claims[0])
    dot = curve_of(panels, SHOWN[study], primary.name)
    assert float(dot.points["mean"].iloc[0]) == pytest.approx(np.mean([*primary.values.values()]))
    assert sorted(dot.runs["value"]) == pytest.approx(sorted(primary.values.values()))


def test_panels_name_claims_that_there_are(study, table_of, panels_of):
    names = {claim.name for claim in module_of(study).claims(table_of(study))}
    shown = [p.claim for panels in panels_of(study) for p in panels if p.claim]
    assert set(shown) <= names


def test_every_axis_has_a_unit_and_every_error_its_range(study, panels_of):
    for panel in (p for panels in panels_of(study) for p in panels):
        assert re.search(r" \(.+\)$", panel.ylabel), panel.title
        if panel.ylabel.endswith("error (%)"):
            assert (panel.floor, panel.ceiling, panel.zero) == (0, 100, False), panel.title
        if "difference" in panel.ylabel:
            assert panel.zero, panel.title


def test_published_numbers_are_drawn_once(study, panels_of):
    others = [
        (panel.ylabel, curve.label, tuple(curve.points["mean"]))
        for panels in panels_of(study)
        for panel in panels
        for curve in panel.curves
        if curve.source != "measured"
    ]
    assert len(set(others)) == len(others)


def test_colors_of_norms_belong_to_norms(study, panels_of):
    """A curve that is no normalization's has a style of the other palettes."""
    norms = {style.color for style in figures.STYLES.values()}
    others = {figures.hue(i).color for i in range(6)}
    others |= {style.color for n in range(1, 9) for style in figures.ramp(n)}
    for panel in (p for panels in panels_of(study) for p in panels):
        for curve in panel.curves:
            assert curve.style in figures.STYLES.values() or curve.style.color in others - norms


def test_the_order_of_rows_does_not_matter(study, table_of, panels_of):
    shuffled = drawn(study, table_of(study).sample(frac=1, random_state=0))
    for first, second in zip(panels_of(study), shuffled, strict=True):
        pd.testing.assert_frame_equal(figures.points(first), figures.points(second))


def test_a_late_gap_is_drawn_as_it_was_planted_and_without_the_first_checkpoints():
    table = course_table([0.5, 0.5, *[0.2] * 6], 0.1)
    panels = module_of("ema_vs_precise").headline(table)
    errors = curve_of(panels, "exponential average")
    assert list(errors.points["x"]) == [3, 4, 5, 6, 7, 8]
    assert errors.points["mean"].to_numpy() == pytest.approx([20] * 6, abs=1)
    gap = curve_of(panels, "rate 1", "digits: late gap")
    assert float(gap.points["mean"].iloc[0]) == pytest.approx(10, abs=0.5)
    early = next(c for c in panels[1].curves if c.source == "digitised")
    assert list(early.points["mean"]) == [5.0]


def test_every_checkpoint_is_among_the_details():
    table = course_table([0.5, 0.5, *[0.2] * 6], 0.1)
    table = table.assign(precise_64_error=0.1, precise_256_error=0.1, test_error=0.1,
                         **{f"lag/{i:02d}": 1.0 for i in range(1, 9)})  # fmt: skip
    first = module_of("ema_vs_precise").details(table)[0]
    assert first.curves[0].points["mean"].to_numpy() == pytest.approx(
        [50, 50, *[20] * 6], abs=1
    )  # fmt: skip
    published = module_of("ema_vs_precise").details(table)[-1].curves[2:]
    assert [float(c.points["mean"].iloc[0]) for c in published] == pytest.approx(
        [19.3, 29.2, 15.7, 14.7]
    )


def test_a_margin_of_equivalence_is_a_band_around_zero(panels_of):
    panel = panels_of("eval_batch")[0][1]
    (band,) = panel.bands
    assert (band.low, band.high) == (-1, 1)
    assert [curve.label for curve in panel.curves] == [f"batch {n}" for n in (32, 16, 8, 4, 2)]
    lightness = [sum(int(c.style.color[i : i + 2], 16) for i in (1, 3, 5)) for c in panel.curves]
    assert lightness == sorted(lightness)  # the smaller the batch, the lighter


def test_published_gains_stand_beside_the_measured_ones(panels_of):
    panel = panels_of("distribution_shift")[0][1]
    others = {c.label: float(c.points["mean"].iloc[0]) for c in panel.curves
              if c.source == "published"}  # fmt: skip
    assert others == pytest.approx({"noise, ImageNet": 11.9, "JPEG, ImageNet": 3.7})


def test_synchronised_processes_are_drawn_at_zero():
    panels = module_of("sync").headline(sync_table(0.1))
    together = curve_of(panels, "4 synchronised", "digits mlp: apart")
    assert list(together.runs["value"]) == [0.0] * len(SEEDS)
    average_precision = panels[2]
    assert (average_precision.floor, average_precision.ceiling) == (0, 100)


def test_a_norm_without_population_statistics_has_nothing_to_win_back():
    rows = [
        {
            "data.name": "digits", "model.name": "resnet", "norm.name": norm, "seed": seed,
            "train.classes_per_task": tasks, "online_error": 0.3 + noise(norm, seed),
            "old_tasks_error_within": 0.2 + noise(norm, seed, "old") if tasks else np.nan,
            "statistics_loss_within": 0.05 if tasks and norm == "batch" else np.nan,
        }
        for norm in ("batch", "group") for tasks in (None, 2) for seed in SEEDS
    ]  # fmt: skip
    earlier, won, one = module_of("online_stream").headline(pd.DataFrame(rows))
    assert [curve.label for curve in earlier.curves] == ["batch", "group"]
    assert [curve.label for curve in won.curves] == ["batch"]
    assert list(won.curves[0].points["mean"]) == pytest.approx([5])
    assert [curve.label for curve in one.curves] == ["batch", "group"]
    assert earlier.bands[0].low == 50  # two classes


def test_intervals_of_paired_differences_are_those_of_verdicts(panels_of):
    dot = panels_of("class_skew")[0][1].curves[0]
    _, low, high = stats.sign_flip_interval([*dot.runs.sort_values("seed")["value"]])
    assert dot.points[["low", "high"]].to_numpy()[0] == pytest.approx([low, high])
