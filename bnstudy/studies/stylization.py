"""Feed-forward stylization by batch and by instance norm (Ulyanov 2016, Johnson 2016).

Primary claim: at a batch of four (Johnson's) the loss of whole test images is higher by batch norm,
evaluated by its exponential average, than by instance norm. What follows asks whether that is
training (Ulyanov's curves) or evaluation, what an image's output owes to the other images of its
batch, and whether it follows the contrast of the input, which Ulyanov gives as the reason. Written
before the first run of the seeds in configs/study/stylization.yaml.
"""

import pandas as pd

from bnstudy import figures
from bnstudy.figures import Curve, Panel
from bnstudy.stats import Claim
from bnstudy.studies import kit
from bnstudy.studies.drawing import across, curve, gaps
from bnstudy.studies.kit import NORM, Published, in_order, panels, select, sequence, trained

B = "train.batch_size"
SIZE = 4  # Johnson et al. 2016 train on batches of 4
PARTS = 20  # of training, of which the table has the mean loss
END = f"loss_course/{PARTS:02d}"
# by exponential average, PreciseBN, the image's statistics
AVERAGE, PRECISE, OWN = "test_loss", "test_loss_precise", "test_loss_image"
COMPANIONS, CONTRAST = "companion_change", "contrast_change"
LEVELS = "grey levels"
ULYANOV = "Ulyanov et al. 2016 (Instance Normalization)"
PUBLISHED = Published(
    "published", ULYANOV,
    "figures of stylized images and a curve of the loss; no table, so no number stands beside ours",
)  # fmt: skip

# thresholds, written before any seed of a claim was trained
MORE = 5.0  # % of instance norm's loss: a difference that one would see in Ulyanov's curves
WITHIN = 5.0  # %: the same as a margin of equality
VISIBLE = 2.0  # grey levels of 255, root mean square: above what JPEG at high quality changes
UNSEEN = 0.1  # grey levels: what an 8-bit image does not show
ROUNDED = 1.0  # grey levels: half of the contrast, by a norm whose eps is not nothing

Arms = kit.Panel


def found_panels(table: pd.DataFrame) -> list[Arms]:
    """The panels of a table, the main one first."""
    return panels(table, model="stylizer")


def at(norm: str, size: int) -> dict[str, object]:
    """The cell of a norm at a batch size."""
    return {NORM: norm, B: size}


def more(own: Arms, size: int, metric: str = AVERAGE, other: str = AVERAGE) -> dict[int, float]:
    """How much higher BN's loss is than instance norm's, in % of the latter, by seed."""
    first = own.cell(metric, at("batch", size), 1)
    second = own.cell(other, at("instance", size), 1)
    return {s: 100 * (first[s] / second[s] - 1) for s in sorted(first.keys() & second.keys())}


def sizes_of(own: Arms) -> list[int]:
    """The batch sizes of a panel."""
    return sorted(int(size) for size in own.rows[B].unique())


# --- figures -------------------------------------------------------------------------------------


def headline(table: pd.DataFrame) -> list[Panel]:
    """Loss over training steps, loss of test images by batch size, and what companions change."""
    own = found_panels(table)[0]
    key = own.key
    return [
        _training(own, SIZE, ("batch", "instance"), f"{key}: training"),
        Panel("whole test images", _losses(own), "batch size", "loss", y="log10", floor=None,
              claim=f"{key}: loss"),
        Panel("other images in the batch", _changes(own, COMPANIONS), "batch size",
              "change (grey levels of 255)", claim=f"{key}: companions"),
    ]  # fmt: skip


def details(table: pd.DataFrame) -> list[Panel]:
    """The difference in loss; contrast; training at each batch size; all norms; style, content."""
    found = []
    for own in found_panels(table):
        norms = in_order(own.rows[NORM])
        found += [
            Panel("BN minus instance norm", _gaps(own), "batch size", "loss, difference (%)",
                  zero=True, floor=None, claim=f"{own.key}: loss"),
            Panel("half the contrast in the input", _changes(own, CONTRAST), "batch size",
                  "change (grey levels of 255)", claim=f"{own.key}: contrast"),
            *(_training(own, size, norms) for size in sizes_of(own)),
            *(Panel(f"all norms: {name}", _changes(own, f"test_{name}"), "batch size", name,
                    y="log10", floor=None) for name in ("loss", "content", "style")),
        ]  # fmt: skip
    return found


def _training(own: Arms, size: int, norms: tuple[str, ...] | list[str], claim: str = "") -> Panel:
    """Training loss over the steps at a batch size."""
    rows = select(own.rows, {B: size})
    steps = rows["steps"].max()
    columns = {steps * part / PARTS: f"loss_course/{part:02d}" for part in range(1, PARTS + 1)}
    curves = [
        across(mine, columns, norm=norm, percent=False, dots=False)
        for norm in norms
        if columns[steps] in rows and len(mine := select(rows, {NORM: norm}))
    ]
    return Panel(f"{own.title}, batch {size}", curves, "step", "training loss", x="linear",
                 y="log10", floor=None, claim=claim)  # fmt: skip


def _below(own: dict[int, float], limit: float) -> dict[int, float]:
    return {seed: limit - value for seed, value in own.items()}


def _losses(own: Arms) -> list[Curve]:
    """BN by its average, PreciseBN and the image's own statistics, and instance norm."""
    batch, instance = (select(own.rows, {NORM: norm}) for norm in ("batch", "instance"))
    return [
        curve(batch, B, AVERAGE, norm="batch", percent=False),
        curve(batch, B, PRECISE, norm="batch", mode="precise", percent=False, dots=False),
        curve(batch, B, OWN, norm="batch", mode="batch", label="batch, statistics of the image",
              percent=False, dots=False),
        curve(instance, B, AVERAGE, norm="instance", percent=False),
    ]  # fmt: skip


def _changes(own: Arms, metric: str) -> list[Curve]:
    """A metric of every norm by batch size."""
    return [
        curve(select(own.rows, {NORM: norm}), B, metric, norm=norm, percent=False)
        for norm in in_order(own.rows[NORM])
    ]


def _gaps(own: Arms) -> list[Curve]:
    """The difference in loss by batch size, of test images and at the end of training."""
    pairs = {
        "exponential average": (AVERAGE, AVERAGE),
        "PreciseBN": (PRECISE, AVERAGE),
        "statistics of the image": (OWN, AVERAGE),
        "end of training": (END, END),
    }
    return [
        gaps(label, {size: more(own, size, *pair) for size in sizes_of(own)},
             style=figures.hue(i), dots=False)
        for i, (label, pair) in enumerate(pairs.items())
    ]  # fmt: skip


# --- claims --------------------------------------------------------------------------------------


def claims(table: pd.DataFrame) -> list[Claim]:
    """The primary claim and its sequence, on the main panel; then companions and contrast."""
    return [claim for own in found_panels(table) for claim in _claims_of(own)]


def _claims_of(own: Arms) -> list[Claim]:
    ready = [
        trained(select(own.rows, at("instance", SIZE)), f"instance norm at batch {SIZE}"),
        kit.comparable(own.rows),
    ]
    claim = own.claims(source=ULYANOV, preconditions=ready)
    found = sequence(
        claim(
            "loss",
            f"at batch {SIZE} BN's loss on whole test images is at least {MORE:g} % above instance "
            "norm's",
            more(own, SIZE), threshold=MORE, unit="%", primary=own.main,
            estimand="test loss, exponential average",
        ),
        claim(
            "training",
            f"at batch {SIZE} BN's training loss is at its end above instance norm's",
            more(own, SIZE, END, END), unit="%", estimand="training loss, last twentieth",
        ),
        claim(
            "statistics of the image",
            f"at batch {SIZE} BN read by each image's own statistics and instance norm differ by "
            f"less than {WITHIN:g} % in test loss",
            more(own, SIZE, OWN), "equivalent", threshold=WITHIN, unit="%",
            estimand="test loss, statistics of the image",
        ),
    )  # fmt: skip
    return [*found, *_alone(own, claim), *_on_outputs(own, claim)]


def _alone(own: Arms, claim) -> list[Claim]:
    """At a batch of one, where BN trains as instance norm does, and is evaluated otherwise.

    That the two agree by the image's own statistics is guaranteed at one rate, and no claim.
    """
    if 1 not in sizes_of(own):
        return []
    return [
        claim(
            "batch of one",
            f"trained on batches of one, BN's loss on whole test images is at least {MORE:g} % "
            "above instance norm's",
            more(own, 1), threshold=MORE, unit="%", estimand="test loss, exponential average",
        ),
    ]  # fmt: skip


def _on_outputs(own: Arms, claim) -> list[Claim]:
    """What outputs owe to the other images of the batch, and to the input's contrast."""
    batch, instance = at("batch", SIZE), at("instance", SIZE)
    return [
        claim(
            "companions",
            f"the other three images of a batch of {SIZE} change BN's output by at least "
            f"{VISIBLE:g} grey levels of 255 (root mean square)",
            own.cell(COMPANIONS, batch, 1), threshold=VISIBLE, unit=LEVELS,
            estimand="change of the output, batch statistics",
        ),
        claim(
            "companions, instance norm",
            f"they change instance norm's output by less than {UNSEEN:g} grey levels",
            _below(own.cell(COMPANIONS, instance, 1), UNSEEN), "demonstration", unit=LEVELS,
            source="instance norm sees one image", estimand=f"{UNSEEN:g} minus the change",
        ),
        claim(
            "contrast",
            "half the contrast in the input changes BN's output by at least "
            f"{VISIBLE:g} grey levels of 255 (root mean square)",
            own.cell(CONTRAST, batch, 1), threshold=VISIBLE, unit=LEVELS,
            estimand="change of the output, exponential average",
        ),
        claim(
            "contrast, instance norm",
            f"it changes instance norm's output by less than {ROUNDED:g} grey level",
            _below(own.cell(CONTRAST, instance, 1), ROUNDED), "demonstration", unit=LEVELS,
            source="behind mirrored borders instance norm takes contrast away, eps aside",
            estimand=f"{ROUNDED:g} minus the change",
        ),
    ]  # fmt: skip
