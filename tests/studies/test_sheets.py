"""What figures say of a verdict, in words."""

from bnstudy.studies import sheets

VERDICT = {
    "name": "gain", "kind": "greater", "primary": True, "verdict": "supported", "mean": 5.13,
    "low": 2.44, "high": 7.85, "unit": "pp", "level": 0.95, "threshold": 2.0, "detectable": 3.0,
    "n": 12,
}  # fmt: skip


def test_a_verdict_with_a_number():
    assert sheets.told(VERDICT) == "supported: +5.1 pp [2.4, 7.8] (95 %), threshold 2"
    assert sheets.numbers(VERDICT) == (
        "+5.1 pp [2.4, 7.8] (95 % interval, threshold 2, detectable 3.0)"
    )
    assert sheets.heading([VERDICT]) == "supported: +5.1 pp [2.4, 7.8] (95 % interval), n = 12"


def test_a_claim_whose_cells_have_no_value_has_no_interval():
    lost = {**VERDICT, "verdict": "invalid", "mean": None, "low": None, "high": None, "n": 0}
    assert sheets.told(lost) == "invalid: not measured"
    assert sheets.numbers(lost) == "not measured"
    assert sheets.heading([lost]) == "invalid: not measured, n = 0"


def test_an_identity_has_a_verdict_only():
    same = {**VERDICT, "kind": "identical", "verdict": "true", "mean": 0.0}
    assert sheets.told(same) == "true"
    assert sheets.numbers(same) == ""
