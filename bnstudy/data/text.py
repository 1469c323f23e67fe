"""Characters of a text, to be predicted one after the other."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from bnstudy.errors import UserError

if TYPE_CHECKING:
    from bnstudy.config import DataConfig
    from bnstudy.data import Dataset

DEFAULT = Path(__file__).with_name("shakespeare.txt")  # public domain, see shakespeare.md
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}  # of the text, in this order


def read(cfg: "DataConfig") -> str:
    """The text of `data.path`; by default three plays by Shakespeare, 443,000 characters.

    Raises UserError for a file that is absent, empty or not UTF-8.
    """
    path = DEFAULT if cfg.path is None else Path(cfg.path).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise UserError(
            f"data.path={path} is not UTF-8: byte {e.start} is 0x{e.object[e.start]:02x}. Convert "
            f"it, for example with: iconv -f latin1 -t utf-8 {path.name}"
        ) from None
    except OSError as e:
        raise UserError(f"data.path={path} cannot be read: {e.strerror}") from None
    if not text:
        raise UserError(f"data.path={path} is empty: give a text")
    return text


def fingerprint(cfg: "DataConfig") -> str:
    """The name of a text: a hash of its characters."""
    return hashlib.sha256(read(cfg).encode()).hexdigest()[:16]


def load(cfg: "DataConfig", cache_dir: Path | None = None) -> "Dataset":
    """Windows of `data.length` characters, one after the other; wanted at each is the next one.

    The first 80 % of the text are for training, 10 % for validation, the last 10 % the test. With
    `min_length` windows are cut where the next begins, at lengths drawn from (split_seed,
    'length'). The vocabulary is every character that occurs in the text, in the order of Unicode.
    """
    import torch

    from bnstudy.config import IGNORED
    from bnstudy.data import Dataset
    from bnstudy.data.samplers import generator
    from bnstudy.data.sequences import PAD, lengths_of

    text = read(cfg)
    characters = sorted(set(text))
    number = {c: i for i, c in enumerate(characters)}
    stream = torch.tensor([number[c] for c in text])
    sizes = [round(share * len(text)) for share in SHARES.values()]
    cuts = stream.split([*sizes[:-1], len(text) - sum(sizes[:-1])])
    random, longest = generator(cfg.split_seed, "length"), cfg.length
    parts = {}
    for part, own in zip(SHARES, cuts, strict=True):
        lengths = lengths_of(cfg, longest, max((len(own) - 1) // longest, 1) * 2, random)
        ends = lengths.cumsum(0)
        n = int((ends < len(own)).sum())  # a window needs the character after its last
        if cfg.min_length is None:
            n = (len(own) - 1) // longest
        if n < 1:
            raise UserError(
                f"data.length={longest}: the {part} part of the text has {len(own)} characters; "
                "give a longer text or shorter sequences"
            )
        lengths, starts = lengths[:n], (ends - lengths)[:n]
        steps = torch.arange(longest)
        index = (starts[:, None] + steps).clamp(max=len(own) - 2)
        valid = steps < lengths[:, None]
        parts[f"{part}_x"] = torch.where(valid, own[index], PAD)[:, None]
        parts[f"{part}_y"] = torch.where(valid, own[index + 1], IGNORED)
    available = len(parts["train_y"])
    if cfg.train_size is not None:
        if cfg.train_size > available:
            raise UserError(
                f"data.train_size={cfg.train_size} is larger than the training part of data=text, "
                f"which has {available} sequences of up to {longest} characters"
            )
        chosen = torch.linspace(0, available - 1, cfg.train_size).long()  # from all over the text
        for key in ("train_x", "train_y"):
            parts[key] = parts[key][chosen]
    info = {"available": available, "sizes": {p: len(parts[f"{p}_y"]) for p in SHARES}}
    return Dataset(**parts, num_classes=len(characters), info=info, vocabulary=len(characters))
