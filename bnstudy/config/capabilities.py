"""What each model, norm, data set and optimizer uses and supports: one table, plain data.

Whoever would branch on a list of names asks here instead, so that a new model or norm is one new
row. Tests hold every row to the code: tests/config/test_capabilities.py.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bnstudy.errors import UserError

if TYPE_CHECKING:
    from bnstudy.config.schema import Config, DataConfig, Parts


@dataclass(frozen=True)
class Model:
    """What a model reads, and what can be done with its networks."""

    settings: tuple[str, ...]  # the fields of ModelConfig that it uses
    inputs: tuple[str, ...] = ("images",)  # kinds of data
    stackable: bool = True  # trains as one of a stack, unless a layer draws random numbers
    widens: bool = True  # seeds side by side as channels of one wider network
    foldable: bool = True  # BN can be folded into the convolutions and linear layers before it
    compiles: bool = True  # training steps compile within seconds
    processes: bool = True  # several processes can share its batches
    recurrent: bool = False  # norms see one time step at a time


@dataclass(frozen=True)
class Norm:
    """What a norm uses, and what can be done with networks that have it."""

    settings: tuple[str, ...]  # the fields of NormConfig that its layers use
    recurrent: tuple[str, ...] | None = None  # the same in a recurrent network; None: not there
    stackable: bool = True  # trains as one of a stack, unless it shares statistics (norm.sync)
    widens: bool = False  # its layers keep seeds apart that are side by side as channels
    foldable: bool = False  # folds into the layer before it
    momenta: bool = True  # networks of a stack may differ in norm.momentum

    @property
    def over_batch(self) -> bool:
        """Whether its statistics are of several examples."""
        return "momentum" in self.settings

    @property
    def population(self) -> bool:
        """Whether it has population statistics, which norm.freeze_at freezes."""
        return "freeze_at" in self.settings

    @property
    def syncs(self) -> bool:
        """Whether several processes can share its statistics."""
        return "sync" in self.settings


@dataclass(frozen=True)
class Data:
    """What a data set is made of."""

    settings: tuple[str, ...]  # the fields of DataConfig that it uses
    inputs: tuple[str, ...]  # kinds of examples; `custom` may be either
    embedded: bool = False  # so small that a stack may hold several copies
    made: bool = False  # drawn from a distribution, separately for each seed; no file, no pool
    tiny: bool = False  # images of 8 x 8 pixels, in the table of costs
    folder: bool = False  # one file for each image, in a folder for each class
    length: int | None = None  # steps of a sequence unless data.length says otherwise


@dataclass(frozen=True)
class Task:
    """What a task uses, and what it can be asked of."""

    settings: tuple[str, ...]  # the fields of TaskConfig that it uses
    inputs: tuple[str, ...]  # kinds of data
    restores: bool = False  # needs data with a degradation


@dataclass(frozen=True)
class Optimizer:
    """What an optimizer uses."""

    settings: tuple[str, ...]  # the fields of OptimizerConfig


_OWN = ("entry", "source")
_RECURRENT = ("hidden", "cell", "recurrent_init", "initial_noise")
MODELS = {
    "mlp": Model(("hidden", "activation", "init_scale", "dropout")),
    "lenet": Model(("normalized", "activation", "init_scale", "dropout")),
    "resnet": Model(("depth", "width", "init_scale", "branch", "dropout", "scaled_weights")),
    "vgg": Model(("depth", "width")),
    "deep": Model(("depth", "width", "residual", "activation", "init_scale", "branch")),
    "transformer": Model(
        ("depth", "width", "heads"), ("sequences",), foldable=False, processes=False
    ),
    "recurrent": Model(
        _RECURRENT, ("sequences",), foldable=False, compiles=False, processes=False, recurrent=True
    ),
    "torchvision": Model(("arch",), widens=False, processes=False),
    "dncnn": Model(("depth", "width", "residual"), ("photographs",)),
    "edsr": Model(("depth", "width", "residual", "residual_scaling"), ("photographs",)),
    "unet": Model(("depth", "width", "residual"), ("photographs",)),
    "stylizer": Model(("depth", "width"), ("photographs",)),
    # the whole ModelConfig is handed to the user's own function
    "custom": Model(
        (
            "depth", "width", "heads", "arch", "normalized", "residual", "residual_scaling",
            "activation", "init_scale", "branch", "dropout", "scaled_weights", *_RECURRENT, *_OWN,
        ),
        ("images", "sequences", "photographs"),
        widens=False,
        processes=False,
    ),
}  # fmt: skip

_ANY = ("eps", "affine", "gamma_init", "backend")
_GROUPS = ("num_groups", "channels_per_group")
_BATCH = (
    *_ANY, "momentum", "group_size", "evaluation", "prior_examples", "alpha", "r_max", "d_max",
    "renorm_warmup", "freeze_at", "sync",
)  # fmt: skip
_STEP = ("scope", "time_steps", "min_count", "below_min")
NORMS = {
    "none": Norm((), (), widens=True),
    "batch": Norm(_BATCH, (*_BATCH, *_STEP), widens=True, foldable=True),
    "ghost": Norm(_BATCH, widens=True, foldable=True),
    "group": Norm((*_ANY, *_GROUPS), (*_ANY, *_GROUPS), widens=True),
    "layer": Norm(_ANY, _ANY, widens=True),
    "instance": Norm(_ANY, widens=True),
    "rms": Norm(_ANY),
    "filter_response": Norm(_ANY),
    "online": Norm(_ANY, stackable=False),
    "dyt": Norm(("affine", "gamma_init"), widens=True),
    "power": Norm((*_ANY, "momentum", "warmup"), widens=True, momenta=False),
    "continual": Norm((*_BATCH, *_GROUPS)),
    "noisy": Norm(_BATCH, stackable=False, foldable=True),
    "torch_batch": Norm(
        ("eps", "affine", "gamma_init", "momentum", "freeze_at"),
        widens=True,
        foldable=True,
        momenta=False,
    ),
    # the user's own factory gets the channels alone; layers of it that have `frozen` are frozen
    "custom": Norm(("freeze_at", *_OWN)),
}
NETWORK = ("weight_standardization",)  # settings of NormConfig that concern no norm layer
STANDARDIZED = ("standardized",)  # and those of weight standardization

_DATA = (
    "train_size", "split_seed", "test_part", "min_length", "fingerprint", "root", "download",
)  # fmt: skip
_IMAGES = (*_DATA, "contrast", "pixel_noise", "noise_every_step", "image_size", "sequence")
_images = Data(_IMAGES, ("images",))
_folder = Data(_IMAGES, ("images",), folder=True)
_digits = Data(_IMAGES, ("images",), embedded=True, tiny=True)
_made = Data((*_DATA, "length"), ("sequences",), embedded=True, made=True, length=50)
DATA = {
    "digits": _digits,
    "contrast_digits": _digits,
    "mnist_small": Data(_IMAGES, ("images",), embedded=True),
    "patches": Data(_IMAGES, ("images",), embedded=True),
    "gaussian": Data(("train_size", "split_seed", "test_part"), ("images",), True, made=True),
    "mnist": _images,
    "fashion_mnist": _images,
    "cifar10": _images,
    "image_folder": _folder,
    "cifar10_jpeg": _folder,
    "photos": Data(
        (
            "split_seed", "test_part", "fingerprint", "root", "patch_size", "color", "degradation",
            "sigma", "quality",
        ),
        ("photographs",),
    ),
    "text": Data((*_DATA, "length", "path"), ("sequences",), length=50),
    "adding": _made,
    "parity": _made,
    "copy": _made,
    # the whole DataConfig is handed to the user's own function
    "custom": Data((*_IMAGES, *_OWN), ("images", "sequences")),
}  # fmt: skip

_OPTIMIZER = (
    "lr", "momentum", "weight_decay", "decay_norm", "lr_rule", "reference_batch_size", "schedule",
    "milestones", "decay", "growth", "trainable", "clip_norm", "clip_adaptive", "weight_average",
    "average_from",
)  # fmt: skip
OPTIMIZERS = {"sgd": Optimizer(_OPTIMIZER), "adam": Optimizer((*_OPTIMIZER, "beta2"))}

TASKS = {
    "classification": Task((), ("images", "sequences")),
    "restoration": Task(("loss",), ("photographs",), restores=True),
    "stylization": Task(
        ("style", "style_size", "style_weight", "features", "fingerprint", "style_path"),
        ("photographs",),
    ),
}

TABLES: dict[str, dict[str, Any]] = {  # by group, in the order in which mistakes are reported
    "norm": NORMS,
    "model": MODELS,
    "data": DATA,
    "optimizer": OPTIMIZERS,
    "task": TASKS,
}

# numbers in which the networks of one stack may differ, beside the seed
NUMBERS = (
    "optimizer.lr",
    "optimizer.weight_decay",
    "norm.momentum",
    "data.contrast",
    "data.pixel_noise",
)


def widens(config: "Parts") -> bool:
    """Whether seeds can be channels: all that sees channels is this package's own, and widens."""
    model, norm = MODELS.get(config.model.name), NORMS.get(config.norm.name)
    if model is None or norm is None:  # refused elsewhere
        return False
    return model.widens and norm.widens and not config.norm.weight_standardization


def mixable(config: "Config") -> tuple[str, ...]:
    """Dotted names of the numbers in which networks that train as one stack may differ."""
    if not widens(config):
        return ()
    embedded, momenta = DATA[config.data.name].embedded, NORMS[config.norm.name].momenta
    return tuple(
        name
        for name in NUMBERS
        if (embedded or not name.startswith("data.")) and (momenta or name != "norm.momentum")
    )


def own_copy(data: "DataConfig") -> bool:
    """Whether each seed's examples are tensors of its own: it distorts them, or makes them."""
    return bool(data.contrast or data.pixel_noise) or DATA[data.name].made


def used(group: str, config: "Parts") -> tuple[str, ...] | None:
    """The fields of a part that its choice uses; None where a name is unknown, or cannot be there.

    Those are refused elsewhere, by a message about the name itself.
    """
    name = getattr(config, group).name
    if group != "norm":
        row = TABLES[group].get(name)
        return row.settings if row else None
    norm, model = NORMS.get(name), MODELS.get(config.model.name)
    if norm is None or model is None:
        return None
    own = norm.recurrent if model.recurrent else norm.settings
    more = STANDARDIZED if config.norm.weight_standardization else ()
    return None if own is None else (*own, *NETWORK, *more)


def unused(config: "Parts") -> dict[str, Any]:
    """Dotted names of settings that the chosen parts do not use, with their defaults."""
    found = {}
    for group in TABLES:
        own = used(group, config)
        for name, field in type(getattr(config, group)).model_fields.items():
            if own is not None and name not in ("name", *own):
                found[f"{group}.{name}"] = field.default
    return found


def refusal(key: str, value: Any, config: "Parts") -> UserError:
    """The error for a setting that the choice of its part does not use: names those that do."""
    group, _, name = key.partition(".")
    recurrent = group == "norm" and MODELS[config.model.name].recurrent
    there, elsewhere = [], []
    for choice, row in TABLES[group].items():
        if name in ((row.recurrent or ()) if recurrent else row.settings):
            there.append(choice)
        elif group == "norm" and name in (row.settings if recurrent else row.recurrent or ()):
            elsewhere.append(choice)
    where = " in a recurrent network"
    if there:
        which = f"{group}={', '.join(there)}" + where * recurrent
    else:
        which = f"{group}={', '.join(elsewhere)}" + (" elsewhere" if recurrent else where)
    shown = str(value).lower() if isinstance(value, bool) else value
    chosen = getattr(config, group).name
    return UserError(
        f"{key}={shown}: {chosen} {group}{where * recurrent} has no {name}. Leave it out; it is a "
        f"setting of {which}."
    )
