"""Studies of depth: planted effects come out as planted, and the panels show the primary claims."""

import math
import zlib

import numpy as np
import pytest

from bnstudy import figures, stats
from bnstudy.mean_field import predicted_growth, predicted_residual
from bnstudy.studies import gradient_depth, initialization, residual_bias, saturation
from bnstudy.studies.kit import extended, filled

STUDIES = {
    module.__name__.rpartition(".")[2]: module
    for module in (gradient_depth, initialization, residual_bias, saturation)
}
LONGEST = 32  # characters of a title that fits beside two others
UNITS = ("%", "pp", "log10", "factor")


def noise(row, size):
    """Normal, the same for the same run."""
    return size * np.random.default_rng(zlib.crc32(row["cell"].encode()) + row["seed"]).normal()


def planted(table, **columns):
    """The table with columns made by functions of a row."""
    rows = table.to_dict("records")
    return extended(table, {name: [make(row) for row in rows] for name, make in columns.items()})


def verdicts(module, table):
    return {v.name: v for v in stats.judge(module.claims(table))}


@pytest.fixture(params=STUDIES)
def name(request):
    return request.param


@pytest.mark.parametrize("scale", ["smoke", "quick", "full"])
def test_the_headline_shows_the_number_of_the_primary_claim(name, scale, table_of):
    table, module = table_of(name, scale), STUDIES[name]
    (primary,) = (claim for claim in module.claims(table) if claim.primary)
    (panel,) = (p for p in module.headline(table) if p.claim == primary.name)
    mean = np.mean(list(primary.values.values()))
    dots = [c.points["mean"].iloc[0] for c in panel.curves if c.source == "measured"]
    assert panel.kind == "dots"
    assert any(dot == pytest.approx(mean, rel=1e-9) for dot in dots)
    margin = primary.threshold if primary.kind == "equivalent" else None
    assert [b.high for b in panel.bands] == ([margin] if margin else [])


def test_panels_have_titles_that_fit_units_and_curves_that_differ(name, table_of):
    table, module = table_of(name, "quick"), STUDIES[name]
    by_color = {style.color: norm for norm, style in figures.STYLES.items()}
    for panel in (*module.headline(table), *module.details(table)):
        assert len(panel.title) <= LONGEST, panel.title
        assert any(unit in panel.ylabel for unit in UNITS), panel.ylabel
        used = {by_color[c.style.color] for c in panel.curves if c.style.color in by_color}
        assert used <= set(table["norm.name"])
        if panel.kind == "curves":
            looks = [(c.style.color, c.style.marker, c.source) for c in panel.curves]
            assert len(set(looks)) == len(looks)


# --- gradient_depth ------------------------------------------------------------------------------


def theory(row):
    """The growth that is predicted for a cell; 1 where nothing is."""
    norm, phi = row["norm.name"], row["model.activation"]
    if row["model.residual"]:
        found = predicted_residual(norm, phi, row["train.batch_size"], row["model.depth"] - 1)
    else:
        found = predicted_growth(norm, phi, row["train.batch_size"])
    return 1.0 if math.isnan(found) else found


def grown(table_of, factor):
    table = filled(table_of("gradient_depth"), {"model.residual": True})
    table = table[table["seed"] < 56]  # six, as few as a verdict takes
    return planted(
        table, gradient_growth=lambda row: factor * theory(row) * math.exp(noise(row, 0.005))
    )


def test_networks_that_follow_theory_support_every_prediction(table_of):
    found = verdicts(gradient_depth, grown(table_of, 1.0))
    assert found["gaussian: relu, batch 128"].primary
    # Holm, six seeds; that batch norm makes gradients grow is a demonstration
    assert {v.verdict for v in found.values()} <= {"supported", "inconclusive", "shown"}
    assert found["gaussian: identity, batch 512"].verdict == "supported"
    plain = [v for v in found.values() if v.kind == "equivalent" and "shortcuts" not in v.name]
    assert all(abs(v.mean) < 1.5 for v in plain)  # with shortcuts it is of a small logarithm


@pytest.mark.parametrize("factor", [0.94, 1.06])
def test_a_growth_six_percent_off_is_refuted(table_of, factor):
    found = verdicts(gradient_depth, grown(table_of, factor))
    assert found["gaussian: relu, batch 128"].verdict == "refuted"
    assert found["gaussian: identity, batch 128"].mean == pytest.approx(
        100 * math.log(factor), abs=1
    )
    assert abs(found["gaussian: layer like batch, tanh"].mean) < 1.5  # both are off alike


# --- saturation ----------------------------------------------------------------------------------


def saturated(table_of, error):
    table = table_of("saturation")
    growth = {"sigmoid": 0.05, "tanh": 1.05}

    def errors(row):
        sigmoid = row["model.activation"] == "sigmoid" and row["model.depth"] >= 10
        lost = error if row["norm.name"] == "none" and sigmoid else 0.0
        return 0.1 + lost + noise(row, 0.005)

    return planted(
        table, test_error=errors, train_error=errors,
        gradient_growth=lambda row: (
            1.2 if row["norm.name"] != "none" else growth[row["model.activation"]]
        ) + abs(noise(row, 0.001)),
    )  # fmt: skip


def test_sigmoids_that_do_not_learn_without_a_norm_are_the_effect(table_of):
    found = verdicts(saturation, saturated(table_of, 0.8))
    key = "mnist_small deep: "
    assert found[f"{key}sigmoid"].primary
    assert found[f"{key}sigmoid"].verdict == "supported"
    assert found[f"{key}sigmoid"].mean == pytest.approx(80, abs=1)
    assert found[f"{key}sigmoid, layer norm"].verdict == "supported"
    assert found[f"{key}tanh"].verdict == "refuted"
    assert found[f"{key}sigmoid, vanishing"].verdict == "shown"
    assert found[f"{key}sigmoid, BN keeps gradients"].verdict == "shown"


def test_a_gain_below_the_threshold_is_refuted(table_of):
    found = verdicts(saturation, saturated(table_of, 0.02))
    assert found["mnist_small deep: sigmoid"].verdict == "refuted"


def test_shallow_networks_that_do_not_learn_make_it_invalid(table_of):
    table = saturated(table_of, 0.8)
    shallow = (table["model.depth"] == 4) & (table["norm.name"] == "batch")
    table.loc[shallow & (table["seed"] == 30), "train_error"] = 0.9
    assert verdicts(saturation, table)["mnist_small deep: sigmoid"].verdict == "invalid"


# --- initialization ------------------------------------------------------------------------------


def scaled(table_of, none, batch):
    """Errors that rise by so much at every scale but the usual one."""
    table = filled(table_of("initialization"), {"model.init_scale": 1.0})
    rises = {"none": none, "batch": batch, "layer": batch}

    def error(row):
        rise = rises[row["norm.name"]] if row["model.init_scale"] != 1 else 0.0
        return 0.1 + rise + noise(row, 0.002)

    return planted(table, test_error=error)


@pytest.mark.parametrize(
    ("none", "batch", "wanted"),
    [(0.4, 0.02, "supported"), (0.02, 0.1, "refuted")],
)
def test_rises_are_compared_between_norms(table_of, none, batch, wanted):
    found = verdicts(initialization, scaled(table_of, none, batch))
    primary = found["mnist_small deep: relu"]
    assert primary.primary
    assert primary.verdict == wanted
    assert primary.mean == pytest.approx(100 * (none - batch), abs=0.3)
    assert found["mnist_small deep: relu, layer norm"].verdict == "supported"
    assert found["mnist_small deep: tanh, rate"].mean == pytest.approx(100 * batch, abs=0.3)


# --- residual_bias -------------------------------------------------------------------------------


def shared(table_of, factor, lost=0.5, added=0.0):
    table = filled(table_of("residual_bias"), {"model.branch": "plain"})

    def part(block):
        def made(row):
            if row["model.branch"] == "skipinit":
                return added
            whole = 0.5 if row["norm.name"] == "none" else 1 / (block + 1)
            return factor * whole * math.exp(noise({**row, "seed": row["seed"] + block}, 0.01))

        return made

    def error(row):
        plain = row["norm.name"] == "none" and row["model.branch"] == "plain"
        deep = row["model.depth"] == 50
        return 0.1 + (lost if plain and deep else 0) + noise(row, 0.005)

    shares = {f"branch_share/{block:02d}": part(block) for block in (1, 2)}
    return planted(table, train_error=error, **shares)


def test_branches_with_the_predicted_part_support_it(table_of):
    found = verdicts(residual_bias, shared(table_of, 1.0))
    key = "mnist_small deep: "
    assert found[f"{key}SkipInit trains"].primary
    for name in ("batch, 50", "batch, 5", "layer, 50", "no norm, 50"):
        assert found[key + name].verdict == "shown", name
    assert found[f"{key}SkipInit"].verdict == "true"
    assert found[f"{key}no norm fails"].mean == pytest.approx(50, abs=1)
    assert found[f"{key}SkipInit trains"].verdict == "supported"


def test_branches_with_another_part_do_not_show_it(table_of):
    found = verdicts(residual_bias, shared(table_of, 1.2, added=1e-9))
    assert found["mnist_small deep: batch, 50"].verdict == "not shown"
    off = 5 - 100 * math.log(1.2)
    assert found["mnist_small deep: batch, 50"].mean == pytest.approx(off, abs=1)
    assert found["mnist_small deep: SkipInit"].verdict == "false"
