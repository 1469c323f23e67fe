"""Batch statistics and entropy minimisation on streams of corrupted test images.

Primary claim: on a stream that is sorted by class, adaptation (statistics of the batch and Tent's
step down the entropy) costs batch norm at least 5 pp more than group norm, each against the same
network left alone. What of it is entropy minimisation is asked next. Gains on mixed batches, harm
at batch 1 and how often one class is all that is answered have claims of their own. Written before
the first run of configs/study/test_time_adaptation.yaml.
"""

from collections.abc import Iterable, Mapping

import pandas as pd

from bnstudy import figures
from bnstudy.figures import Band, Style
from bnstudy.stats import Claim, paired_differences
from bnstudy.stats.failures import chance
from bnstudy.studies.drawing import across, course, differences, reported
from bnstudy.studies.kit import (
    NORM,
    Panel,
    Precondition,
    Published,
    comparable,
    extended,
    learned,
    panels,
    select,
    sequence,
    trained,
    values,
)

STREAMS = {"mixed": "mixed batches", "single": "batch 1", "sorted": "sorted by class"}
WAYS = {"source": "left alone", "batch": "batch statistics", "tent": "Tent"}
CLAIMED, OTHER = "noise", "blur"
HARM = 5.0  # pp: nearly three times what Tent wins over batch statistics in the source's table
NO_HARM = 2.0  # pp that adaptation may cost a network that does not collapse
# of chance: the second half of a stream is hardly better than guessing
COLLAPSED = 0.85
# of the answers in that half: a class is a tenth of a mixed stream and a fifth of a sorted half
ONE_ANSWER = 0.5
SHARE = "part of the answers, second half of the stream, that are the commonest class"
ADAPTED = "error on the stream, adapted minus left alone"
ENTROPY = "error on the stream, Tent minus batch statistics"
SOURCE, CAUSE = "Wang et al. 2021", "Niu et al. 2023"
PUBLISHED = Published(
    "published", "Wang et al. 2021, released code",
    "error in %, WRN-28-10, CIFAR-10-C, severity 5, mean over corruptions, batches of 200",
    {"source": 43.5, "batch": 20.4, "tent": 18.6},
)  # fmt: skip


def error(stream: str, way: str, shift: str = CLAIMED) -> str:
    """The column of the error over a whole stream."""
    return f"{stream}_{way}_{shift}_error"


def main_first(table: pd.DataFrame) -> list[Panel]:
    """The panels; the primary claim is about the residual network on digits, or photographs."""
    return panels(table, model="resnet")


def ways(stream: str, norm: str, rows: pd.DataFrame) -> list[str]:
    """How networks of a norm read a stream, of those that the table has."""
    own = select(rows, {NORM: norm})
    return [w for w in WAYS if error(stream, w) in own and own[error(stream, w)].notna().any()]


def harm(
    panel: Panel, norm: str, stream: str, shift: str = CLAIMED, before: str = "source"
) -> dict[int, float]:
    """What Tent adds to the error of a network on a stream, in pp; negative: it helps."""
    own = select(panel.rows, {NORM: norm})
    return paired_differences(*(values(own, error(stream, way, shift)) for way in ("tent", before)))


def collapsed(rows: pd.DataFrame, stream: str, way: str = "tent", shift: str = CLAIMED):
    """Whether a run has collapsed on a stream: in its second half it guesses, or says one thing."""
    key = f"{stream}_{way}_{shift}"
    guesses = rows[f"{key}_late_error"] >= COLLAPSED * chance(rows)
    return guesses | (rows[f"{key}_share"] >= ONE_ANSWER)


def one_answer(panel: Panel, stream: str) -> dict[int, float]:
    """Share of the commonest answer under Tent, batch norm minus group norm, in pp.

    The rate of collapse itself is drawn, not judged: where all networks of one norm collapse and
    none of the other, all seeds agree, and without spread there is no test.
    """
    column = f"{stream}_tent_{CLAIMED}_share"
    return paired_differences(
        *(values(panel.rows, column, {NORM: norm}) for norm in ("batch", "group"))
    )


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Two streams as they pass, sorted and one by one; what Tent costs each norm there."""
    main, *_ = main_first(table)
    return [
        _stream(main, "sorted", f"{main.title}: sorted by class"),
        _stream(main, "single", "batch 1"),
        _harms(main, CLAIMED, f"{main.key}: sorted"),
    ]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Streams as they pass; every way and corruption; collapses; gains beside the published."""
    found = []
    for panel in main_first(table):
        if not panel.main:
            found += [_stream(panel, s, f"{panel.title}: {s}") for s in ("sorted", "single")]
        found += [
            _stream(panel, "mixed", f"{panel.title}: mixed"),
            *(_errors(panel, shift) for shift in (CLAIMED, OTHER)),
            _harms(panel, OTHER),
            _collapses(panel),
            _gains(panel),
        ]
    return found


def _looks(norms: Iterable[str] = ("batch", "group")) -> dict[tuple[str, str], Style]:
    """A style for each norm and way: a color that no norm has where it is read otherwise."""
    pairs = [("batch", "batch"), ("batch", "tent"), ("group", "tent")]
    looks = {pair: figures.hue(i) for i, pair in enumerate(pairs)}
    return {**looks, **{(norm, "source"): figures.style_of(norm) for norm in norms}}


def _stream(panel: Panel, stream: str, title: str) -> figures.Panel:
    """Error by tenth of a stream of noisy images."""
    looks, curves = _looks(), []
    for norm in ("batch", "group"):
        own = select(panel.rows, {NORM: norm})
        curves += [
            course(own, f"{stream}_{way}_error", style=looks[norm, way],
                   label=f"{norm}, {WAYS[way]}")
            for way in ways(stream, norm, panel.rows)
        ]  # fmt: skip
    return figures.Panel(title, curves, "tenth of the stream", "error (%)", x="linear",
                         ceiling=100)  # fmt: skip


def _errors(panel: Panel, shift: str) -> figures.Panel:
    """Error over whole streams, by stream."""
    looks, curves = _looks(), []
    for norm in ("batch", "group"):
        own = select(panel.rows, {NORM: norm})
        for way in ways("mixed", norm, panel.rows):
            columns = {s: error(s, way, shift) for s in STREAMS}
            curves.append(
                across(own, columns, style=looks[norm, way], label=f"{norm}, {WAYS[way]}")
            )
    return figures.Panel(f"{panel.title}: {shift}", curves, "stream", "error (%)", x="names",
                         ceiling=100)  # fmt: skip


def _harms(panel: Panel, shift: str, claim: str = "") -> figures.Panel:
    """What Tent costs batch norm more than group norm, by stream, and each of them."""
    rows = {
        f"batch minus group, {words}": paired_differences(
            harm(panel, "batch", stream, shift), harm(panel, "group", stream, shift)
        )
        for stream, words in STREAMS.items()
    }
    rows |= {
        f"{norm}, {words}": harm(panel, norm, stream, shift)
        for norm in ("batch", "group")
        for stream, words in STREAMS.items()
    }
    styles = [figures.hue(3)] * 3 + [figures.style_of(n) for n in ("batch", "group") for _ in "123"]
    return differences(
        f"{shift}: Tent minus left alone", rows, styles, ylabel="error, difference (pp)",
        claim=claim, bands=[Band(HARM, HARM, f"{HARM:g} pp")],
    )  # fmt: skip


def _collapses(panel: Panel) -> figures.Panel:
    """The part of runs that collapse under Tent, by stream."""
    curves = []
    for norm in ("batch", "group"):
        own = select(panel.rows, {NORM: norm})
        columns = {stream: f"collapsed {stream}" for stream in STREAMS}
        own = extended(
            own, {f"collapsed {s}": collapsed(own, s).astype(float) for s in STREAMS}
        )  # fmt: skip
        curves.append(across(own, columns, norm=norm, dots=False))
    return figures.Panel(f"{panel.title}: collapsed", curves, "stream", "runs (%)", x="names",
                         ceiling=100)  # fmt: skip


def _gains(panel: Panel) -> figures.Panel:
    """What batch statistics and Tent win on mixed batches, beside the source's numbers."""
    rows, beside = {}, []
    for before, words in (("source", "Tent against left alone"),
                          ("batch", "Tent against batch statistics")):  # fmt: skip
        rows[words] = _negative(harm(panel, "batch", "mixed", before=before))
        gain = PUBLISHED[before] - PUBLISHED["tent"]
        beside.append(
            reported(PUBLISHED, f"{words}, CIFAR-10-C", gain, style=figures.hue(len(beside)))
        )
    return differences(
        "gains on mixed batches", rows, [figures.hue(i) for i in range(2)],
        ylabel="error, difference (pp)", beside=beside,
    )  # fmt: skip


def _negative(own: Mapping[int, float]) -> dict[int, float]:
    return {seed: -value for seed, value in own.items()}


def claims(table: pd.DataFrame) -> list[Claim]:
    """Harm on sorted streams and at batch 1, collapse, and gains on mixed batches, by panel."""
    return [claim for panel in main_first(table) for claim in _claims_of(panel)]


def _ready(panel: Panel, *norms: str) -> list[Precondition]:
    """Of claims about these norms: that they are trained, and work on the stream left alone."""
    left, own = error("mixed", "source"), {n: select(panel.rows, {NORM: n}) for n in norms}
    return [
        *(trained(rows, f"{norm} norm") for norm, rows in own.items()),
        *(learned(rows, f"{norm} norm left alone", left, COLLAPSED) for norm, rows in own.items()),
        comparable(panel.rows),
    ]


def _ready_for_blur(panel: Panel) -> list[Precondition]:
    """Of the claim about blurred images: networks left alone that have not collapsed there."""
    left = error("mixed", "source", OTHER)
    return [
        learned(select(panel.rows, {NORM: n}), f"{n} norm left alone, blur", left, COLLAPSED)
        for n in ("batch", "group")
    ]


def _claims_of(panel: Panel) -> list[Claim]:
    ready, alone = _ready(panel, "batch", "group"), _ready(panel, "batch")
    claim = panel.claims(source=CAUSE, preconditions=ready, estimand=ADAPTED)

    def more(stream: str, shift: str = CLAIMED) -> dict[int, float]:
        return paired_differences(*(harm(panel, n, stream, shift) for n in ("batch", "group")))

    gained = {before: PUBLISHED[before] - PUBLISHED["tent"] for before in ("source", "batch")}
    first = claim(
        "sorted",
        "on a stream of noisy images sorted by class adaptation (statistics of the batch, Tent's "
        f"step) costs batch norm at least {HARM:g} pp more than Tent's step costs group norm",
        more("sorted"), threshold=HARM, primary=panel.main,
    )  # fmt: skip
    second = claim(
        "entropy, sorted",
        "there Tent's step raises batch norm's error above that of batch statistics alone",
        harm(panel, "batch", "sorted", before="batch"),
        preconditions=alone,
        estimand=ENTROPY,
    )
    return [
        *sequence(first, second),
        claim("sorted, blur", "adaptation costs as much more on a sorted stream of blurred images",
              more("sorted", OTHER), threshold=HARM,
              preconditions=[*ready, *_ready_for_blur(panel)]),
        claim(
            "batch 1",
            f"one example at a time adaptation costs batch norm at least {HARM:g} pp more than "
            "group norm",
            more("single"), threshold=HARM,
        ),
        *(
            claim(
                f"one answer, {STREAMS[stream]}",
                f"{STREAMS[stream]}, under Tent batch norm gives its commonest answer more often "
                "than group norm",
                one_answer(panel, stream), estimand=SHARE,
            )
            for stream in ("sorted", "single")
        ),
        *(
            claim(
                f"group norm, {STREAMS[stream]}",
                f"{STREAMS[stream]}, Tent costs group norm less than {NO_HARM:g} pp",
                harm(panel, "group", stream), "not_worse", threshold=NO_HARM,
                preconditions=_ready(panel, "group"),
            )
            for stream in ("sorted", "single")
        ),
        claim(
            "gain", "on mixed batches Tent lowers batch norm's error below that of the network "
            "left alone",
            _negative(harm(panel, "batch", "mixed")), source=SOURCE, preconditions=alone,
            **PUBLISHED.cite("{} pp on CIFAR-10-C", gained["source"]),
        ),
        claim(
            "entropy, mixed", "and below that of batch statistics",
            _negative(harm(panel, "batch", "mixed", before="batch")), source=SOURCE,
            preconditions=alone, estimand=ENTROPY,
            **PUBLISHED.cite("{} pp on CIFAR-10-C", gained["batch"]),
        ),
    ]  # fmt: skip
