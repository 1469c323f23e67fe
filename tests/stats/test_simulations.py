"""The whole procedure where there is no effect: it errs as often as it says, or the docs tell."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as reference

from bnstudy.stats import coverage, power, proportion_interval

DOCS = Path(__file__).parents[2] / "docs" / "statistics.md"
DESIGNS = [[12], [8, 11, 14]]  # all sign flips are counted at these


@pytest.mark.parametrize("design", DESIGNS, ids=str)
@pytest.mark.parametrize("name", coverage.SYMMETRIC)
def test_symmetric_differences_are_found_in_five_percent_of_null_studies(name, design):
    values = coverage.SYMMETRIC[name](np.random.default_rng(7), (20_000, design[-1]))
    verdict, _ = power.decide(values, looks=design)
    # 5 % and 3.2 binomial standard errors: exceeded in one of 1,500 simulations
    assert reference.binom.sf(0.055 * 20_000, 20_000, 0.05) < 1 / 1_500
    assert np.mean(verdict != 0) <= 0.055
    if len(design) == 1:  # 102 of 4,096 flips on each side
        assert abs(np.mean(verdict != 0) - 204 / 4096) < 4 * 0.0015


@pytest.mark.parametrize("name", coverage.SKEWED)
def test_skewed_differences_err_more_often_and_are_printed(name, capsys):
    rows = {n: coverage.skewed(n)[name] for n in (12, 24, 48)}
    with capsys.disabled():
        for n, rate in rows.items():
            print(
                f"\n{name}, {n} seeds: covers {100 * rate.covers:.1f} %, rejects zero in "
                f"{100 * (1 - rate.covers):.1f} % (too low {100 * rate.too_low:.1f}, "
                f"too high {100 * rate.too_high:.1f})",
                end="",
            )
    documented = table_of_the_docs()
    for n, rate in rows.items():
        # two simulations, of 4,000 and 20,000 samples, the first with fewer random signs
        # (conditional on them a rate of 2.5 % on one side moves by 0.22 points): four deviations
        expected = documented[name, str(n)][0]
        spread = (expected * (1 - expected) * (1 / 4_000 + 1 / 20_000) + 0.0022**2) ** 0.5
        assert abs(1 - rate.covers - expected) < 4 * spread


def test_what_stands_beside_an_interval_is_the_simulation():
    assert "over 12 seeds cover 92 %" in coverage.sentence(12)
    assert "98.2 % intervals" in coverage.sentence(12, 0.0179)
    assert coverage.sentence(5) == "5 seeds cannot reach 5 %: 6 at least can."
    told = coverage.sentence(48, 0.026, [12, 24, 48])
    found = re.findall(r"in (\d+) % over looks at 12, 24, 48 seeds", told)
    kinds = ("mixture against normal", "log-normal")
    for rate, kind in zip(found, kinds, strict=True):
        documented = table_of_the_docs()[kind, "looks 12, 24, 48"][0]
        # four standard errors of the difference of two rates, and rounding to one point
        variance = documented * (1 - documented) * (1 / 4_000 + 1 / 20_000)
        assert abs(int(rate) / 100 - documented) < 4 * variance**0.5 + 0.005


def test_the_worse_of_the_skewed_cases_is_told_too():
    error = 1 - coverage.skewed(12)["log-normal"].covers
    assert error > 0.1  # otherwise there would be nothing to tell
    mild, hard = coverage.sentence(12).split("log-normal")
    assert f"zero is rejected in {100 * error:.0f} % of studies" in hard
    assert f"{100 * error:.0f} %" not in mild
    assert coverage.sentence(12).count(".") == 2


def table_of_the_docs():
    """(differences, seeds) -> error, too low, too high, as docs/statistics.md states them."""
    rows = {}
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in coverage.SYMMETRIC | coverage.SKEWED:
            rows[cells[0], cells[1]] = [float(cell.rstrip(" %")) / 100 for cell in cells[2:5]]
    return rows


@pytest.mark.slow
def test_the_procedure_errs_as_documented(capsys):
    """Four minutes: the table of the docs, made again, and the bound on symmetric differences."""
    rates = coverage.error_rates()
    with capsys.disabled():
        print("\n" + coverage.markdown(rates))
    assert coverage.markdown(rates) in DOCS.read_text()
    for row in rates[rates["differences"].isin(coverage.SYMMETRIC)].itertuples():
        # the upper end of the 98 % interval: 20,000 samples leave 0.4 points above a rate of 5 %
        upper = proportion_interval(round(20_000 * row.error), 20_000, 0.98).high
        assert upper <= 0.055, row
