"""Sequences: made ones, images read bit by bit, and what is true of all: masks and labels.

A sequence is (F + 1, T): F channels and the mask, 1 where valid and 0 where padded; padding is at
the end. A task of tokens stores (1, T) whole numbers instead, PAD where padded. There is a label
for every step, IGNORED where nothing is asked: a sequence with one answer has it at its last valid
step.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from bnstudy.config import IGNORED
from bnstudy.config.capabilities import DATA
from bnstudy.data.samplers import generator
from bnstudy.errors import UserError
from bnstudy.machine import memory

if TYPE_CHECKING:
    from bnstudy.config import DataConfig
    from bnstudy.data import Dataset
    from bnstudy.data.draws import Pool

PAD = -1  # the token where a sequence is padded
SIZES = {"train": 5000, "val": 500, "test": 2000}  # of made sequences
BINS = 10  # classes of the adding problem
BYTES = 12  # of a step and a class while sequences are made: an integer one-hot and a float
SYMBOLS, DELAY = 8, 10  # of the copy stream


def adding(cfg: "DataConfig", seed: int) -> "Pool":
    """The adding problem (Hochreiter & Schmidhuber 1997, experiment 4), as classification.

    Two channels: numbers from U(0, 1), and a marker that is 1 at two steps, one in each half of the
    sequence. Asked at the last step: in which tenth of [0, 2] the sum of the two marked ones lies.
    """

    def make(n: int, lengths: torch.Tensor, stream: torch.Generator) -> tuple:
        longest = cfg.length
        value = torch.rand(n, longest, generator=stream)
        half = (lengths // 2).clamp(min=1)
        first = (torch.rand(n, generator=stream) * half).long()
        second = half + (torch.rand(n, generator=stream) * (lengths - half)).long()
        marker = torch.zeros(n, longest)
        rows = torch.arange(n)
        marker[rows, first] = 1
        marker[rows, second] = 1
        total = value[rows, first] + value[rows, second]
        answer = (total * BINS / 2).long().clamp(max=BINS - 1)
        return torch.stack([value, marker], 1), last_step(answer, lengths, longest)

    if (cfg.min_length or cfg.length) < 2:
        raise UserError(
            "data=adding marks two steps: data.length and data.min_length are 2 or more"
        )
    return _made(cfg, seed, make, BINS)


def parity(cfg: "DataConfig", seed: int) -> "Pool":
    """Fair bits, one channel of -1 and 1; asked at every step: is the number of ones so far odd."""

    def make(n: int, lengths: torch.Tensor, stream: torch.Generator) -> tuple:
        bits = torch.randint(0, 2, (n, cfg.length), generator=stream)
        return (2 * bits - 1).float()[:, None], bits.cumsum(1) % 2

    return _made(cfg, seed, make, 2)


def copy(cfg: "DataConfig", seed: int) -> "Pool":
    """A stream of 8 symbols in 8 channels; asked at every step: the symbol 10 steps before."""

    def make(n: int, lengths: torch.Tensor, stream: torch.Generator) -> tuple:
        symbols = torch.randint(0, SYMBOLS, (n, cfg.length), generator=stream)
        x = F.one_hot(symbols, SYMBOLS).float().transpose(1, 2)
        wanted = torch.full_like(symbols, IGNORED)
        wanted[:, DELAY:] = symbols[:, :-DELAY]
        return x, wanted

    if (cfg.min_length or cfg.length) <= DELAY:
        raise UserError(
            f"data=copy asks for the symbol {DELAY} steps before: data.length and data.min_length "
            f"are more than {DELAY}"
        )
    return _made(cfg, seed, make, SYMBOLS)


def of_images(pool: "Pool", cfg: "DataConfig") -> "Pool":
    """Normalized images as sequences of rows or pixels; the class is asked at the last step.

    `image_size` brings images to that many pixels first, by averages where they shrink and
    bilinearly where they grow. "permuted" takes pixels in one order drawn from (split_seed,
    'permutation'). With `min_length` only the first steps are seen, as many as drawn for the image
    from (split_seed, 'length'): an image has one length in every seed's training set.
    """
    if cfg.noise_every_step:
        raise UserError("data.noise_every_step draws noise for images, not for data.sequence")

    def convert(part: str, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if cfg.image_size and not DATA[cfg.name].folder:
            small = cfg.image_size < min(x.shape[2:])
            how = {"mode": "area"} if small else {"mode": "bilinear", "align_corners": False}
            x = F.interpolate(x, (cfg.image_size, cfg.image_size), **how)
        if cfg.sequence == "rows":
            x = x.permute(0, 1, 3, 2).flatten(1, 2)  # (n, C W, H)
        else:
            x = x.flatten(2)
            if cfg.sequence == "permuted":
                order = torch.randperm(
                    x.shape[2], generator=generator(cfg.split_seed, "permutation")
                )
                x = x[:, :, order]
        longest = x.shape[2]
        lengths = lengths_of(cfg, longest, len(x), generator(cfg.split_seed, f"length {part}"))
        return masked(x, lengths), last_step(y, lengths, longest)

    x, y = convert("pool", pool.x, pool.y)
    test_x, test_y = convert("test", pool.test_x, pool.test_y)
    return replace(pool, x=x, y=y, test_x=test_x, test_y=test_y)


def lengths_of(cfg: "DataConfig", longest: int, n: int, stream: torch.Generator) -> torch.Tensor:
    """n lengths, drawn evenly from min_length to the longest; all the longest without it."""
    if cfg.min_length is None:
        return torch.full((n,), longest)
    if cfg.min_length > longest:
        raise UserError(
            f"data.min_length={cfg.min_length} is above the length of the sequences, {longest}"
        )
    return torch.randint(cfg.min_length, longest + 1, (n,), generator=stream)


def masked(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Sequences (n, F, T) cut to their lengths, with the mask as last channel: (n, F + 1, T)."""
    valid = (torch.arange(x.shape[2]) < lengths[:, None]).float()[:, None]
    return torch.cat([x * valid, valid], 1)


def last_step(answer: torch.Tensor, lengths: torch.Tensor, longest: int) -> torch.Tensor:
    """One answer for each sequence, at its last valid step: (n, T)."""
    y = torch.full((len(answer), longest), IGNORED)
    y[torch.arange(len(answer)), lengths - 1] = answer
    return y


def _made(cfg: "DataConfig", seed: int, make, num_classes: int) -> "Pool":
    """Parts of SIZES (train: `train_size`), each from a stream of its own: (seed, name of part).

    The test part is that of `split_seed`.
    """
    from bnstudy.data.draws import Pool

    n = cfg.train_size or SIZES["train"]
    needed = (n + SIZES["val"] + SIZES["test"]) * cfg.length * num_classes * BYTES
    if needed > memory() / 2:
        raise UserError(
            f"data={cfg.name} with data.train_size={n} and data.length={cfg.length} takes "
            f"{needed / 1e9:.0f} GB of memory, and this machine has {memory() / 1e9:.0f}"
        )

    def drawn(part: str, n: int, own_seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        stream = generator(own_seed, f"{cfg.name} {part}")
        lengths = lengths_of(cfg, cfg.length, n, stream)
        x, y = make(n, lengths, stream)
        beyond = torch.arange(cfg.length) >= lengths[:, None]
        return masked(x, lengths), y.masked_fill(beyond, IGNORED)

    own = [drawn("train", n, seed), drawn("val", SIZES["val"], seed)]
    x, y = map(torch.cat, zip(*own, strict=True))
    test = drawn("test", SIZES["test"], cfg.split_seed)
    return Pool(x, y, *test, num_classes, lambda stream: torch.arange(n, len(y)))


def recut(data: "Dataset", length: int) -> "Dataset":
    """A text whose test part is read anew in windows of another length."""
    if "test" in data.rows:  # networks that are tested on parts of their own
        from bnstudy.data import join

        networks = range(data.rows["test"].shape[1])
        return join([recut(data.of(i), length) for i in networks], list(networks))
    x, y = (
        t.reshape(-1)[: t.numel() // length * length].view(-1, *shape, length)
        for t, shape in ((data.test_x, (1,)), (data.test_y, ()))
    )
    return replace(data, test_x=x, test_y=y)
