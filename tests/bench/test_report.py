"""The report benchmark asks the planner and the store as they are; here in a small store."""

from bnstudy.bench import report


def test_a_full_store_is_planned_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "ASKED", 2)
    root = tmp_path / "runs"
    configs = report.filled(root, 3)
    report.planning(root, configs)()
    report.study_table(root, configs)()
