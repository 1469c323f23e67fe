"""Clients whose images differ: what may be averaged of a normalized network (Li et al. 2021).

Primary claim: with batch norm, averaging everything has a test error at least 1 pp above averaging
all but the norms (FedBN). Beside it group norm, clients that train alone, and clients whose images
do not differ. Errors are means over the clients, each on what it sees. Written before the first run
of configs/study/federated.yaml.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, differences
from bnstudy.studies.kit import EMA, NORM, PRECISE, TEST, Panel, Published, panels, select

SHARED, CONTRAST = "federation.shared", "federation.contrast"
GAIN = 1.0  # pp for which one would keep norms apart; less is not worth a rule of its own
SAME = 1.0  # pp within which arms count as equally good
SOURCE = "Li et al. 2021"
PUBLISHED = Published(
    "published", SOURCE,
    "digits of five sources and other images: FedBN is more accurate than averaging everything",
)  # fmt: skip
ARMS = {
    "batch norm, all shared": ("batch", "all", figures.style_of("batch")),
    "batch norm, norms apart": ("batch", "all_but_norms", figures.hue(0)),
    "batch norm, nothing shared": ("batch", "none", figures.hue(1)),
    "group norm, all shared": ("group", "all", figures.style_of("group")),
    "group norm, norms apart": ("group", "all_but_norms", figures.hue(2)),
    "group norm, nothing shared": ("group", "none", figures.hue(4)),
}
LEADING = tuple(ARMS)[:4]  # in the headline


def arm(panel: Panel, norm: str, shared: str, differ: bool = True) -> dict[str, Any]:
    """The cell of an arm, with clients whose images differ, or do not."""
    levels = panel.rows[CONTRAST]
    return {NORM: norm, SHARED: shared, CONTRAST: levels.max() if differ else levels.min()}


def more(
    panel: Panel,
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    by: tuple[str, str] | None = None,
) -> dict[int, float]:
    """How much more test error the first cell has, in pp; `by`: the metrics of the two."""
    one, other = by or ("test_error", "test_error")
    return paired_differences(panel.cell(one, first), panel.cell(other, second))


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Each client's test error by what is shared, and the differences that are judged."""
    main, *_ = panels(table)
    return [_clients(main, LEADING), _gains(main)]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """All arms; clients that do not differ; other data."""
    main, *others = panels(table)
    found = [_clients(main, tuple(ARMS)), _clients(main, LEADING, differ=False)]
    for panel in others:
        found += [_clients(panel, LEADING), _gains(panel)]
    return found


def _clients(panel: Panel, names: tuple[str, ...], differ: bool = True) -> figures.Panel:
    """Test error of each client on what it sees, a curve for each arm."""
    curves = []
    for name in names:
        norm, shared, style = ARMS[name]
        rows = select(panel.rows, arm(panel, norm, shared, differ))
        columns = sorted(str(c) for c in rows if str(c).startswith("client_error/"))
        found = {int(c.rpartition("/")[2]): c for c in columns}
        curves.append(across(rows, found, style=style, label=name))
    what, order = "clients differ", ", from low to high contrast"
    if not differ:
        what, order = "clients are alike", ""
    return figures.Panel(
        f"{panel.title}: {what}", curves, f"client{order}", x="linear",
        ceiling=100,
    )  # fmt: skip


def _gains(panel: Panel) -> figures.Panel:
    """What is judged, as dots."""
    named = {
        "all shared minus norms apart": "norms apart",
        "the same, clients alike": "clients alike",
        "the same, own statistics in evaluation": "own statistics",
        "nothing shared minus norms apart": "sharing",
        "group norm, all shared, minus batch norm, norms apart": "group norm",
    }
    values = {claim.name: claim.values for claim in _claims(panel)}
    rows = {label: values[f"{panel.key}: {name}"] for label, name in named.items()}
    return differences(
        "batch norm", rows, [figures.hue(i) for i in range(len(rows))],
        claim=f"{panel.key}: norms apart",
    )  # fmt: skip


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """Norms apart first; then where the difference is, and what else would do."""
    return [claim for panel in panels(table) for claim in _claims(panel)]


def _claims(panel: Panel) -> list[Claim]:
    every, apart, alone = (arm(panel, "batch", what) for what in ("all", "all_but_norms", "none"))
    alike = [arm(panel, "batch", what, differ=False) for what in ("all", "all_but_norms")]
    group, group_apart = (arm(panel, "group", what) for what in ("all", "all_but_norms"))
    ready = panel.ready("batch norm, all shared, clients alike", alike[0])
    claim = panel.claims(source=SOURCE, preconditions=ready, estimand=EMA)
    return [
        claim(
            "norms apart",
            f"with batch norm, sharing all has a test error at least {GAIN:g} pp above sharing all "
            "but the norms, where clients differ",
            more(panel, every, apart), threshold=GAIN, primary=panel.main,
            **PUBLISHED.cite("FedBN is the more accurate one; no number was recovered"),
        ),
        claim(
            "group norm",
            f"group norm, all shared, has a test error at most {SAME:g} pp above that of batch "
            "norm, norms apart",
            more(panel, group, apart), "not_worse", threshold=SAME, estimand=TEST,
        ),
        claim(
            "own statistics",
            f"by each client's own PreciseBN statistics the two are within {SAME:g} pp: what is "
            "lost is in the statistics",
            more(panel, every, apart, ("test_error_precise", "test_error_precise")), "equivalent",
            threshold=SAME, estimand=PRECISE,
        ),
        claim(
            "clients alike",
            f"where clients do not differ, the two are within {SAME:g} pp",
            more(panel, *alike), "equivalent", threshold=SAME,
        ),
        claim(
            "sharing",
            "batch norm with nothing shared has a higher test error than with norms apart",
            more(panel, alone, apart),
        ),
        claim(
            "group norm apart",
            "group norm, too, has a higher test error with all shared than with norms apart",
            more(panel, group, group_apart), estimand=TEST,
        ),
    ]  # fmt: skip
