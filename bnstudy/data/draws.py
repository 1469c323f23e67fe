"""What a study's seeds share, and what each draws for itself.

Fixed for all seeds are a pool of examples and a test part. From the pool each seed draws which
examples validate and which train, and the contrast and pixel noise of its examples, each from a
stream of its own (seed, purpose). So an interval over seeds covers the draw of the training set; it
is conditional on the pool and on the test part. Arms that share a seed share all of its draws.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnstudy.config import IGNORED, DataConfig
from bnstudy.data import Dataset
from bnstudy.data.samplers import generator
from bnstudy.errors import UserError


@dataclass(frozen=True)
class Pool:
    """Examples to draw from and a fixed test part: images or sequences as `Dataset` describes them.

    `validation` draws the indices of the pool's validation part from a stream, equally many each
    time. `exchangeable` says that any other example of the pool would do as well, so that those
    that a seed leaves unused can validate, too. `noise` and `vocabulary` are those of every seed's
    Dataset.
    """

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor
    num_classes: int
    validation: Callable[[torch.Generator], Tensor]
    info: dict[str, Any] = field(default_factory=dict)
    noise: Tensor | None = None
    vocabulary: int | None = None
    exchangeable: bool = False

    def with_x(self, change: Callable[[str, Tensor], Tensor]) -> "Pool":
        """A copy whose examples are `change(part, x)`, part being "pool" or "test"."""
        return replace(self, x=change("pool", self.x), test_x=change("test", self.test_x))


def pool_of(data: Dataset) -> Pool:
    """Data that come with a validation part of their own: every seed has the same one."""
    n = len(data.train_y)
    own = torch.arange(n, n + len(data.val_y))
    x, y = torch.cat([data.train_x, data.val_x]), torch.cat([data.train_y, data.val_y])
    test = data.test_x, data.test_y, data.num_classes
    return Pool(x, y, *test, lambda stream: own, data.info, vocabulary=data.vocabulary)


def dataset(pool: Pool, cfg: DataConfig, seeds: Sequence[int]) -> Dataset:
    """The data of a stack, a seed for each network; all read the pool's tensors.

    With `test_part="validation"` the test part is each network's validation part and, where the
    pool's examples are exchangeable, as many more that it leaves unused as make it the size of the
    test part that it stands for: what pilots say of the spread then holds for it.

    Raises UserError for a `train_size` beyond the training part.
    """
    drawn = {seed: parts(pool, cfg, seed) for seed in dict.fromkeys(seeds)}
    rows = {
        part: torch.stack([drawn[seed][part] for seed in seeds], dim=1) for part in ("train", "val")
    }
    test_x, test_y = pool.test_x, pool.test_y
    if cfg.test_part == "validation":
        unseen = [_unseen(pool, drawn[seed], seed) for seed in seeds]
        test_x, test_y, rows["test"] = pool.x, pool.y, torch.stack(unseen, dim=1)
    sizes = {"test": len(test_y), **{part: len(index) for part, index in rows.items()}}
    info = {**pool.info, "sizes": sizes, "available": len(pool.y) - sizes["val"]}
    return Dataset(
        pool.x, pool.y, pool.x, pool.y, test_x, test_y, pool.num_classes, info,
        noise=pool.noise, rows=rows, vocabulary=pool.vocabulary,
    )  # fmt: skip


def parts(pool: Pool, cfg: DataConfig, seed: int) -> dict[str, Tensor]:
    """Indices into the pool of a seed's training and validation part, ascending.

    Validation is drawn from (seed, "validation"). All the others are the training part; of them
    `train_size` from (seed, "train_size"). A smaller subset is contained in a larger one.
    """
    validation = pool.validation(generator(seed, "validation")).sort().values
    rest = torch.ones(len(pool.y), dtype=torch.bool)
    rest[validation] = False
    train = rest.nonzero().flatten()
    if cfg.train_size is not None:
        if cfg.train_size > len(train):
            raise UserError(
                f"data.train_size={cfg.train_size} is larger than the training part of "
                f"data={cfg.name}, which has {len(train)} examples"
            )
        order = subset_order(pool.y[train], generator(seed, "train_size"))
        train = train[order[: cfg.train_size].sort().values]
    return {"train": train, "val": validation}


def _unseen(pool: Pool, part: dict[str, Tensor], seed: int) -> Tensor:
    """What a seed does not train on: its validation part, and unused examples of every class."""
    free = torch.ones(len(pool.y), dtype=torch.bool)
    free[torch.cat([part["train"], part["val"]])] = False
    unused = free.nonzero().flatten()
    more = min(len(pool.test_y) - len(part["val"]), len(unused))
    if not pool.exchangeable or more <= 0:
        return part["val"]
    chosen = stratified(pool.y[unused], more, generator(seed, "unseen"))
    return torch.cat([part["val"], unused[chosen]])


def subset_order(labels: Tensor, stream: torch.Generator) -> Tensor:
    """An order whose every beginning has as many examples of each class as of the others.

    Classes differ by one example at most while none is used up. Sequences that are asked once count
    as of the class of the answer; those that are asked at several steps come in a random order.
    """
    n = len(labels)
    classes = _answers(labels)
    if classes is None:
        return torch.randperm(n, generator=stream)
    place = place_in_class(classes, stream)
    lot = torch.rand(n, generator=stream, dtype=torch.float64)  # who comes first in each round
    return torch.argsort(place + lot, stable=True)


def _answers(labels: Tensor) -> Tensor | None:
    """The class of each example; None for sequences that are asked at several steps."""
    if labels.ndim == 1:
        return labels
    return labels.amax(1) if ((labels != IGNORED).sum(1) == 1).all() else None


def stratified(labels: Tensor, size: int, stream: torch.Generator) -> Tensor:
    """Indices of `size` examples that hold their share of every class, up to rounding; ascending.

    Examples are shuffled within their class and the classes are interleaved evenly, then cut.
    Sequences that are asked at several steps count as of one class.
    """
    classes = _answers(labels)
    labels = torch.zeros(len(labels), dtype=torch.long) if classes is None else classes
    place = place_in_class(labels, stream)
    counts = torch.bincount(labels)
    offset = torch.rand(len(counts), generator=stream, dtype=torch.float64)
    order = torch.argsort((place + offset[labels]) / counts[labels], stable=True)
    return order[:size].sort().values


def place_in_class(labels: Tensor, stream: torch.Generator) -> Tensor:
    """For each example its place, from 0, in a random order of its own class."""
    shuffled = torch.randperm(len(labels), generator=stream)
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]
    counts = torch.bincount(labels)
    first = counts.cumsum(0) - counts
    place = torch.empty_like(labels)
    place[by_class] = torch.arange(len(labels)) - first[labels[by_class]]
    return place


def prepare(pool: Pool, cfg: DataConfig, seed: int) -> Pool:
    """Raw images of a pool as one seed sees them: distorted, normalized, read as sequences.

    Without contrast and pixel noise this is the same for every seed.
    """
    if pool.x.ndim == 3:  # sequences come as they are
        changed = [k for k in ("contrast", "pixel_noise", "image_size") if getattr(cfg, k)]
        changed += ["sequence"] * (cfg.sequence != "none")
        if changed:
            raise UserError(
                f"data.{changed[0]}={getattr(cfg, changed[0])} changes images, and data={cfg.name} "
                "is sequences: leave it out"
            )
        return pool
    pool = normalize(distort(pool, cfg, seed), cfg.pixel_noise * cfg.noise_every_step)
    if cfg.sequence != "none":
        from bnstudy.data import sequences

        pool = sequences.of_images(pool, cfg)
    return pool


def distort(pool: Pool, cfg: DataConfig, seed: int) -> Pool:
    """Images times exp(contrast * z), then plus noise of s.d. `pixel_noise`; each drawn once.

    z and the noise of the pool are drawn, for all of it, from (seed, "contrast") and (seed,
    "pixel_noise"), so they do not depend on `train_size`; those of the test part from (split_seed,
    "contrast test") and (split_seed, "pixel_noise test"). With `noise_every_step` training images
    are left to the training loop. Both are in units of the grey range and not clipped. The
    log-normal factor makes some images of a batch much louder than others.
    """

    def streams(purpose: str) -> dict[str, torch.Generator]:
        return {
            "pool": generator(seed, purpose),
            "test": generator(cfg.split_seed, f"{purpose} test"),
        }

    if cfg.contrast:
        loud = streams("contrast")
        pool = pool.with_x(
            lambda part, x: (
                x * torch.exp(cfg.contrast * torch.randn(len(x), 1, 1, 1, generator=loud[part]))
            )
        )
    if cfg.pixel_noise:
        drawn = streams("pixel_noise")

        def noisy(part: str, x: Tensor) -> Tensor:
            noise = cfg.pixel_noise * torch.randn(x.shape, generator=drawn[part])
            if part == "pool" and cfg.noise_every_step:
                noise[parts(pool, cfg, seed)["train"]] = 0
            return x + noise

        pool = pool.with_x(noisy)
    return pool


def normalize(pool: Pool, noise: float = 0.0) -> Pool:
    """Each channel minus its mean, over its standard deviation, both of the whole pool.

    Of the pool as it is distorted, so they are the same for every subset and, without distortions,
    for every seed. Standard deviation with divisor n. A channel that is constant over the pool is
    only centred. `noise` is the s.d. of what training adds, in units of the grey range.
    """
    # numpy, not torch: its sums do not depend on the number of threads
    pixels = pool.x.numpy()
    mean = pixels.mean(axis=(0, 2, 3), dtype=np.float64)
    squares = np.zeros_like(mean)
    for start in range(0, len(pixels), 1024):  # in pieces: float64 of all would not fit
        deviation = pixels[start : start + 1024] - mean[:, None, None]
        squares += np.square(deviation).sum(axis=(0, 2, 3))
    std = np.sqrt(squares / (pixels.size / len(mean)))
    # below float32's resolution of the mean the deviation is rounding, not signal
    std[std <= np.finfo(np.float32).eps * np.abs(mean)] = 1.0
    shift, scale = (torch.from_numpy(v.astype(np.float32))[:, None, None] for v in (mean, std))
    pool = pool.with_x(lambda part, x: (x - shift).div_(scale))
    info = {**pool.info, "mean": mean.tolist(), "std": std.tolist()}
    return replace(pool, info=info, noise=noise / scale if noise else None)
