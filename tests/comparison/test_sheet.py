"""The printed forms of a comparison; LaTeX is read by a small parser, and compiled where it can."""

import io
import re
import shutil
import subprocess

import pandas as pd
import pytest
from rich.console import Console

from bnstudy.comparison import compare, to_csv, to_latex, to_markdown, to_rich, to_text

FORMS = (to_text, to_markdown, to_latex)
COMPILERS = [name for name in ("pdflatex", "tectonic") if shutil.which(name)]


@pytest.fixture
def awkward(many):
    """Arms with every character that LaTeX reads as a command."""
    names = {"batch": r"a_b 50% $x$ {y} \z", "layer": "R&D #1 ~ ^ <p> |q|", "group": "group"}
    return compare(many.assign(**{"norm.name": many["norm.name"].map(names)}), ["norm.name"])


def test_markdown_is_what_a_paper_would_show(table, axes):
    lines = to_markdown(compare(table, axes)).splitlines()
    assert lines[0] == (
        "| batch_size | norm | test_error (%) | vs batch (pp) | p (Holm) | failed | time |"
    )
    assert lines[1] == "|---|---|---:|---:|---:|---:|---:|"
    # half width of 30, 34, 32: t(0.975, 2) * 2 / sqrt(3) = 4.97; of 11, 15, 12: 5.17
    assert lines[2] == "| 2 | batch | 32.0 [27.0, 37.0] | reference |  | 1 diverged of 3 | 3 s |"
    # the differences -19, -19, -20 have mean -19.33; three seeds have no sign-flip interval
    assert lines[3].startswith("|  | group | 12.7 [7.5, 17.8] | −19.3")
    assert lines[4].startswith("| 32 | batch |")
    assert lines[-1].startswith("test_error (%): mean [95 % Student-t interval], 3 seeds.")


def test_the_note_says_what_a_reader_must_know(table, many, axes):
    for form in FORMS:
        text = form(compare(table, axes)).replace("\\", "")
        for part in (
            "Differences to batch are paired by seed",
            "adjusted for 2 comparisons (Holm)",
            "With 3 pairs of seeds no p can be 0.05 or less: 7 are needed",
            "(none here)",
            "bnstudy 0.1.0, torch 2.15.0",
        ):
            assert part in text
    enough = to_markdown(compare(many, ["norm.name"]))
    assert "needed" not in enough
    assert "none here" not in enough
    assert "looks at 12" in to_markdown(compare(many, ["norm.name"]), "looks at 12")
    other = to_text(compare(table, axes, "least_m"))
    assert "which end of this metric is better is not known" in other


def test_only_the_best_is_marked(many):
    got = compare(many, {"norm.name": ["batch", "layer", "group"]})
    lines = to_markdown(got).splitlines()
    assert ["**" in line for line in lines[2:5]] == [False, False, True]
    assert ["textbf" in line for line in to_latex(got).splitlines()].count(True) == 1
    starred = [line for line in to_text(got).splitlines()[2:5] if "*" in line]
    assert [line.split()[0] for line in starred] == ["group"]
    undecided = to_text(compare(many[many["seed"] < 3], ["norm.name"]))
    assert "]*" not in undecided


def test_numbers_have_the_decimals_of_their_interval(many):
    text = to_text(compare(many, {"norm.name": ["batch", "group"]}))
    assert "30.100 [30.046, 30.154]" in text  # 1, 2, 3 permille, four times each
    assert "−19.8 [−19.8, −19.8]" in text  # no spread: one decimal


def test_failures_are_told_where_they_are_known(table, axes):
    rows = table.assign(num_classes=10, train_error=0.1)
    bad = (rows["norm.name"] == "group") & (rows["train.batch_size"] == 2) & (rows["seed"] > 0)
    rows["train_error"] = rows["train_error"].mask(bad, 0.5)
    text = to_markdown(compare(rows, axes))
    assert "1 of 3 (1 diverged)" in text
    assert "2 of 3 |" in text
    assert "0 of 3 |" in text
    nothing_known = table.drop(columns="diverged_at")
    assert "failed" not in to_markdown(compare(nothing_known, axes))


def test_a_cell_without_runs_is_shown_as_such(table, axes):
    text = to_markdown(compare(table, {**axes, "norm.name": ["batch", "group", "layer"]}))
    assert "|  | layer | 0 | — | — | — | — | — |" in text
    assert "0 to 3 seeds" in text
    assert "— means no run" in text


def test_one_axis_and_one_seed(table):
    one = table[(table["seed"] == 0) & (table["train.batch_size"] == 2)]
    text = to_markdown(compare(one, {"norm.name": ["batch", "group"]}))
    assert "| group | 11.0 | −19.0 |" in text
    assert "a single run has no interval" in text


def test_the_terminal_shows_the_same_cells(many):
    out, got = io.StringIO(), compare(many, {"norm.name": ["batch", "layer", "group"]})
    Console(file=out, width=200).print(to_rich(got))
    for line in to_text(got).splitlines()[2:5]:
        for part in re.split(r"\s{2,}", line):
            assert part in out.getvalue()


def test_csv_holds_the_unscaled_numbers(many):
    got = compare(many, ["norm.name"])
    back = pd.read_csv(io.StringIO(to_csv(got)), keep_default_na=False, na_values=[""])
    empty = ["bnstudy", "torch"]  # not in this table
    pd.testing.assert_frame_equal(back.drop(columns=empty), got.drop(columns=empty))


def parsed(source: str) -> list[list[str]]:
    """The cells of the one table in a LaTeX text.

    Fails where environments or braces are not balanced, a special character is not escaped, or a
    line has another number of cells than the column specification.
    """
    assert source.startswith("% needs \\usepackage{booktabs}\n")
    source = source.partition("\n")[2]
    open_: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", source):
        if kind == "begin":
            open_.append(name)
        else:
            assert open_.pop() == name
    assert not open_
    bare = re.sub(r"\\[{}]", "", source)
    depth = 0
    for character in bare:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    inside = re.search(r"\\begin\{tabular\}\{([lr]+)\}(.*)\\end\{tabular\}", source, re.S)
    assert inside, "no tabular"
    columns, body = inside.groups()
    rows = []
    for line in re.sub(r"\\(top|mid|bottom)rule", "", body).split(r"\\"):
        if line.strip():
            rows.append(re.split(r"(?<!\\)&", line.strip()))
    assert {len(row) for row in rows} == {len(columns)}
    text = source.replace(body, "") + " ".join(cell for row in rows for cell in row)
    plain = re.sub(r"\$-\$", "", re.sub(r"\\[\\{}$&%#_]", "", text))
    assert not re.search(r"[#$%&~^_<>|]", re.sub(r"\\[a-z]+", "", plain)), "not escaped"
    assert plain.isascii()
    return [[cell.strip() for cell in row] for row in rows]


def test_latex_is_a_table_of_booktabs(table, axes):
    source = to_latex(compare(table, axes))
    rows = parsed(source)
    assert rows[0][2:4] == [r"test\_error (\%)", "vs batch (pp)"]
    assert len(rows) == 1 + 4
    assert [row[0] for row in rows[1:]] == ["2", "", "32", ""]
    assert rows[2][3] == "$-$19.3"
    rules = re.findall(r"\\(top|mid|bottom)rule", source)
    assert rules == ["top", "mid", "mid", "bottom"]


def test_latex_escapes_whatever_an_arm_is_called(awkward):
    rows = parsed(to_latex(awkward))
    assert rows[1][0] == r"a\_b 50\% \$x\$ \{y\} \textbackslash{}z"
    assert rows[2][0] == (
        r"R\&D \#1 \textasciitilde{} \textasciicircum{} \textless{}p\textgreater{} "
        r"\textbar{}q\textbar{}"
    )
    assert rows[3][1].startswith(r"\textbf{")


@pytest.mark.parametrize(
    "broken",
    [
        lambda s: s.replace(r"\end{tabular}", ""),
        lambda s: s.replace(" & ", " ", 1),
        lambda s: s.replace(r"\_", "_", 1),
        lambda s: s.replace(r"\textbf{", "", 1),
    ],
)
def test_the_parser_finds_what_latex_would(awkward, broken):
    source = broken(to_latex(awkward))
    assert source != to_latex(awkward)
    with pytest.raises(AssertionError):
        parsed(source)


@pytest.mark.skipif(not COMPILERS, reason="neither pdflatex nor tectonic is installed")
def test_latex_compiles(awkward, table, axes, tmp_path):
    tables = to_latex(awkward) + to_latex(compare(table, axes))
    (tmp_path / "page.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\usepackage[T1]{fontenc}\n"
        f"\\begin{{document}}\n{tables}\\end{{document}}\n"
    )
    options = ["-interaction=nonstopmode", "-halt-on-error"] if COMPILERS[0] == "pdflatex" else []
    done = subprocess.run([COMPILERS[0], *options, "page.tex"], cwd=tmp_path, capture_output=True,
                          text=True, check=False, timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "page.pdf").stat().st_size > 0
