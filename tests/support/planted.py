"""Training replaced: records appear in the store at once, with planted errors."""

import time
from collections.abc import Callable

from bnstudy.config import RESULTS_VERSION, Config
from bnstudy.store import Store
from bnstudy.sweep.launch import Fate, Outcome
from bnstudy.sweep.protocol import State

Error = Callable[[Config], float]
"""A run -> its test error"""


class Planted:
    """In the place of `launch`: what was launched, and how many stacks it trains before it ends."""

    def __init__(self, error: Error, stacks: int | None = None) -> None:
        self.error, self.left = error, stacks
        self.launched: list[list[str]] = []  # addresses of each stack that was asked for

    def __call__(self, stacks, execution, *_args) -> Outcome:
        store = Store(f"{execution.results_dir}/runs")
        fates = []
        for plan in stacks:
            self.launched.append(plan.addresses)
            done = self.left is None or self.left > 0
            if self.left is not None:
                self.left -= 1
            fates.append(Fate(plan, State.DONE if done else State.STOPPED))
            if done:
                for cell in {c.cell for c in plan.configs}:
                    own = [c for c in plan.configs if c.cell == cell]
                    store.put([record(c, self.error(c)) for c in own], [])
        return Outcome(fates)


def record(config: Config, error: float) -> dict:
    """A record of a run that has learned."""
    return {
        "address": config.address,
        "cell": config.cell,
        "results_version": RESULTS_VERSION,
        "seed": config.seed,
        "config": config.canonical(),
        "summary": {"test_error": error, "train_error": 0.01, "train_loss": 0.1,
                    "num_classes": 10, "steps": 9, "diverged_at": None},
        "layers": [],
        "provenance": {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                       "device": "cpu", "torch": "planted", "wall_seconds": 1.0,
                       "stack_seconds": 1.0, "git_dirty": False},
        "stack": {"seeds": [config.seed], "addresses": [config.address]},
    }  # fmt: skip
