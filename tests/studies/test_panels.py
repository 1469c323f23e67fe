"""What the studies of groups and of sequences draw: their primary claims, in possible ranges."""

from functools import cache

import numpy as np
import pytest

from bnstudy import figures
from bnstudy.config.compose import hydra_session
from bnstudy.studies import (
    frozen_finish,
    length_generalization,
    micro_batch,
    normalization_batch,
    planned,
    recurrent_gradient,
    sequence_length,
    sequential_mnist,
    step_statistics,
)

STUDIES = {
    module.__name__.rpartition(".")[2]: module
    for module in (frozen_finish, length_generalization, micro_batch, normalization_batch,
                   recurrent_gradient, sequence_length, sequential_mnist, step_statistics)
}  # fmt: skip
POINT = ["panel", "curve", "mode", "source", "x"]
LONGEST = 32  # characters of a title that fits beside two others


@pytest.fixture(scope="module")
def table_of():
    """Study and scale -> a table as that grid would give it, of planned numbers."""
    with hydra_session() as session:

        @cache
        def table(name, scale):
            request = session.request([f"scale={scale}"], study=session.study(name))
            return planned.stand_in(request.cells, request.seeds[:6])

        yield table


@pytest.fixture(params=STUDIES)
def name(request):
    return request.param


@pytest.mark.parametrize("scale", ["smoke", "quick", "full"])
def test_a_headline_is_of_at_most_three_panels_and_of_claims_that_there_are(name, scale, table_of):
    table, module = table_of(name, scale), STUDIES[name]
    known = {claim.name for claim in module.claims(table)} | {""}
    headline, details = module.headline(table), module.details(table)
    assert 1 <= len(headline) <= 3
    assert {panel.claim for panel in (*headline, *details)} <= known
    assert all(panel.curves for panel in (*headline, *details))


@pytest.mark.parametrize("scale", ["smoke", "quick"])
def test_a_headline_shows_the_number_of_the_primary_claim(name, scale, table_of):
    """One dot of its panel is the mean of what the claim judges; more digits than a coincidence."""
    table, module = table_of(name, scale), STUDIES[name]
    (primary,) = (claim for claim in module.claims(table) if claim.primary)
    (panel,) = (p for p in module.headline(table) if p.claim == primary.name)
    mean = np.mean(list(primary.values.values()))
    dots = [c.points["mean"].iloc[0] for c in panel.curves if c.source == "measured"]
    assert panel.kind == "dots"
    assert any(dot == pytest.approx(mean, rel=1e-9) for dot in dots)


def test_equivalence_and_limits_are_drawn_where_the_primary_claim_has_them(name, table_of):
    table, module = table_of(name, "quick"), STUDIES[name]
    (primary,) = (claim for claim in module.claims(table) if claim.primary)
    (panel,) = (p for p in module.headline(table) if p.claim == primary.name)
    ends = {"equivalent": [(-primary.threshold, primary.threshold)],
            "not_worse": [(primary.threshold, primary.threshold)],
            "greater": []}[primary.kind]  # fmt: skip
    assert [(band.low, band.high) for band in panel.bands] == ends
    assert panel.zero or primary.kind == "not_worse"


def test_numbers_of_others_are_drawn_once(name, table_of):
    table, module = table_of(name, "quick"), STUDIES[name]
    drawn = [
        (curve.label, panel.kind, tuple(curve.points["mean"]))
        for panel in (*module.headline(table), *module.details(table))
        for curve in panel.curves
        if curve.source != "measured"
    ]
    assert len(drawn) == len(set(drawn))
    if name not in ("sequence_length", "step_statistics"):  # whose sources give no number
        assert drawn


def test_no_two_curves_of_a_panel_look_alike(name, table_of):
    table, module = table_of(name, "quick"), STUDIES[name]
    for panel in (*module.headline(table), *module.details(table)):
        if panel.kind == "curves":
            looks = [(c.style.color, c.style.marker, c.mode, c.source) for c in panel.curves]
            labels = [c.label for c in panel.curves]
            assert len(set(labels)) == len(labels)
            assert len(set(looks)) == len(looks) or _all_published(panel)


def _all_published(panel):
    """Others' numbers are all dashed: their labels and places tell them apart."""
    return all(c.source != "measured" for c in panel.curves)


def test_colors_of_norms_are_for_norms(name, table_of):
    """A color of a norm stands for that norm: the arm is named in the study's table."""
    table, module = table_of(name, "quick"), STUDIES[name]
    by_color = {style.color: norm for norm, style in figures.STYLES.items()}
    trained = {*table["norm.name"], "renorm", "ws_group"}
    for panel in (*module.headline(table), *module.details(table)):
        used = {by_color[c.style.color] for c in panel.curves if c.style.color in by_color}
        assert used <= trained
        assert not used & {"ghost"} or name in ("normalization_batch", "frozen_finish")


def test_titles_fit_and_values_have_units(name, table_of):
    table, module = table_of(name, "quick"), STUDIES[name]
    for panel in (*module.headline(table), *module.details(table)):
        assert len(panel.title) <= LONGEST, panel.title
        units = ("%", "pp", "bits", "nats", "s.d.", "decades", "log10", "|log2 r|", "values",
                 "a character")  # fmt: skip
        assert any(unit in panel.ylabel for unit in units), panel.ylabel
        if "error (%)" in panel.ylabel:
            assert (panel.bounds, panel.y) == ((0, 100), "linear")


def test_panels_do_not_depend_on_the_order_of_rows(name, table_of):
    table, module = table_of(name, "quick"), STUDIES[name]
    shuffled = table.sample(frac=1, random_state=0)
    for panels_of in (module.headline, module.details):
        first, second = (panels_of(rows) for rows in (table, shuffled))
        assert [_words(panel) for panel in first] == [_words(panel) for panel in second]
        first, second = (
            figures.points(drawn).sort_values(POINT, key=lambda column: column.astype(str))
            for drawn in (first, second)
        )
        assert first[POINT].to_numpy().tolist() == second[POINT].to_numpy().tolist()
        numbers = (p[["mean", "low", "high"]].astype(float) for p in (first, second))
        np.testing.assert_allclose(*numbers, rtol=1e-9, atol=1e-12)


def _words(panel):
    """What the order of rows could change: the curves', and of an axis of words that of the x."""
    every = [x for curve in panel.curves for x in curve.points["x"]]
    return [c.label for c in panel.curves], every if panel.x == "names" else []
