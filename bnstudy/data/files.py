"""Data on disk: which files there are, and the hash that names them. No torch here."""

import contextlib
import hashlib
import importlib.util
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bnstudy.atomic import replacing
from bnstudy.errors import UserError

if TYPE_CHECKING:
    from bnstudy.config import DataConfig

T = TypeVar("T")
ROOT_VARIABLE = "BNSTUDY_DATA"
ROOT_EXAMPLE = "data"
# what torchvision.datasets.ImageFolder reads
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
MANY = 5_000  # files: below, a progress bar would only flicker


@dataclass(frozen=True)
class Packed:
    """A data set that torchvision reads from a few files: its class, their folder, their names."""

    title: str
    folder: str
    names: tuple[str, ...]


_MNIST = tuple(
    f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
)
PACKED = {
    "mnist": Packed("MNIST", "MNIST/raw", _MNIST),
    "fashion_mnist": Packed("FashionMNIST", "FashionMNIST/raw", _MNIST),
    "cifar10": Packed(
        "CIFAR10",
        "cifar-10-batches-py",
        (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
    ),
}


def root_of(cfg: "DataConfig") -> Path:
    """The folder of the data: `data.root`, or else the variable BNSTUDY_DATA.

    It need not exist when the data are to be downloaded into it. Raises UserError when it is not
    set, absent, not a folder or unreadable.
    """
    given = cfg.root or os.environ.get(ROOT_VARIABLE)
    downloadable = cfg.name in PACKED
    if not given:
        or_download = (
            f", or allow the download into a folder with data.root={ROOT_EXAMPLE} "
            "data.download=true"
            if downloadable
            else ""
        )
        raise UserError(
            f"data={cfg.name} is read from a folder, and none is given: say where it lies with "
            f"data.root=FOLDER or the variable {ROOT_VARIABLE}{or_download}."
        )
    root = Path(given).expanduser()
    if root.is_dir():
        if not os.access(root, os.R_OK | os.X_OK):
            raise UserError(f"data.root={root} cannot be read: its permissions forbid it")
    elif root.exists():
        raise UserError(f"data.root={root} is a file; it must be a folder")
    elif not (downloadable and cfg.download):
        raise UserError(
            f"data.root={root} does not exist. Say where the data lie with data.root=FOLDER"
            + (", or allow the download with data.download=true." if downloadable else ".")
        )
    return root


def find_packed(cfg: "DataConfig") -> tuple[Path, list[str]]:
    """(folder, file names) of a torchvision data set, downloaded when absent and allowed."""
    packed, root = PACKED[cfg.name], root_of(cfg)
    folder = root / packed.folder
    missing = [name for name in packed.names if not (folder / name).is_file()]
    if missing and not cfg.download:
        raise UserError(
            f"{packed.title} is not under data.root={root} ({folder / missing[0]} does not "
            f"exist). Say where it lies with data.root=FOLDER (or the variable {ROOT_VARIABLE}), "
            "or allow the download with data.download=true."
        )
    if missing:
        open_packed(cfg, train=True, download=True)  # this fetches the test part as well
    return folder, list(packed.names)


def open_packed(cfg: "DataConfig", train: bool, download: bool = False) -> Any:
    """The data set object of torchvision; whatever goes wrong in it becomes a UserError."""
    import torchvision

    packed, root = PACKED[cfg.name], root_of(cfg)
    try:
        return getattr(torchvision.datasets, packed.title)(root, train=train, download=download)
    except Exception as e:  # torchvision raises whatever a damaged file leads to
        doing = "downloading" if download else "reading"
        raise UserError(
            f"{doing} {packed.title} under data.root={root} failed "
            f"({type(e).__name__}: {str(e).splitlines()[0] if str(e) else 'no message'}). Its "
            f"files belong into {root / packed.folder}: put them there, or remove what is damaged "
            "and allow the download with data.download=true."
        ) from e


@dataclass(frozen=True)
class Listing:
    """The images of a folder of class folders: per part, (name relative to the root, class)."""

    classes: tuple[str, ...]
    parts: dict[str, list[tuple[str, int]]]

    def names(self) -> list[str]:
        """All files that are read."""
        return [name for part in self.parts.values() for name, _ in part]


def list_images(root: Path) -> Listing:
    """What is in ROOT/train/<class>/* and ROOT/test/<class>/*, or else in ROOT/<class>/*.

    Classes are numbered in the order of their names, images at any depth below a class folder
    count: as torchvision's ImageFolder does it. Parts: `train` and `test`, or `all`. Raises
    UserError when only one of train and test is there, when a class has no images, or when the
    classes of the two differ.
    """
    split = {p: _subfolders(root / p) for p in ("train", "test") if (root / p).is_dir()}
    split = {part: classes for part, classes in split.items() if classes}
    if len(split) == 1:
        (there,) = split
        absent = "test" if there == "train" else "train"
        raise UserError(
            f"data.root={root} has {there}/ with class folders but no {absent}/ with class "
            f"folders. Add it, or point data.root at {root / there} to have it split."
        )
    if split and split["train"] != split["test"]:
        differing = sorted(set(split["train"]) ^ set(split["test"]))
        raise UserError(
            f"train/ and test/ under data.root={root} have different classes: "
            f"{', '.join(differing[:5])} only in one of them"
        )
    folders = {"train": root / "train", "test": root / "test"} if split else {"all": root}
    classes = split.get("train") or _subfolders(root)
    if len(classes) < 2:
        raise UserError(
            f"data.root={root} needs at least two class folders, FOLDER/<class>/<image> or "
            f"FOLDER/train/<class>/<image> and FOLDER/test/<class>/<image>: found "
            f"{', '.join(classes) or 'none'}"
        )
    return Listing(
        tuple(classes),
        {
            part: [
                (name, label)
                for label, name_of_class in enumerate(classes)
                for name in _images_below(root, folder / name_of_class)
            ]
            for part, folder in folders.items()
        },
    )


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def _images_below(root: Path, folder: Path) -> list[str]:
    """Images below a class folder, relative to the root, in ImageFolder's order."""
    found = [
        f"{base}/{name}"
        for where, _, names in sorted(os.walk(folder, followlinks=True))
        for base in [Path(where).relative_to(root).as_posix()]
        for name in sorted(names)
        if name.lower().endswith(EXTENSIONS)
    ]
    if not found:
        raise UserError(
            f"the class folder {folder} has no images. Read are: {', '.join(EXTENSIONS)}."
        )
    return found


def fingerprint(folder: Path, names: list[str], cache_dir: Path | None = None) -> str:
    """Hash over sorted names and bytes of files: the same wherever the folder lies.

    Remembered in `cache_dir` under a hash over name, size and time of modification of each file.
    """
    names = sorted(names)
    stats = [os.stat(os.path.join(folder, name)) for name in names]
    for name, found in zip(names, stats, strict=True):
        if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for ever
            raise UserError(f"the data at {folder / name} cannot be read: it is no regular file")
    seen = [
        str(folder.resolve()),
        [[n, s.st_size, s.st_mtime_ns] for n, s in zip(names, stats, strict=True)],
    ]
    memory = cache_dir and cache_dir / f"fingerprint-{_hash(json.dumps(seen))}.txt"
    if memory and memory.is_file():
        value = memory.read_text(errors="replace").partition(" ")[0]
        if memory.read_text(errors="replace") == _noted(value):  # else damaged: hashed again
            return value
    total = hashlib.sha256()
    for name in track(names, "hashing the data"):
        with open(folder / name, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{name}\0{content}\n".encode())
    value = total.hexdigest()[:16]
    if memory:
        write_aside(memory, lambda path: path.write_text(_noted(value)))
    return value


def _noted(value: str) -> str:
    """A fingerprint as it is remembered, with its own hash: a flipped bit must not be data."""
    return f"{value} {_hash(value)}"


def packaged(names: Mapping[str, tuple[str, str]], data: str) -> dict[str, Path]:
    """Files that come with other packages: name -> (package, file) to name -> path.

    Found without importing the packages, which takes longer than to train a small network.

    Args:
        data: the data set, for the message.

    Raises:
        UserError: one is absent.
    """
    found = {}
    for name, (package, file) in names.items():
        spec = importlib.util.find_spec(package)
        path = None if spec is None or spec.origin is None else Path(spec.origin).parent / file
        if path is None or not path.is_file():
            raise UserError(
                f"data={data} reads {file} from the files of {package}, and it is not there: "
                "install scikit-learn and scikit-image (they are of bnstudy's extra 'train')"
            )
        found[name] = path
    return found


def content_hash(paths: Iterable[Path]) -> str:
    """Hash over the bytes of files, in this order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_aside(target: Path, write: Any) -> None:
    """Fills a cache file so that readers see it whole or not at all.

    A cache that cannot be written costs time later, nothing else: such errors are passed over.
    """
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as aside:
            write(aside)


def track(items: Iterable[T], text: str, total: int | None = None) -> Iterable[T]:
    """The items, with a progress bar on stderr when there are many."""
    total = len(items) if total is None else total  # type: ignore[arg-type]
    if total < MANY:
        return items
    from rich.console import Console
    from rich.progress import track as rich_track

    return rich_track(
        items,
        description=text,
        total=total,
        console=Console(stderr=True),
        transient=True,
    )
