"""White noise with labels at random: nothing to learn, for what networks do at initialization."""

from typing import TYPE_CHECKING

import torch

from bnstudy.data.samplers import generator

if TYPE_CHECKING:
    from bnstudy.config import DataConfig
    from bnstudy.data.draws import Pool

SHAPE = (1, 16, 32)  # 512 values, so that a batch of as many has full rank
CLASSES = 10
SIZES = {"train": 1024, "val": 64, "test": 64}  # few: every evaluation reads them


def load(cfg: "DataConfig", seed: int) -> "Pool":
    """Values from N(0, 1) of shape SHAPE, classes from U{0, ..., 9}.

    Training (`train_size`, 1,024 by default) and validation part from (seed, name of part), test
    part from (split_seed, "gaussian test").
    """
    from bnstudy.data.draws import Pool

    n = cfg.train_size or SIZES["train"]

    def drawn(part: str, n: int, own_seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        stream = generator(own_seed, f"gaussian {part}")
        x = torch.randn(n, *SHAPE, generator=stream)
        return x, torch.randint(CLASSES, (n,), generator=stream)

    own = [drawn("train", n, seed), drawn("val", SIZES["val"], seed)]
    x, y = map(torch.cat, zip(*own, strict=True))
    test = drawn("test", SIZES["test"], cfg.split_seed)
    return Pool(x, y, *test, CLASSES, lambda stream: torch.arange(n, len(y)))
