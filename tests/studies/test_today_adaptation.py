"""Planted effects come out as planted: adaptation, joint statistics, averaged weights."""

import zlib

import numpy as np
import pytest

from bnstudy import figures, stats
from bnstudy.studies import averaged_weights, joint_statistics, test_time_adaptation
from bnstudy.studies.kit import extended

STUDIES = {
    module.__name__.rpartition(".")[2]: module
    for module in (averaged_weights, joint_statistics, test_time_adaptation)
}
LONGEST = 32  # characters of a title that fits beside two others


def noise(row, what, size=0.002):
    """Normal, the same for the same run and column."""
    seed = zlib.crc32(f"{row['cell']}{what}".encode()) + row["seed"]
    return size * np.random.default_rng(seed).normal()


def planted(table, **columns):
    """The table with columns made by functions of a row; noise is added to each."""
    rows = table.to_dict("records")
    return extended(
        table, {name: [make(row) + noise(row, name) for row in rows]
                for name, make in columns.items()},
    )  # fmt: skip


def verdicts(module, table):
    return {v.name: v for v in stats.judge(module.claims(table))}


@pytest.mark.parametrize("scale", ["smoke", "quick", "full"])
@pytest.mark.parametrize("name", STUDIES)
def test_the_headline_shows_the_number_of_the_primary_claim(name, scale, table_of):
    table, module = table_of(name, scale), STUDIES[name]
    (primary,) = (claim for claim in module.claims(table) if claim.primary)
    (panel,) = (p for p in module.headline(table) if p.claim == primary.name)
    mean = np.mean(list(primary.values.values()))
    dots = [c.points["mean"].iloc[0] for c in panel.curves if c.source == "measured"]
    assert panel.kind == "dots"
    assert any(dot == pytest.approx(mean, rel=1e-9, abs=1e-12) for dot in dots)
    assert [b.high for b in panel.bands] == [primary.threshold]


@pytest.mark.parametrize("name", STUDIES)
def test_panels_can_be_drawn_have_titles_that_fit_and_show_claims_that_are_made(name, table_of):
    table, module = table_of(name), STUDIES[name]
    names = {claim.name for claim in module.claims(table)}
    panels = [*module.headline(table), *module.details(table)]
    figures.draw(panels)
    for panel in panels:
        assert len(panel.title) <= LONGEST, panel.title
        assert any(unit in panel.ylabel for unit in ("%", "pp")), panel.ylabel
        assert not panel.claim or panel.claim in names


# --- test_time_adaptation ------------------------------------------------------------------------


def adapted(table_of, sorted_harm=0.4, entropy=0.0, share=0.2, group_harm=0.0, source=0.3):
    """Errors of 30 %, batch statistics 5 pp better on mixed batches and worse on sorted ones."""

    def error(stream, way):
        def of(row):
            if row["norm.name"] == "group":
                return source + (group_harm if way == "tent" else 0.0)
            change = {"mixed": -0.05, "sorted": sorted_harm, "single": sorted_harm}[stream]
            return source + (0.0 if way == "source" else change) + entropy * (way == "tent")

        return of

    columns = {}
    for stream in ("mixed", "single", "sorted"):
        for way in ("source", "batch", "tent"):
            for shift in ("noise", "blur"):
                key = f"{stream}_{way}_{shift}"
                columns[f"{key}_error"] = columns[f"{key}_late_error"] = error(stream, way)
                columns[f"{key}_share"] = lambda row: share if row["norm.name"] == "batch" else 0.1
    return planted(table_of("test_time_adaptation"), **columns)


KEY = "digits resnet: "


@pytest.mark.parametrize(
    ("harm", "wanted"), [(0.4, "supported"), (0.0, "refuted"), (-0.1, "refuted")]
)
def test_harm_on_sorted_streams_is_found(table_of, harm, wanted):
    found = verdicts(test_time_adaptation, adapted(table_of, harm))[f"{KEY}sorted"]
    assert found.primary
    assert found.verdict == wanted
    assert found.mean == pytest.approx(100 * harm, abs=0.5)


def test_harm_that_group_norm_has_as_well_is_no_harm_of_batch_norm(table_of):
    found = verdicts(test_time_adaptation, adapted(table_of, 0.4, group_harm=0.4))
    assert found[f"{KEY}sorted"].verdict == "refuted"
    assert found[f"{KEY}group norm, sorted by class"].verdict == "refuted"


def test_one_answer_is_its_share_and_collapse_is_that_or_guessing(table_of):
    """30 % and 50 pp more are above 85 % of chance, 76.5 %; 40 pp more are not."""
    name = f"{KEY}one answer, sorted by class"
    table = adapted(table_of, 0.4, share=0.6)
    assert verdicts(test_time_adaptation, table)[name].mean == pytest.approx(50, abs=0.5)

    def rates(table):
        (panel,) = test_time_adaptation.main_first(table)
        found = test_time_adaptation.collapsed(panel.rows, "sorted")
        return found.groupby(panel.rows["norm.name"]).mean().to_dict()

    assert rates(adapted(table_of, 0.4)) == {"batch": 0, "group": 0}
    assert rates(adapted(table_of, 0.5)) == {"batch": 1, "group": 0}
    assert rates(table) == {"batch": 1, "group": 0}


def test_blur_alone_makes_the_claim_about_blur_invalid(table_of):
    table = adapted(table_of)
    table["mixed_source_blur_error"] = 0.8
    found = verdicts(test_time_adaptation, table)
    assert found[f"{KEY}sorted, blur"].verdict == "invalid"
    assert found[f"{KEY}sorted"].verdict == "supported"


def test_what_was_lost_before_adapting_makes_it_invalid(table_of):
    found = verdicts(test_time_adaptation, adapted(table_of, source=0.8))
    assert {v.verdict for v in found.values()} == {"invalid"}


def test_entropy_and_statistics_are_told_apart(table_of):
    found = verdicts(test_time_adaptation, adapted(table_of, entropy=-0.02))
    assert found[f"{KEY}gain"].mean == pytest.approx(7, abs=0.3)
    assert found[f"{KEY}entropy, mixed"].mean == pytest.approx(2, abs=0.3)
    assert found[f"{KEY}entropy, mixed"].verdict == "supported"
    assert found[f"{KEY}entropy, sorted"].verdict == "refuted"
    assert found[f"{KEY}gain"].published_effect == pytest.approx(24.9)


# --- joint_statistics ----------------------------------------------------------------------------


def joined(table_of, mismatch=0.05, training=0.0, groups=0.0):
    """Read by the other population than in training, each network loses `mismatch`."""

    def apart(row):
        return row.get("train.copies") == "behind"

    def base(row):
        whole = row["norm.name"] == "batch" and np.isnan(row.get("norm.group_size", np.nan))
        return 0.2 + training * apart(row) + groups * whole

    return planted(
        table_of("joint_statistics"),
        **{name: lambda row: base(row) + mismatch * apart(row)
           for name in ("test_error", "corrupted_error")},
        **{name: lambda row: base(row) + mismatch * (not apart(row))
           for name in ("test_error_precise", "corrupted_error_own")},
    )  # fmt: skip


NOISE = "digits resnet, noise: "


@pytest.mark.parametrize(("mismatch", "wanted"), [(0.05, "supported"), (0.0, "refuted")])
def test_what_apart_costs_in_evaluation_is_found(table_of, mismatch, wanted):
    found = verdicts(joint_statistics, joined(table_of, mismatch))
    assert found[f"{NOISE}apart"].primary
    assert found[f"{NOISE}apart"].verdict == wanted
    assert found[f"{NOISE}apart"].mean == pytest.approx(100 * mismatch, abs=0.4)
    assert found[f"{NOISE}apart, own statistics"].verdict == "supported"
    assert not found["digits resnet, blur: apart"].primary


def test_a_loss_in_training_is_not_one_of_evaluation(table_of):
    """Own statistics do not win back what training apart costs."""
    found = verdicts(joint_statistics, joined(table_of, 0.0, training=0.05))
    assert found[f"{NOISE}apart"].verdict == "supported"
    assert found[f"{NOISE}apart, own statistics"].verdict == "refuted"
    better = verdicts(joint_statistics, joined(table_of, 0.05, training=-0.03))
    assert better[f"{NOISE}auxiliary, clean"].verdict == "supported"


def test_groups_that_are_smaller_are_judged_by_themselves(table_of):
    same, other = (verdicts(joint_statistics, joined(table_of, groups=g)) for g in (0.0, 0.04))
    assert same[f"{NOISE}groups alone"].verdict == "supported"
    assert other[f"{NOISE}groups alone"].verdict == "refuted"
    assert other[f"{NOISE}apart"].mean == pytest.approx(same[f"{NOISE}apart"].mean, abs=1e-9)


# --- averaged_weights ----------------------------------------------------------------------------


def averages(table_of, stale=0.05, averaged=0.0, gain=0.02):
    swa = "optimizer.average_from"

    def late(row):
        return row.get(swa) == 0.75

    return planted(
        table_of("averaged_weights"),
        test_error=lambda row: 0.2,
        test_error_precise=lambda row: 0.2,
        test_error_averaged=lambda row: (
            0.2 - gain + stale * late(row) * (row["norm.name"] == "batch")
        ),
        test_error_averaged_precise=lambda row: 0.2 - gain,
        averaged_statistics_error=lambda row: 0.2 - gain + averaged,
        update_bn_error=lambda row: 0.2 - gain,
    )


CONTRAST = "contrast_digits resnet: "


@pytest.mark.parametrize(("stale", "wanted"), [(0.05, "supported"), (0.0, "refuted")])
def test_the_cost_of_stale_statistics_is_found(table_of, stale, wanted):
    found = verdicts(averaged_weights, averages(table_of, stale))
    assert found[f"{CONTRAST}stale, SWA"].primary
    assert found[f"{CONTRAST}stale, SWA"].verdict == wanted
    assert found[f"{CONTRAST}stale, SWA"].mean == pytest.approx(100 * stale, abs=0.4)
    assert found[f"{CONTRAST}stale, EMA"].verdict == "refuted"
    assert found[f"{CONTRAST}averaged and stale"].mean == pytest.approx(100 * stale - 2, abs=0.4)


@pytest.mark.parametrize(("averaged", "wanted"), [(0.0, "supported"), (0.04, "refuted")])
def test_averaged_statistics_are_as_good_or_not(table_of, averaged, wanted):
    found = verdicts(averaged_weights, averages(table_of, averaged=averaged))
    assert found[f"{CONTRAST}averaged statistics, SWA"].verdict == wanted
    assert found[f"{CONTRAST}update_bn"].verdict == "supported"


def test_gains_of_averaging_are_found_with_either_norm(table_of):
    found = verdicts(averaged_weights, averages(table_of))
    for name in ("gain, SWA", "gain, EMA", "group norm"):
        assert found[f"{CONTRAST}{name}"].verdict == "supported", name
        assert found[f"{CONTRAST}{name}"].mean == pytest.approx(2, abs=0.4)
