"""Whether a study can judge a grid, and what it will ask, before anything is trained.

A *stand-in* has a row for every planned run, with the columns that the table will have and
plausible numbers in them; the study's own `headline`, `details` and `claims` are called on it. What
they lack there they would lack after hours of training. And what the claims compute there says what
they are, however they are written: two texts of `claims` that give the same values of the same
stand-ins ask the same of the runs.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bnstudy.config import Config, StudyConfig, digest, flatten
from bnstudy.errors import UserError, did_you_mean
from bnstudy.figures import Panel
from bnstudy.stats import UNCOUNTED, Claim, families
from bnstudy.studies.kit import FAILURES, arms
from bnstudy.studies.learning_rate import LARGEST
from bnstudy.studies.probed import FACTORS, PROBED
from bnstudy.studies.results import module
from bnstudy.studies.sheets import panels_of

CLASSES = 10  # of a stand-in
OF_FAILURES = (FAILURES, LARGEST)  # estimands that are equal where no run failed, as here
TENTH = 1677722 / 2**24  # 0.1
# a custom norm may have them
WITH_STATISTICS = ("batch", "ghost", "noisy", "continual", "torch_batch", "custom")
SCORES = ("test_loss", "test_error")
# what a task measures beside its error
MEASURES = {"restoration": ("psnr", "ssim"), "stylization": ("content", "style")}
DECIBELS = {"nlm_psnr": 20.0, "input_psnr": 20.0}  # PSNR in dB; of networks 30, 10 if they failed
ALWAYS = (*SCORES, "val_error", "train_loss", "train_error", "parameters", "train_size",
          "dropped_per_epoch", "smallest_m", "lr", "lr_initial", "steps", "epoch",
          "examples")  # fmt: skip

Form = dict[str, list[Any]]
"""What the claims of a study are; see `canonical`."""


def check(study: StudyConfig, cells: Sequence[Config], seeds: Sequence[int]) -> Form:
    """The canonical form of a study's claims about a grid that it can judge.

    Raises UserError when it cannot. The message says what the study stumbles over (a claim without
    runs, a missing column, several runs of one seed), which axes of the grid the study does not
    have, and which of its own differ.
    Also raised when the study's module does not import or lacks a function.
    """
    found, form = module(study), Form()
    table = stand_in(cells, seeds)
    try:
        claims = found.claims(table)
        _one_error_rate(claims)
        problems = [*_gaps(claims, seeds), *_strays(panels_of(found, table), claims)]
        form = canonical(claims, [found.claims(t) for t in _where_runs_fail(cells, seeds)])
    except Exception as error:  # whatever it is, it would end the study after its training
        problems = [_told(error)]
    if problems:
        more = [f"and {len(problems) - 2} more"] if len(problems) > 2 else []
        shown = "; ".join([*problems[:2], *more])
        sentences = [shown, *_extra(study, cells), *_changed(study, cells)]
        text = " ".join(s if s.endswith("?") else f"{s}." for s in sentences)
        raise UserError(f"study {study.name} cannot judge this grid: {text}")
    return form


def canonical(trained: Sequence[Claim], failing: Sequence[Sequence[Claim]]) -> Form:
    """What claims are, by what they compute: of a stand-in where all runs trained, and of others.

    claims: each in its order with kind, threshold, unit, estimand, primary, the place of the claim
    `after` which it is judged, and a hash of what it computes; its name and text for readers.
    where_runs_fail: a hash of what they compute of each other stand-in.
    """
    places = {claim.name: place for place, claim in enumerate(trained)}
    claims = [
        {
            "name": claim.name,
            "text": claim.text,
            "kind": claim.kind,
            "threshold": claim.threshold,
            "unit": claim.unit,
            "estimand": claim.estimand,
            "primary": claim.primary,
            "after": places.get(claim.after),
            "computes": _computed(claim),
        }
        for claim in trained
    ]
    others = [digest([_computed(claim) for claim in found]) for found in failing]
    return {"claims": claims, "where_runs_fail": others}


def _computed(claim: Claim) -> str:
    """Hash of a claim's values by seed, to 9 digits, and of which of its preconditions hold."""
    values = [[seed, f"{claim.values[seed]:.9g}"] for seed in sorted(claim.values)]
    return digest([values, [bool(holds) for _, holds, _ in claim.preconditions]])


def _where_runs_fail(cells: Sequence[Config], seeds: Sequence[int]) -> Iterator[pd.DataFrame]:
    """Stand-ins that tell rules of failure apart.

    In the first a quarter of the runs failed. In the others, of two seeds, half of the cells did:
    those whose number has a one, or a zero, at one binary digit. Any two cells are on different
    sides in one of them, so a precondition on another cell, or on one more, holds elsewhere.
    """
    yield stand_in(
        cells, seeds, _mixed(_runs(cells, seeds) ^ _words(["failing"])) >> np.uint64(62) == 0
    )
    two = sorted(seeds)[:2]
    place = {name: i for i, name in enumerate(sorted(cell.cell for cell in cells))}
    places = np.array([[place[cell.cell]] for cell in cells])
    for digit in range((len(cells) - 1).bit_length()):
        for side in (0, 1):
            own = np.repeat(places >> digit & 1 == side, len(two), axis=1)
            yield stand_in(cells, two, own)


def stand_in(
    cells: Sequence[Config], seeds: Sequence[int], failing: np.ndarray | None = None
) -> pd.DataFrame:
    """The table that a grid would give, with plausible numbers for what training would measure.

    One row per run: cell, seed, the configuration as dotted names, metrics, device and torch. The
    numbers are functions of cell, seed and column alone: 0.1 to 0.11, the errors of trained
    networks, and no two runs alike. Runs that are `failing` (cells x seeds) have training error and
    loss at chance.
    """
    settings, metrics = [], []
    for cell in cells:
        plain = {
            name: json.dumps(value) if isinstance(value, list | tuple) else value
            for name, value in cell.flat().items()
        }
        for seed in seeds:
            settings.append({**plain, "cell": cell.cell, "seed": seed})
            metrics.append({name: _plausible(name) for name in measured(cell)})
    measures = pd.DataFrame(metrics)
    mixed = _mixed(_runs(cells, seeds).reshape(-1, 1) ^ _words(map(str, measures)))
    # parts of 2**24: differences of such numbers are exact, in whatever order they are taken
    numbers = measures + (mixed % np.uint64(2**24 // 100)).astype(float) / 2**24
    if failing is not None:
        chance = 1 - 1 / CLASSES, math.log(CLASSES)
        numbers.loc[failing.ravel(), ["train_error", "train_loss"]] = chance
        decibels = [name for name in measures if _plausible(name) == _plausible("psnr")]
        numbers.loc[failing.ravel(), decibels] -= 20
    told = {"num_classes": CLASSES, "diverged_at": math.nan, "device": "cpu", "torch": "planned"}
    return pd.concat([pd.DataFrame(settings), numbers.assign(**told)], axis=1)


def _plausible(name: str) -> float:
    """What a trained network has of a metric: a tenth, or decibels."""
    return DECIBELS.get(name, 30.0) if "psnr" in name else TENTH


def _runs(cells: Sequence[Config], seeds: Sequence[int]) -> np.ndarray:
    """64 bits for each run, cells x seeds."""
    return _mixed(_words([cell.cell for cell in cells])[:, None] ^ _words(map(str, seeds)))


def _words(texts: Iterable[str]) -> np.ndarray:
    """64 bits for each text."""
    found = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") for text in texts]
    return np.array(found, dtype=np.uint64)


def _mixed(words: np.ndarray) -> np.ndarray:
    """Pseudo-random 64-bit words: the finalizer of splitmix64 (Steele, Lea and Flood 2014).

    Written out here, since a library's generator may change with its version.
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
    return words ^ (words >> np.uint64(31))


def measured(config: Config) -> list[str]:
    """The metrics of a run of this config."""
    batch = config.norm.name in WITH_STATISTICS
    more = MEASURES.get(config.task.name, ())
    own = ["_image"] if config.data.name == "photos" else ["_batch", "_large_batch"]
    suffixes = ["", *own, "_precise"] if batch else [""]
    if config.optimizer.weight_average:
        suffixes += ["_averaged", "_averaged_precise"] if batch else ["_averaged"]
    scores = [*SCORES, *(f"test_{name}" for name in more)]
    found = [*ALWAYS, *(score + suffix for suffix in suffixes for score in scores)]
    found += [f"{part}_{name}" for part in ("val", "train") for name in more if name != "ssim"]
    found += ["val_ssim"] * ("ssim" in more)
    if config.train.steps == 0:  # nothing is trained
        found = [name for name in found if not name.startswith("train_")]
    if config.evaluate.online:
        found.append("online_error")
    if (clients := config.federation.clients) > 1:
        found += [f"client_error/{k:02d}" for k in range(1, clients + 1)]
    for probe in config.evaluate.probes:
        every, own = PROBED.get(probe, ([], []))
        names = [*every, *own] if batch else every
        if probe == "affine" and config.norm.name == "none":
            names = []  # there is no gamma
        if probe == "lengths":
            length = config.data.length  # of images as sequences the data say it, and no probe's
            steps = [max(round(factor * length), 1) for factor in FACTORS] if length else []
            names = [f"{name}/{n:04d}" for name in names for n in steps]
        if probe != "forgetting" or config.train.classes_per_task:
            found += names
    return list(dict.fromkeys(found))


def _gaps(claims: Sequence[Claim], seeds: Sequence[int]) -> list[str]:
    """What is missing behind the claims, the primary one first."""
    judged = [claim for claim in claims if claim.kind not in UNCOUNTED]
    if not claims or sum(claim.primary for claim in claims) != bool(judged):
        return ["there are no runs for its primary claim"]
    found = []
    for claim in sorted(claims, key=lambda c: not c.primary):
        values = [claim.values.get(seed, math.nan) for seed in seeds]
        failing = [text for text, holds, _ in claim.preconditions if not holds]
        if not all(map(math.isfinite, values)):
            found.append(f"claim '{claim.name}' lacks an arm")
        elif failing:
            found.append(f"claim '{claim.name}' lacks its reference, {failing[0]}")
        elif not any(values) and claim.estimand not in OF_FAILURES:
            found.append(f"claim '{claim.name}' compares an arm with itself")
    return found


def _one_error_rate(claims: Sequence[Claim]) -> None:
    """Raises ValueError where `judge` would: it names the claim that an axis too many doubles."""
    names = [claim.name for claim in claims]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise ValueError(f"claim '{doubled}' is made {names.count(doubled)} times")
    families.check(claims)


def _strays(sheets: Mapping[str, Sequence[Panel]], claims: Sequence[Claim]) -> list[str]:
    """Panels that show a claim which the study does not make."""
    names = {claim.name for claim in claims}
    strays = [
        panel
        for panels in sheets.values()
        for panel in panels
        if panel.claim and panel.claim not in names
    ]
    return [
        f"panel '{panel.title}' shows '{panel.claim}', which is no claim of the study"
        + (f".{hint}" if (hint := did_you_mean(panel.claim, names)) else "")
        for panel in strays
    ]


def _told(error: Exception) -> str:
    """What a study's own code stumbled over, as a part of a sentence."""
    if isinstance(error, KeyError):
        return f"there is no column {error.args[0]}"
    text = str(error).rstrip(".")
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _settings(cells: Sequence[Config]) -> list[dict[str, str]]:
    """All settings of every cell as texts, defaults among them."""
    plain = (flatten(cell.model_dump(mode="json")) for cell in cells)
    return [{key: _text(value) for key, value in own.items()} for own in plain]


def _extra(study: StudyConfig, cells: Sequence[Config]) -> list[str]:
    """Axes of the grid that the study does not have: what varies within a point of its own axes."""
    axes = {axis for grid in study.scales.values() for axis in grid.axes}
    points: dict[tuple[str, ...], dict[str, dict[str, None]]] = {}
    for settings in _settings(cells):
        own = {k for k in settings if any(f"{k}.".startswith(f"{axis}.") for axis in axes)}
        point = points.setdefault(tuple(settings[k] for k in sorted(own)), {})
        for key in settings.keys() - own:
            point.setdefault(key, {})[settings[key]] = None
    several = {k: v for point in points.values() for k, v in sorted(point.items()) if len(v) > 1}
    return [
        f"{key} is not an axis of the study: give one value instead of {', '.join(values)}"
        for key, values in several.items()
    ]


def _changed(study: StudyConfig, cells: Sequence[Config]) -> list[str]:
    """The study's own axes and fixed names that the grid has otherwise."""
    own: dict[str, list[list[str]]] = {}
    for grid in study.scales.values():
        fixed = {**study.fixed, **grid.fixed}
        names = {k: [v] for k, v in fixed.items() if isinstance(v, str | list)}
        for key, values in {**names, **grid.axes}.items():
            own.setdefault(key, []).append([_text(value) for value in values])
    every, found = _settings(cells), []
    for key, choices in own.items():
        here = {settings.get(key) or settings[f"{key}.name"] for settings in every}
        known = here
        if key == "norm":  # some choices are another norm with settings of its own
            known = here | {f"recurrent_{name}" for name in here} | set(arms(stand_in(cells, [0])))
        if not any(known >= set(choice) for choice in choices):
            allowed = dict.fromkeys(value for choice in choices for value in choice)
            given = ", ".join(sorted(here))
            found.append(f"{key} is {given} here; the study has {', '.join(allowed)}")
    return found


def _text(value: object) -> str:
    """A setting as it is written on the command line."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)
