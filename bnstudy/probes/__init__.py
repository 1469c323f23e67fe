"""Further measurements of a stack, asked for by name: `evaluate.probes=[corruptions,lag]`.

A probe is a function `view -> {name: (S,) tensor}`: from a stack in whatever mode it needs, one
number per network for each name; it leaves the stack as it was. `view` is the engine's view of
networks, data and config (`engine.evaluate.View`): `view.score(part)`, `view.logits(part)`,
`view.batch_statistics(size)`, `view.precise_statistics(...)`; what the evaluation found so far is
`view.measured`, what a probe must remember goes to `view.memory`. Names become columns of the
table; those of errors contain "error": a diverged run counts as chance there.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bnstudy.entry import locate
from bnstudy.errors import unknown


@dataclass(frozen=True)
class Probe:
    """A measurement: after every evaluation (`always`), or only when training is over.

    `passes` says about how many forwards over the test part it makes: for estimates of time.
    """

    entry: str
    passes: float
    always: bool = False
    of: tuple[str, ...] = ("images",)  # what the data may be

    @property
    def measure(self) -> Callable[[Any], dict[str, Any]]:
        """The function behind the entry."""
        return locate(self.entry, "evaluate.probes")


PROBES: dict[str, Probe] = {
    "adaptation": Probe("bnstudy.probes.adaptation:adaptation", 400),
    "copies": Probe("bnstudy.probes.copies:copies", 3),
    "corruptions": Probe("bnstudy.probes.shift:corruptions", 60),
    "averaged_weights": Probe("bnstudy.probes.statistics:averaged_weights", 4),
    "evaluation_batch": Probe("bnstudy.probes.shift:evaluation_batch", 23),
    "checkpoints": Probe("bnstudy.probes.statistics:checkpoints", 4, always=True),
    "precise_samples": Probe("bnstudy.probes.statistics:precise_samples", 9),
    "affine": Probe("bnstudy.probes.statistics:affine", 0),
    "effective_m": Probe("bnstudy.probes.statistics:effective_m", 1),
    "statistics_gap": Probe(
        "bnstudy.probes.statistics:statistics_gap", 1, True, ("images", "sequences")
    ),
    "renorm": Probe("bnstudy.probes.statistics:renorm", 3, always=True),
    "landscape": Probe("bnstudy.probes.landscape:landscape", 10, always=True),
    "covariate_shift": Probe("bnstudy.probes.landscape:covariate_shift", 5, always=True),
    "logits": Probe("bnstudy.probes.logits:logits", 0.2, always=True),
    "composition": Probe("bnstudy.probes.streams:composition", 1),
    "forgetting": Probe("bnstudy.probes.streams:forgetting", 1, always=True),
    "photographs": Probe("bnstudy.probes.photographs:photographs", 1, True, ("photographs",)),
    "baselines": Probe("bnstudy.probes.photographs:baselines", 1, of=("photographs",)),
    "whole_statistics": Probe(
        "bnstudy.probes.photographs:whole_statistics", 2, of=("photographs",)
    ),
    "blotches": Probe("bnstudy.probes.photographs:blotches", 3, of=("photographs",)),
    "intensity": Probe("bnstudy.probes.photographs:intensity", 7, of=("photographs",)),
    "activation_memory": Probe(
        "bnstudy.probes.memory:activation_memory", 1, of=("images", "photographs")
    ),
    "layer_gradients": Probe("bnstudy.probes.depth:layer_gradients", 2),
    "activation_moments": Probe("bnstudy.probes.depth:activation_moments", 1),
    "branch_variance": Probe("bnstudy.probes.depth:branch_variance", 1),
    "loss_course": Probe("bnstudy.probes.style:loss_course", 0, of=("images", "photographs")),
    "companions": Probe("bnstudy.probes.style:companions", 4, of=("photographs",)),
    "steps_to_loss": Probe(
        "bnstudy.probes.learning:steps_to_loss", 0, of=("images", "photographs")
    ),
    "fit": Probe("bnstudy.probes.learning:fit", 3),
    "step_time": Probe("bnstudy.probes.cost:step_time", 2),
    "lengths": Probe("bnstudy.probes.recurrent:lengths", 24, of=("sequences",)),
    "shared_statistics": Probe("bnstudy.probes.recurrent:shared_statistics", 1, of=("sequences",)),
    "step_statistics": Probe("bnstudy.probes.recurrent:step_statistics", 0.1, of=("sequences",)),
    "gradient_norm": Probe("bnstudy.probes.recurrent:gradient_norm", 1, of=("sequences",)),
}


def course(view: Any, name: str, value: Any) -> dict[str, Any]:
    """A value of this evaluation, remembered; after the last, all as `name/01`, `name/02`, ..."""
    values = view.memory.setdefault(name, [])
    values.append(value)
    if not view.last:
        return {}
    return {f"{name}/{i:02d}": v for i, v in enumerate(values, start=1)}


def find(names: Iterable[str]) -> list[Probe]:
    """The probes of these names. Raises UserError for one that does not exist."""
    for name in names:
        if name not in PROBES:
            raise unknown("probe", name, PROBES)
    return [PROBES[name] for name in names]
