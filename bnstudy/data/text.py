"""Characters of a text, to be predicted one after the other."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from bnstudy.errors import UserError

if TYPE_CHECKING:
    import torch

    from bnstudy.config import DataConfig
    from bnstudy.data.draws import Pool

DEFAULT = Path(__file__).with_name("shakespeare.txt")  # public domain, see shakespeare.md
TEST = 0.1  # of the text, its end
VALIDATION = 1 / 9  # of the windows before


def read(cfg: "DataConfig") -> str:
    """The text of `data.path`; by default three plays by Shakespeare, 443,000 characters.

    Raises UserError for a file that is absent, empty or not UTF-8.
    """
    path = DEFAULT if cfg.path is None else Path(cfg.path).expanduser()
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"data.path={path} is no regular file: give a UTF-8 text")
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


def load(cfg: "DataConfig", cache_dir: Path | None = None) -> "Pool":
    """Windows of `data.length` characters, one after the other; wanted at each is the next one.

    The last 10 % of the text are the test part. The windows of the first 90 % are the pool; of them
    a ninth, in one piece that begins where the seed says, validates. With `min_length` windows are
    cut where the next begins, at lengths drawn from (split_seed, 'length'). The vocabulary is every
    character that occurs in the text, in the order of Unicode.
    """
    import torch

    from bnstudy.data.draws import Pool
    from bnstudy.data.samplers import generator

    text = read(cfg)
    characters = sorted(set(text))
    number = {c: i for i, c in enumerate(characters)}
    stream = torch.tensor([number[c] for c in text])
    lot = generator(cfg.split_seed, "length")
    first = len(text) - round(TEST * len(text))
    x, y = _windows(cfg, "training", stream[:first], lot)
    test = _windows(cfg, "test", stream[first:], lot)
    if len(y) < 2:
        raise _too_short(cfg, "training", first)
    size = max(round(len(y) * VALIDATION), 1)

    def validation(stream: torch.Generator) -> torch.Tensor:
        begin = int(torch.randint(len(y) - size + 1, (), generator=stream))
        return torch.arange(begin, begin + size)

    return Pool(x, y, *test, len(characters), validation, vocabulary=len(characters))


def _windows(
    cfg: "DataConfig", part: str, own: "torch.Tensor", lot: "torch.Generator"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Consecutive windows (n, 1, T) of a piece of text, and the characters after each, (n, T)."""
    import torch

    from bnstudy.config import IGNORED
    from bnstudy.data.sequences import PAD, lengths_of

    longest = cfg.length
    assert longest is not None  # `resolve` has filled it in
    lengths = lengths_of(cfg, longest, max((len(own) - 1) // longest, 1) * 2, lot)
    ends = lengths.cumsum(0)
    n = int((ends < len(own)).sum())  # a window needs the character after its last
    if cfg.min_length is None:
        n = (len(own) - 1) // longest
    if n < 1:
        raise _too_short(cfg, part, len(own))
    lengths, starts = lengths[:n], (ends - lengths)[:n]
    steps = torch.arange(longest)
    index = (starts[:, None] + steps).clamp(max=len(own) - 2)
    valid = steps < lengths[:, None]
    x = torch.where(valid, own[index], PAD)[:, None]
    return x, torch.where(valid, own[index + 1], IGNORED)


def _too_short(cfg: "DataConfig", part: str, characters: int) -> UserError:
    return UserError(
        f"data.length={cfg.length}: the {part} part of the text has {characters} characters; "
        "give a longer text or shorter sequences"
    )
