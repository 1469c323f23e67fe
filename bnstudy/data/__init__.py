"""Which examples are learned from: in memory, as tensors, split by one seed of their own.

A loader is a function `(config, cache_dir) -> Dataset` of raw images in [0, 1], found by name in
`DATASETS`. `make` does what holds for every data set, once, after it: contrast, pixel noise, the
subset, the normalization. Everybody reads through `load` and `load_many`, which keep the last few.
Importing this module does not import torch.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnstudy.config.capabilities import DATA
from bnstudy.data import files
from bnstudy.entry import locate, source_hash
from bnstudy.errors import UserError, unknown

if TYPE_CHECKING:
    import torch

    from bnstudy.config import DataConfig

DATASETS = {
    "digits": "bnstudy.data.images:digits",
    "contrast_digits": "bnstudy.data.images:digits",
    "mnist": "bnstudy.data.images:packed",
    "fashion_mnist": "bnstudy.data.images:packed",
    "cifar10": "bnstudy.data.images:packed",
    "image_folder": "bnstudy.data.images:image_folder",
    "text": "bnstudy.data.text:load",
    "adding": "bnstudy.data.sequences:adding",
    "parity": "bnstudy.data.sequences:parity",
    "copy": "bnstudy.data.sequences:copy",
    "custom": "bnstudy.data.custom:load",
}
KEPT = 4  # data sets that `load` keeps in the memory of a process
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """A training, a validation and a test part, whole in memory.

    Images `*_x` are float32 of shape (n, C, H, W), labels `*_y` int64 of shape (n,) in
    [0, num_classes). What `make` returns is normalized per channel; what a loader (or an entry of
    one's own) returns is not, its grey range is [0, 1].

    Sequences are (n, F + 1, T), the last channel their mask, or tokens (n, 1, T) below
    `vocabulary`, -1 where padded; their labels are (n, T), IGNORED where nothing is asked.

    `info` says what was used: `sizes` of the parts, `available` training examples, `mean` and
    `std` per channel in units of the grey range, and for folders the names of the `classes`. Where
    several data sets are joined it is that of the first; `infos` has one for each.
    """

    train_x: "torch.Tensor"
    train_y: "torch.Tensor"
    val_x: "torch.Tensor"
    val_y: "torch.Tensor"
    test_x: "torch.Tensor"
    test_y: "torch.Tensor"
    num_classes: int
    info: dict[str, Any] = field(default_factory=dict)
    noise: "torch.Tensor | None" = None
    member: "torch.Tensor | None" = None
    infos: tuple[dict[str, Any], ...] = ()
    vocabulary: int | None = None

    def size(self, part: str) -> int:
        """Examples in a part that one network sees."""
        return len(getattr(self, f"{part}_y")) // self.members

    def labels(self, part: str, network: int) -> "torch.Tensor":
        """Labels (n,) of a part as one network of the stack sees it."""
        n, y = self.size(part), getattr(self, f"{part}_y")
        first = 0 if self.member is None else int(self.member[network]) * n
        return y[first : first + n]

    def take(
        self, part: str, index: "torch.Tensor", noise: "list[torch.Generator] | None" = None
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        """Images (n, S, C, H, W) and labels (n, S) for indices (n, S), a column for each network.

        With `noise`, a generator for each network, images get the noise of `noise_every_step`.
        """
        x, y = getattr(self, f"{part}_x"), getattr(self, f"{part}_y")
        if self.member is not None:
            index = index + self.member * self.size(part)
        images, labels = x[index], y[index]
        if noise and self.noise is not None:
            import torch

            shape = (len(index), *self.shape)
            drawn = torch.stack([torch.randn(shape, generator=g) for g in noise], dim=1)
            images = images + self.noise * drawn.to(images.device)
        return images, labels

    @property
    def members(self) -> int:
        """Data sets joined in this one."""
        return len(self.infos) or 1

    def with_raw(self, part: str, change: Any) -> "Dataset":
        """A copy whose images of a part are `change(raw)`, normalized again as they were.

        `raw` (n, C, H, W), on the CPU, is in units of the grey range. Of joined data sets each is
        changed by itself, with its own mean and standard deviation.
        """
        import torch

        x, found = getattr(self, f"{part}_x"), []
        infos = self.infos or (self.info,)
        for own, info in zip(x.cpu().chunk(len(infos)), infos, strict=True):
            mean, std = (
                torch.tensor(info[k], dtype=torch.float32)[:, None, None] for k in ("mean", "std")
            )
            found.append((change(own * std + mean) - mean) / std)
        return replace(self, **{f"{part}_x": torch.cat(found).to(x.device)})

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of one image, (F + 1, T) of one sequence; tokens count as one-hot channels."""
        if self.vocabulary:
            return self.vocabulary + 1, self.train_x.shape[2]
        return tuple(self.train_x.shape[1:])

    def parts(self) -> "Iterator[tuple[str, torch.Tensor, torch.Tensor]]":
        """(name, images, labels) of train, val and test."""
        for part in PARTS:
            yield part, getattr(self, f"{part}_x"), getattr(self, f"{part}_y")

    def with_parts(self, change: Any) -> "Dataset":
        """A copy whose parts are `change(name, images, labels) -> (images, labels)`."""
        changed = {}
        for part, x, y in self.parts():
            changed[f"{part}_x"], changed[f"{part}_y"] = change(part, x, y)
        return replace(self, **changed)

    def to(self, device: "torch.device | str") -> "Dataset":
        """The same data on another device."""
        moved = self.with_parts(lambda _, x, y: (x.to(device), y.to(device)))
        extra = {
            k: v.to(device) for k in ("noise", "member") if (v := getattr(self, k)) is not None
        }
        return replace(moved, **extra)


def join(datasets: "list[Dataset]", member: list[int]) -> Dataset:
    """Data sets of equal sizes as one, for a stack whose network i sees datasets[member[i]]."""
    import torch

    if len(datasets) == 1:
        return datasets[0]
    first = datasets[0]
    parts = {
        f"{part}_{kind}": torch.cat([getattr(d, f"{part}_{kind}") for d in datasets])
        for part in PARTS
        for kind in "xy"
    }
    noise = None
    if first.noise is not None:
        noise = torch.stack([datasets[m].noise for m in member])
    which = torch.tensor(member, device=first.train_y.device)
    infos = tuple(d.info for d in datasets)
    return replace(first, **parts, noise=noise, member=which, infos=infos)


def resolve(cfg: "DataConfig", cache_dir: Path | None = None) -> "DataConfig":
    """The configuration with the hashes of what lies outside it: data on disk, an entry's source.

    Of data=custom the fingerprint is that of the tensors that the loader returns, which runs for
    it; whatever it reads, other examples are other data.

    Downloads when the data are absent and `download` allows it. Raises UserError for a name that
    does not exist, a setting that this data set does not have, a root that is absent or
    unreadable, or data other than a given `fingerprint` says.
    """
    if cfg.name not in DATASETS:
        raise unknown("data set", cfg.name, DATASETS)
    resized = cfg.name in ("image_folder", "custom") or cfg.sequence != "none"
    if cfg.image_size is not None and not resized:
        raise UserError(
            f"data.image_size={cfg.image_size} resizes the images of data=image_folder, and those "
            f"that data.sequence reads; the size of data={cfg.name} is fixed. Leave it out."
        )
    if cfg.entry and cfg.name != "custom":
        raise UserError(
            f"data.entry={cfg.entry} is for data=custom: given data={cfg.name}. "
            "Leave it out or choose data=custom."
        )
    cfg = _sequence(cfg)
    source = source_hash(cfg.entry, "data.entry") if cfg.name == "custom" else ""
    read = _kept_custom(cfg, source) if source else fingerprint(cfg, cache_dir)
    found = {"fingerprint": read, "source": source}
    for key, value in found.items():
        given = getattr(cfg, key)
        if given and given != value:
            raise UserError(
                f"data.{key}={given} does not fit what is there now "
                f"({value or 'none: nothing of it lies outside the package'}): the data or their "
                f"code have changed{_OR_RANDOM if source else ''}. Leave data.{key} out: bnstudy "
                "fills it in."
            )
    return cfg.model_copy(update=found)


def _sequence(cfg: "DataConfig") -> "DataConfig":
    """The settings of sequences checked, the length filled in."""
    made = DATA[cfg.name].length is not None
    if made and cfg.sequence != "none":
        raise UserError(f"data.sequence={cfg.sequence} reads images; data={cfg.name} is sequences")
    if made and (cfg.contrast or cfg.pixel_noise):
        raise UserError(f"data.contrast and data.pixel_noise change images, not data={cfg.name}")
    if not made and cfg.length is not None:
        takers = ", ".join(name for name, row in DATA.items() if row.length is not None)
        raise UserError(
            f"data.length={cfg.length} is for data={takers}; sequences of images "
            "are as long as the images, see data.image_size"
        )
    if cfg.min_length is not None and not made and cfg.sequence == "none":
        raise UserError(f"data.min_length={cfg.min_length} is for sequences, see data.sequence")
    if cfg.path is not None and cfg.name != "text":
        raise UserError(f"data.path={cfg.path} is for data=text; data={cfg.name} takes data.root")
    return cfg.model_copy(update={"length": cfg.length or DATA[cfg.name].length})


def fingerprint(cfg: "DataConfig", cache_dir: Path | None = None) -> str:
    """The name of data on disk: a hash over sorted file names and bytes; "" for embedded data.

    It does not depend on where the data lie. Remembered in `cache_dir` by size and time of
    modification of each file.
    """
    try:
        if cfg.name == "image_folder":
            root = files.root_of(cfg)
            return files.fingerprint(root, files.list_images(root).names(), cache_dir)
        if cfg.name == "text":
            from bnstudy.data import text

            return text.fingerprint(cfg)
        if cfg.name in files.PACKED:
            return files.fingerprint(*files.find_packed(cfg), cache_dir)
    except OSError as e:
        raise UserError(f"the data at {e.filename} cannot be read: {e.strerror}") from e
    return ""


_kept: "OrderedDict[str, Dataset]" = OrderedDict()
_fingerprints: "dict[DataConfig, str]" = {}  # of data=custom, by what their loader was given
_OR_RANDOM = ", or the loader draws random numbers without a seed"


def _kept_custom(cfg: "DataConfig", source: str) -> str:
    """The fingerprint of what a person's loader returns; the data made of it are kept for `load`.

    The loader runs once in a process, whatever it reads may change meanwhile.
    """
    from bnstudy.data import custom

    cfg = cfg.model_copy(update={"fingerprint": "", "source": source})
    if cfg not in _fingerprints:
        raw = custom.load(cfg)
        _fingerprints[cfg] = custom.fingerprint(raw)
        own = cfg.model_copy(update={"fingerprint": _fingerprints[cfg]})
        _keep(own.model_dump_json(), _made(own, raw))
    return _fingerprints[cfg]


def _keep(key: str, made: Dataset) -> None:
    """Into the memory of this process, in the place of what was not used for longest."""
    while len(_kept) >= KEPT:
        _kept.popitem(last=False)
    _kept[key] = made


def load(cfg: "DataConfig", cache_dir: Path | None = None) -> Dataset:
    """The data set that `make` builds; the last few stay in memory, so do not change tensors.

    Files that have changed are read again: what is kept is known by its fingerprint.
    """
    cfg = resolve(cfg, cache_dir)
    key = cfg.model_dump_json()
    if key not in _kept:
        _keep(key, make(cfg, cache_dir))
    _kept.move_to_end(key)
    return _kept[key]


def load_many(configs: "Sequence[DataConfig]", cache_dir: Path | None = None) -> Dataset:
    """The data of a stack, a config for each network: each distinct data set loaded once.

    Raises UserError as `make` does.
    """
    distinct = list(dict.fromkeys(configs))
    each = [load(cfg, cache_dir) for cfg in distinct]
    return join(each, [distinct.index(cfg) for cfg in configs])


def make(cfg: "DataConfig", cache_dir: Path | None = None) -> Dataset:
    """The examples that a configuration describes, normalized, on the CPU.

    In this order: split by `split_seed`; contrast and pixel noise, drawn for the whole parts from
    the streams (split_seed, 'contrast') and (split_seed, 'pixel_noise'), so that they do not
    depend on `train_size`; the class-balanced subset of the training part; per channel, minus the
    mean, over the standard deviation (both of the training examples that are used).

    Raises UserError as `resolve` does, and for a `train_size` beyond the training part.
    """
    cfg = resolve(cfg, cache_dir)
    return _made(cfg, locate(DATASETS[cfg.name], "data.name")(cfg, cache_dir))


def _made(cfg: "DataConfig", raw: Dataset) -> Dataset:
    """What holds for every data set, after its loader."""
    from bnstudy.data import images

    if raw.train_x.ndim == 3:  # sequences come as they are
        changed = [k for k in ("contrast", "pixel_noise", "image_size") if getattr(cfg, k)]
        changed += ["sequence"] * (cfg.sequence != "none")
        if changed:
            raise UserError(
                f"data.{changed[0]}={getattr(cfg, changed[0])} changes images, and data={cfg.name} "
                "is sequences: leave it out"
            )
        return raw
    data = images.distort(raw, cfg)
    data = images.subset(data, cfg)
    data = images.normalize(data, len(raw.train_y), cfg.pixel_noise * cfg.noise_every_step)
    if cfg.sequence != "none":
        from bnstudy.data import sequences

        data = sequences.of_images(data, cfg)
    return data
