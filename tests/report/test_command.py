"""`bnstudy report`: which results it reads, where the page goes, what is a mistake."""

import pytest

from bnstudy import advice, cli
from tests.support.result_folders import put, verdicts


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as end:
            cli.main(["report", *words])
        said = capsys.readouterr()
        return end.value.code, said.out + said.err

    return run


def test_the_page_of_own_studies_lies_beside_their_records(tmp_path, shell):
    put(tmp_path / "results/runs/studies/batch_size/quick-1")
    assert shell() == (0, "1 study: results/runs/report.html\n")
    page = (tmp_path / "results/runs/report.html").read_text()
    assert 'href="studies/batch_size/quick-1/table.csv"' in page
    assert shell() == (0, "1 study: results/runs/report.html\n")
    assert (tmp_path / "results/runs/report.html").read_text() == page


def test_a_folder_of_results_gets_a_page_of_its_own(tmp_path, shell):
    put(tmp_path / "results/batch_size")
    put(tmp_path / "results/runs/studies/batch_size/quick-1")
    assert shell("--folder", "results") == (0, "1 study: results/report.html\n")
    page = (tmp_path / "results/report.html").read_text()
    assert 'href="batch_size/table.csv"' in page
    assert "quick-1" not in page


def test_the_strongest_advice_of_the_results_opens_the_page(tmp_path, shell):
    rule = next(r for r in advice.rules() if r.instead and "supported" in r.sentences)
    won = verdicts()
    won[0] = type(won[0])(**{**vars(won[0]), "name": rule.claim})
    put(tmp_path / "results" / rule.study, won, name=rule.study)
    shell("--folder", "results")
    page = (tmp_path / "results/report.html").read_text()
    line = advice.strongest(tmp_path / "results")[0]
    start, end = page.index('<ol class="advice">'), page.index("Primary claims:")
    assert line.evidence.replace("'", "&#39;") in page[start:end]
    assert f'href="#{rule.study}.' in page[start:end]


def test_damaged_claims_leave_a_page_that_says_so(tmp_path, shell):
    put(tmp_path / "results/batch_size")
    put(tmp_path / "results/sync", name="sync")
    (tmp_path / "results/sync/claims.json").write_text("{")
    assert shell("--folder", "results")[0] == 0
    page = (tmp_path / "results/report.html").read_text()
    assert "No advice: results/sync/claims.json cannot be read" in page
    assert "claims.json is damaged" in page
    assert 'id="batch_size.did"' in page


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--folder", "absent"], "--folder absent: there is no such folder"),
        (["--folder", ".", "results_dir=x"], "'results_dir=x' is too much"),
        (["norm=batch"], "no overrides but results_dir=DIR"),
    ],
)
def test_mistakes_are_one_message(tmp_path, shell, words, said):
    code, text = shell(*words)
    assert code == 2
    assert said in text
    assert list(tmp_path.iterdir()) == []
