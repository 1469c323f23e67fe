"""Whatever is typed, and whatever a file holds, a command ends with a message and an exit code.

One process, --dry-run wherever something would be trained. Cases are drawn by hypothesis from a
fixed seed: 200 in the fast suite, 2,000 in the slow one.
"""

import sys
from collections import Counter
from pathlib import Path

import pytest
from hangs import in_time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shell import bnstudy_, own_folder

from bnstudy.config.settings import GROUPS, schema_keys
from bnstudy.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "store"))
from store_samples import put

__all__ = ["own_folder"]  # a fixture that acts by being here
CODES = (0, 1, 2, 130)
BASE = ["scale=smoke", "tracker.mode=disabled", "--dry-run"]
KEYS = [
    *schema_keys(),
    *GROUPS,
    "hydra/launcher",
    "hydra.launcher.x",
    "hydra.run.dir",
    "study",
    "",
    "norm.grp",
    "lr",
    "model.",
    ".model",
    "a.b.c",
    "model/x",
    "arms",
    "scale.default.epochs",
]
NUMBERS = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "7",
    "0.5",
    "1e308",
    "-1e308",
    "1e-320",
    "nan",
    "inf",
    "-inf",
    "99999999999999999999",
    "2147483648",
    "-2147483649",
    "9223372036854775808",
    "1e3",
    "0x10",
    "1_000",
    "٣",
    "100000000",
]
WORDS = [
    "null",
    "true",
    "",
    "''",
    "batch",
    "group",
    "digits",
    "mlp",
    "resnet",
    "copy",
    "text",
    "nothing:here",
    "json:loads",
    ":",
    "a:",
    "../..",
    "/dev/zero",
    "/dev/null",
    "/proc/self/mem",
    "~",
    ".",
    "results",
    "a b",
    "ä\u202e",
    "\x00",
    "\\",
    "'",
    '"',
    "${x}",
    "${oc.env:HOME}",
    "???",
    "[",
    "[]",
    "[1",
    "{a:1}",
    "{}",
    "[1,2]",
    "[null]",
    "a,b",
    "1,2",
    "batch,group",
    "digits,text",
    "range(1,4)",
    "range(1,10000000000)",
    "choice(1,2)",
    "interval(0,1)",
    "glob(*)",
    "glob(b*)",
    "sort(3,1)",
    "shuffle(1,2)",
    "tag(a,1)",
    "int(1)",
    "1..5",
    "0..99999999999",
    "[3,3,-1]",
    "batch; group num_groups=2",
    ";",
    "offline",
    "smoke",
    "full",
    "auto",
    "test",
    "reference",
]
VALUES = st.one_of(
    st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.text(max_size=8),
    st.lists(st.sampled_from(NUMBERS + WORDS), max_size=3).map(",".join),
)  # fmt: skip


def override(pair: tuple[str, str, str]) -> str:
    sign, key, value = pair
    return f"{sign}{key}={value}"


OVERRIDES = st.tuples(
    st.sampled_from(["", "", "", "", "+", "++", "~"]), st.sampled_from(KEYS), VALUES
).map(override)
SIZES = st.tuples(
    st.just(""),
    st.sampled_from(
        [k for k in schema_keys() if k.partition(".")[0] in (*GROUPS, "train", "evaluate")]
    ),
    st.sampled_from(NUMBERS),
).map(override)
GOOD = st.sampled_from([
    "train.batch_size=4", "train.batch_size=40", "train.steps=3", "train.examples=80", "seeds=2",
    "optimizer.lr=1e308", "optimizer.lr=1e-320", "optimizer.weight_decay=1e308", "norm=layer",
    "norm=none", "norm=batch norm.eps=1e-300", "norm.affine=none", "norm.gamma_init=-1e308",
    "data.contrast=1e308", "data.pixel_noise=1e308", "data.train_size=40", "model.hidden=[1]",
    "optimizer.schedule=cosine", "optimizer=adam", "evaluate.every=1000000", "workers=1",
    "workers=99", "max_stack=1", "compile=always", "device=cuda", "looks=[6]",
    "until=conclusive", "data.sequence=rows", "results_dir=elsewhere", "tune=published",
    "max_minutes=1e-9", "data.split_seed=9223372036854775807",
])  # fmt: skip
CHEAP = st.sampled_from(["model=mlp", "norm=group", "data=mnist_small", "model=recurrent data=copy",
                         "model=recurrent data=text", "train.steps=3", "norm=ghost"])  # fmt: skip
TRAIN = st.builds(
    lambda more, words, cheap: ["train", *more, *cheap.split(), *" ".join(words).split(" "), *BASE],
    st.sampled_from([[], ["-m"]]),
    st.one_of(
        st.lists(OVERRIDES, min_size=1, max_size=2),
        st.tuples(SIZES),
        st.lists(GOOD, min_size=1, max_size=2),
        st.tuples(GOOD, SIZES),
    ),
    CHEAP,
)  # fmt: skip
NAMES = ["ls", "show", "rm", "export", "report", "doctor", "figure", "advise", "fold", "power",
         "tune", "audit", "completion", "trian", "", "--help", "--version"]  # fmt: skip
OPTIONS = [
    "--csv",
    "-",
    "--parquet",
    "t.parquet",
    "--stale",
    "--yes",
    "--help",
    "--nope",
    "--folder",
    "results",
    "--metric",
    "test_error",
    "abc",
    "results_dir=results",
    "results_dir=nowhere",
    "norm=batch",
    "train.batch_size=4",
    "batch_size",
    "all",
    "--cfg",
    "job",
    "--run-entries",
]
OTHERS = st.builds(
    lambda name, words: [name, *words],
    st.sampled_from(NAMES),
    st.lists(st.one_of(st.sampled_from(OPTIONS), OVERRIDES, st.text(max_size=6)), max_size=3),
)
STUDIES = st.builds(
    lambda name, word: ["study", name, *word, *BASE],
    st.sampled_from(["sync", "eval_batch", "class_skew", "nope", ""]),
    st.lists(OVERRIDES, max_size=2),
)
COMPARED = st.builds(
    lambda words: ["compare", "norm=batch,group", "model=mlp", *words, *BASE],
    st.lists(OVERRIDES, min_size=1, max_size=2),
)
LINES = st.one_of(OTHERS, OTHERS, STUDIES, COMPARED)
EVERY = {"overrides": (100, TRAIN), "lines": (40, LINES), "files": (60, None)}


@pytest.fixture
def bounded(monkeypatch):
    """Nothing trains, on a machine with 1 GiB: no case fills this one's memory."""
    for module in ("bnstudy.data.sequences", "bnstudy.work.build"):
        monkeypatch.setattr(f"{module}.memory", lambda: 2**30)
    monkeypatch.setattr("bnstudy.cli.execute.launch", lambda *a, **k: pytest.fail("it trains"))


def tried(times: int):
    return settings(max_examples=times, derandomize=True, deadline=None, database=None,
                    suppress_health_check=list(HealthCheck))  # fmt: skip


def ended(words: list[str], codes: Counter) -> None:
    """Run a command; it must end with a code that is promised and without a traceback."""
    with in_time():
        result = bnstudy_(*words)
    codes[result.exit_code] += 1
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise AssertionError(f"traceback: {words}") from result.exception
    assert result.exit_code in CODES, (words, result.output)
    assert "Traceback" not in result.output, (words, result.output)


def typed(lines, times: int, codes: Counter) -> None:
    @tried(times)
    @given(lines.filter(lambda words: "download" not in " ".join(words)))  # asks no server
    def test(words):
        ended(words, codes)
        assert not list(Path().glob("**/cells")), words

    test()


def damaged(times: int, codes: Counter) -> None:
    """Bytes of a random file of a store are replaced, inserted or cut."""
    whole = Store(Path("whole") / "runs")
    put(whole)
    put(whole, batch_size=8)
    files = sorted(p.relative_to("whole") for p in Path("whole").rglob("*") if p.is_file())
    contents = {path: ("whole" / path).read_bytes() for path in files}

    @tried(times)
    @given(
        st.sampled_from(files), st.integers(0, 10_000), st.binary(max_size=6), st.integers(0, 50),
        st.sampled_from([["ls"], ["show", "batch=4"], ["export", "--csv", "-"], ["rm", "--stale"]]),
    )  # fmt: skip
    def test(path, at, put_in, cut, words):
        place, content = "whole" / path, contents[path]
        place.parent.mkdir(parents=True, exist_ok=True)
        at %= len(content)
        place.write_bytes(content[:at] + put_in + content[at + cut :])
        ended([*words, "results_dir=whole"], codes)
        table = Store(whole.root, say=lambda _: None).table()
        assert len(table) in (2, 4)
        assert (table["test_error"] == 0.25).all()
        for name, original in contents.items():
            ("whole" / name).parent.mkdir(parents=True, exist_ok=True)
            ("whole" / name).write_bytes(original)

    test()


def fuzz(kind: str, times: int, capsys) -> None:
    codes: Counter = Counter()
    if kind == "files":
        damaged(times, codes)
    else:
        typed(EVERY[kind][1], times, codes)
    with capsys.disabled():
        print(f"\n{sum(codes.values())} {kind}: exit codes {dict(sorted(codes.items()))}")


@pytest.mark.parametrize("kind", EVERY)
def test_fuzz(kind, bounded, capsys):
    fuzz(kind, EVERY[kind][0], capsys)


@pytest.mark.slow
@pytest.mark.parametrize("kind", EVERY)
def test_fuzz_more(kind, bounded, capsys):
    fuzz(kind, 10 * EVERY[kind][0], capsys)
