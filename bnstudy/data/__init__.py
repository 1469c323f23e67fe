"""Which examples are learned from: in memory, as tensors, a draw of them for each seed.

A loader is a function `(config, cache_dir) -> Pool` of raw images in [0, 1], found by name in
`DATASETS`; of data that are made it is `(config, seed) -> Pool`. What holds for every data set is
in draws.py: contrast, pixel noise, normalization, what each seed draws. All read by `load` and
`load_many`, which keep the last few pools. Importing this module does not import torch.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnstudy.config.capabilities import DATA, own_copy
from bnstudy.data import files
from bnstudy.entry import locate, source_hash
from bnstudy.errors import UserError, unknown

if TYPE_CHECKING:
    import torch

    from bnstudy.config import DataConfig
    from bnstudy.data.draws import Pool
    from bnstudy.data.photographs import Photographs

DATASETS = {
    "digits": "bnstudy.data.images:digits",
    "contrast_digits": "bnstudy.data.images:digits",
    "mnist_small": "bnstudy.data.images:mnist_small",
    "mnist": "bnstudy.data.images:packed",
    "fashion_mnist": "bnstudy.data.images:packed",
    "cifar10": "bnstudy.data.images:packed",
    "image_folder": "bnstudy.data.images:image_folder",
    "cifar10_jpeg": "bnstudy.data.images:cifar10_jpeg",
    "patches": "bnstudy.data.patches:load",
    "photos": "bnstudy.data.photographs:load",
    "gaussian": "bnstudy.data.gaussian:load",
    "text": "bnstudy.data.text:load",
    "adding": "bnstudy.data.sequences:adding",
    "parity": "bnstudy.data.sequences:parity",
    "copy": "bnstudy.data.sequences:copy",
    "custom": "bnstudy.data.custom:load",
}
KEPT = 4  # pools that `load` keeps in the memory of a process
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """A training, a validation and a test part, whole in memory.

    Images `*_x` are float32 of shape (n, C, H, W), labels `*_y` int64 of shape (n,) in
    [0, num_classes). What `load` returns is normalized per channel; what an entry of one's own
    returns is not, its grey range is [0, 1].

    Sequences are (n, F + 1, T), the last channel their mask, or tokens (n, 1, T) below
    `vocabulary`, -1 where padded; their labels are (n, T), IGNORED where nothing is asked.

    `info` says what was used: `sizes` of the parts, `available` training examples, `mean` and
    `std` per channel in units of the grey range, and for folders the names of the `classes`. Where
    several data sets are joined it is that of the first; `infos` has one for each, and `member`
    says which of them a network sees.
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
    rows: "dict[str, torch.Tensor]" = field(default_factory=dict)
    infos: tuple[dict[str, Any], ...] = ()
    member: tuple[int, ...] = ()
    vocabulary: int | None = None

    @property
    def kind(self) -> str:
        """What the examples are: images or sequences."""
        return "sequences" if self.train_y.dim() > 1 else "images"

    @property
    def outputs(self) -> tuple[int, ...]:
        """Shape of what a network returns for an example: logits (of each step)."""
        return (*self.train_y.shape[1:], self.num_classes)

    def size(self, part: str) -> int:
        """Examples in a part that one network sees."""
        return len(self.rows.get(part, getattr(self, f"{part}_y")))

    def labels(self, part: str, network: int) -> "torch.Tensor":
        """Labels (n,) of a part as one network of the stack sees it."""
        y = getattr(self, f"{part}_y")
        return y[self.rows[part][:, network]] if part in self.rows else y

    def of(self, network: int) -> "Dataset":
        """What one network of the stack sees, in tensors of its own."""
        own = {
            f"{part}_{kind}": getattr(self, f"{part}_{kind}")[index[:, network]]
            for part, index in self.rows.items()
            for kind in "xy"
        }
        joined = bool(self.infos)
        noise = self.noise[network] if joined and self.noise is not None else self.noise
        info = self.infos[self.member[network]] if joined else self.info
        return replace(self, **own, rows={}, infos=(), member=(), noise=noise, info=info)

    def take(
        self, part: str, index: "torch.Tensor", noise: "list[torch.Generator] | None" = None
    ) -> "tuple[torch.Tensor, torch.Tensor]":
        """Images (n, S, C, H, W) and labels (n, S) for indices (n, S), a column for each network.

        With `noise`, a generator for each network, images get the noise of `noise_every_step`.
        """
        x, y = getattr(self, f"{part}_x"), getattr(self, f"{part}_y")
        if part in self.rows:
            index = self.rows[part].gather(0, index)
        images, labels = x[index], y[index]
        if noise and self.noise is not None:
            import torch

            shape = (len(index), *self.shape)
            drawn = torch.stack([torch.randn(shape, generator=g) for g in noise], dim=1)
            images = images + self.noise * drawn.to(images.device)
        return images, labels

    def with_raw(self, part: str, change: Any) -> "Dataset":
        """A copy whose images of a part are `change(raw)`, normalized again as they were.

        `raw` (n, C, H, W), on the CPU, is in units of the grey range. Of joined data sets each is
        changed by itself, with its own mean and standard deviation.
        """
        import torch

        x, found = getattr(self, f"{part}_x"), []
        infos = self.infos or (self.info,)
        for own, info in zip(x.cpu().chunk(len(infos)), infos, strict=True):
            of = {k: torch.tensor(info[k])[:, None, None].float() for k in ("mean", "std")}
            found.append((change(own * of["std"] + of["mean"]) - of["mean"]) / of["std"])
        return replace(self, **{f"{part}_x": torch.cat(found).to(x.device)})

    def corrupted(self, part: str, name: str, severity: int) -> "Dataset":
        """A copy whose images of a part are under a corruption, with noise of that part's own."""
        from bnstudy.data.corruptions import corrupted_part

        return self.with_raw(part, corrupted_part(part, name, severity))

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

    def to(self, device: "torch.device | str", dtype: "torch.dtype | None" = None) -> "Dataset":
        """The same data on another device; parts that share a tensor share it there.

        dtype: of what is floating point; None: as it is.
        """
        moved: dict[int, torch.Tensor] = {}

        def move(tensor: "torch.Tensor") -> "torch.Tensor":
            if id(tensor) not in moved:
                own = dtype if tensor.is_floating_point() else None
                moved[id(tensor)] = tensor.to(device, own)
            return moved[id(tensor)]

        there = self.with_parts(lambda _, x, y: (move(x), move(y)))
        noise = None if self.noise is None else move(self.noise)
        rows = {part: move(index) for part, index in self.rows.items()}
        return replace(there, noise=noise, rows=rows)


def join(datasets: "list[Dataset]", member: list[int]) -> Dataset:
    """Data sets of one network each as one, for a stack whose network i sees datasets[member[i]].

    Each is copied: for data that are small. They are of equal sizes.
    """
    import torch

    each = [d.of(0) for d in datasets]
    first = each[0]
    tensors = {
        f"{part}_{kind}": torch.cat([getattr(d, f"{part}_{kind}") for d in each])
        for part in PARTS
        for kind in "xy"
    }
    rows = {}
    for part in PARTS:
        n = first.size(part)
        rows[part] = torch.arange(n)[:, None] + n * torch.tensor(member)
    noise = None
    if any(d.noise is not None for d in each):
        noise = torch.stack([each[m].noise for m in member])
    infos = tuple(d.info for d in each)
    return replace(first, **tensors, noise=noise, rows=rows, infos=infos, member=tuple(member))


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
    resized = DATA[cfg.name].folder or cfg.name == "custom" or cfg.sequence != "none"
    if cfg.image_size is not None and not resized:
        folders = ", ".join(name for name, row in DATA.items() if row.folder)
        raise UserError(
            f"data.image_size={cfg.image_size} resizes the images of folders (data={folders}), and "
            f"those that data.sequence reads; the size of data={cfg.name} is fixed. Leave it out."
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
        if DATA[cfg.name].folder:
            root = files.root_of(cfg)
            return files.fingerprint(root, files.list_images(root).names(), cache_dir)
        if cfg.name == "text":
            from bnstudy.data import text

            return text.fingerprint(cfg)
        if cfg.name == "patches":
            from bnstudy.data import patches

            return patches.fingerprint()
        if cfg.name == "photos":
            from bnstudy.data import photo_files

            return photo_files.fingerprint(cfg, cache_dir)
        if cfg.name in files.PACKED:
            return files.fingerprint(*files.find_packed(cfg), cache_dir)
    except OSError as e:
        raise UserError(f"the data at {e.filename} cannot be read: {e.strerror}") from e
    return ""


_kept: "OrderedDict[str, Pool]" = OrderedDict()
_fingerprints: "dict[DataConfig, str]" = {}  # of data=custom, by what their loader was given
_OR_RANDOM = ", or the loader draws random numbers without a seed"


def _kept_custom(cfg: "DataConfig", source: str) -> str:
    """The fingerprint of what a person's loader returns; the pool made of it is kept for `load`.

    The loader runs once in a process, whatever it reads may change meanwhile.
    """
    from bnstudy.data import custom, draws

    cfg = cfg.model_copy(update={"fingerprint": "", "source": source})
    if cfg not in _fingerprints:
        raw = custom.load(cfg)
        _fingerprints[cfg] = custom.fingerprint(raw)
        own = cfg.model_copy(update={"fingerprint": _fingerprints[cfg]})
        _keep(own, draws.pool_of(raw))
    return _fingerprints[cfg]


def _key(cfg: "DataConfig") -> str:
    """The name of a pool: all that its loader may depend on."""
    if cfg.name == "custom":  # a person's own loader is handed everything
        return cfg.model_dump_json()
    neutral = {"train_size": None, "test_part": "test", "contrast": 0.0, "pixel_noise": 0.0}
    return f"{own_copy(cfg)} {cfg.model_copy(update=neutral).model_dump_json()}"


def _keep(cfg: "DataConfig", raw: "Pool") -> None:
    """Into the memory of this process, in the place of what was not used for longest.

    Kept as all seeds see it or, where each distorts it by itself, raw.
    """
    from bnstudy.data import draws

    while len(_kept) >= KEPT:
        _kept.popitem(last=False)
    _kept[_key(cfg)] = raw if own_copy(cfg) else draws.prepare(raw, cfg, 0)


def _pool(cfg: "DataConfig", cache_dir: Path | None) -> "Pool":
    """What all seeds share."""
    key = _key(cfg)
    if key not in _kept:
        loader = locate(DATASETS[cfg.name], "data.name")
        _keep(cfg, loader(cfg, cache_dir))
    _kept.move_to_end(key)
    return _kept[key]


def load(
    cfg: "DataConfig", cache_dir: Path | None = None, seed: int = 0
) -> "Dataset | Photographs":
    """The examples that a run with this seed sees, normalized, on the CPU.

    The test part depends on `split_seed` alone. From (seed, purpose) come, of the other examples
    (the pool): which validate, which `train_size` train, their contrast and their pixel noise; of
    data that are made, all of the training part. Normalized per channel with the mean and standard
    deviation of the pool: the same for every `train_size` and, unless images are distorted, for
    every seed. The pool stays in memory, files that have changed are read again: what is kept is
    known by its fingerprint. Do not change tensors.

    Raises UserError as `resolve` does, and for a `train_size` beyond the training part.
    """
    return load_many([(cfg, seed)], cache_dir).of(0)


def load_many(
    draws: "Sequence[tuple[DataConfig, int]]", cache_dir: Path | None = None
) -> "Dataset | Photographs":
    """The data of a stack, a config and a seed for each network.

    Networks read one pool by indices of their own. Only where a seed distorts or makes its examples
    do they get copies. Of photographs all see the same. Raises UserError as `load` does.
    """
    from bnstudy.data.draws import dataset, prepare

    resolved = {cfg: resolve(cfg, cache_dir) for cfg in dict.fromkeys(cfg for cfg, _ in draws)}
    pairs = [(resolved[cfg], seed) for cfg, seed in draws]
    if "photographs" in DATA[pairs[0][0].name].inputs:
        return locate(DATASETS[pairs[0][0].name], "data.name")(pairs[0][0])

    def alone(cfg: "DataConfig", seed: int) -> Dataset:
        if DATA[cfg.name].made:
            pool = locate(DATASETS[cfg.name], "data.name")(cfg, seed)
        else:
            pool = _pool(cfg, cache_dir)
            pool = prepare(pool, cfg, seed) if own_copy(cfg) else pool
        return dataset(pool, cfg, [seed])

    if len(pairs) == 1:
        return alone(*pairs[0])
    (first, _), distinct = pairs[0], list(dict.fromkeys(pairs))
    if len({cfg for cfg, _ in pairs}) == 1 and not own_copy(first):
        return dataset(_pool(first, cache_dir), first, [seed for _, seed in pairs])
    return join([alone(*pair) for pair in distinct], [distinct.index(pair) for pair in pairs])
