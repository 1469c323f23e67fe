"""A frozen piece of a configuration, and bounds of its numbers."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from bnstudy.config.address import canonical

# beyond what any data set, network or training here can have: refused, for it would only fill the
# memory or never end
MANY = 10**9  # examples, channels
LONG = 10**15  # steps
BIG = 2**14  # pixels a side
DEEP, WIDE, SEQUENCE = 10_000, 65_536, 10**6  # layers, units of a layer, steps of a sequence
LARGEST = 3.4e38  # what a float32 holds
LAST_SEED = 2**63 - 1  # histories hold seeds as 64-bit integers


class Part(BaseModel):
    """A frozen piece of a configuration; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def canonical(self) -> dict[str, Any]:
        """The plain form that is hashed: everything that can change a result, nothing else."""
        return canonical(self)
