"""What normalization costs in training memory, by network and backend (Lim et al. 2017, EDSR).

Not verdicts but identities: what autograd keeps is a function of the graph, the same for every
seed, so there is nothing for a test to decide. They can be false all the same: by the fused kernel
each batch norm keeps one map more, its input, and by the plain formula three. EDSR's saving of 40 %
stands beside the measured ones, which depend on what else a network keeps.

On the CPU the number is the bytes that autograd saves, each storage once, that one more example
adds; on a GPU the peak of allocated memory is drawn beside it. Written before the first run.
"""

import pandas as pd

from bnstudy import figures
from bnstudy.figures import Curve, Panel
from bnstudy.stats import Claim
from bnstudy.studies import kit
from bnstudy.studies.drawing import curve, reported
from bnstudy.studies.kit import MODEL, NORM, Published, extended, filled, in_order, panels, select
from bnstudy.studies.words import TITLES

BACKEND = "norm.backend"
SAVED, NORMALIZED, PEAK = "activation_bytes", "normalized_bytes", "peak_bytes"
MAPS = {"fused": 1, "reference": 3}  # that batch norm keeps for each of its inputs
PUBLISHED = Published(
    "unconfirmed", "Lim et al. 2017 (EDSR), section 3.1",
    "training memory that SRResNet saves without batch norm, in %; second hand",
    {"SRResNet": 40.0},
)  # fmt: skip


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the network's name, and memory in units of the same network's without norm."""
    table = filled(table, {BACKEND: "fused"})
    plain = select(table, {NORM: "none"})
    columns = {"network": table[MODEL].map(lambda name: TITLES.get(name, name))}
    for metric in (SAVED, PEAK):
        if metric in table:
            without = table[MODEL].map(plain.groupby(MODEL)[metric].mean())
            columns[f"relative_{metric}"] = table[metric] / without
    # names come in one order, whatever that of the rows
    return extended(table, columns).sort_values("network", kind="stable")


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[Panel]:
    """What networks save without BN, beside EDSR's number; memory of each norm."""
    table = prepared(table)
    return [_without(table), _relative(table, SAVED, "kept by autograd for the backward pass")]


def details(table: pd.DataFrame) -> list[Panel]:
    """Bytes by network and norm; the peak on a GPU, where there was one."""
    table = prepared(table)
    megabytes = extended(table, {"megabytes": table[SAVED] / 1e6})
    found = [
        Panel("one more example", _by_norm(megabytes, "megabytes"), "network", "memory (MB)",
              x="names", y="log10", floor=None)
    ]  # fmt: skip
    if PEAK in table:
        found.append(_relative(table, PEAK, "peak of allocated memory, GPU"))
    return found


def _without(table: pd.DataFrame) -> Panel:
    """Memory saved without BN, in %, a dot for each network and backend."""
    column = f"relative_{SAVED}"
    dots = []
    for i, backend in enumerate(MAPS):
        own = select(table, {NORM: "batch", BACKEND: backend})
        own = extended(own, {"saved": 100 * (1 - 1 / own[column])})
        for name in dict.fromkeys(own["network"]):
            rows = extended(select(own, {"network": name}), {"place": 0})
            dots.append(curve(rows, "place", "saved", style=figures.hue(i), percent=False,
                              label=f"{name}, {backend}", dots=False))  # fmt: skip
    beside = [
        reported(PUBLISHED, name, value, style=figures.hue(0))
        for name, value in PUBLISHED.values.items()
    ]
    return Panel("saved without batch norm", [*dots, *beside], kind="dots",
                 ylabel="bytes that autograd keeps (%)", floor=None, ceiling=100)  # fmt: skip


def _relative(table: pd.DataFrame, metric: str, title: str) -> Panel:
    """Memory of each norm in units of the network's without norm."""
    return Panel(title, _by_norm(table, f"relative_{metric}"), "network",
                 "memory in units of no norm's", x="names")  # fmt: skip


def _by_norm(table: pd.DataFrame, metric: str) -> list[Curve]:
    """A metric by network, for each norm and backend."""
    found = []
    for norm in in_order(table[NORM]):
        for backend in MAPS:
            rows = select(table, {NORM: norm, BACKEND: backend})
            label = "" if backend == "fused" else f"{norm}, plain formula"
            mode = "population" if backend == "fused" else "batch"
            if len(rows):
                found.append(curve(rows, "network", metric, norm=norm, mode=mode, label=label,
                                   percent=False, dots=False))  # fmt: skip
    return found


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """For each network and backend: batch norm keeps so many maps for each of its inputs."""
    found = []
    for own in panels(filled(table, {BACKEND: "fused"})):
        claim = own.claims(
            preconditions=[kit.comparable(own.rows)], unit="bytes",
            source="what autograd saves, counted", estimand="bytes that one more example adds",
        )  # fmt: skip
        for backend, maps in MAPS.items():
            counted = "one map" if maps == 1 else f"{maps} maps"
            how = "the fused kernel" if backend == "fused" else "the plain formula"
            found.append(claim(
                f"{counted}, {backend}",
                f"by {how} each batch norm keeps {counted} of the size of its input, to the byte",
                _left(own, backend, maps), "identical",
            ))  # fmt: skip
    return found


def _left(own: kit.Panel, backend: str, maps: int) -> dict[int, float]:
    """Bytes with batch norm minus those without, minus so many maps for each norm, by seed."""
    batch = {NORM: "batch", BACKEND: backend}
    more = kit.paired_differences(own.cell(SAVED, batch, 1), own.cell(SAVED, {NORM: "none"}, 1))
    return kit.paired_differences(more, own.cell(NORMALIZED, batch, maps))
