"""Every field of a run is alive: flipping it changes the outcome."""

import hashlib
from functools import cache
from pathlib import Path

import pytest
import torch

from bnstudy.config import Config, axis_keys


def config(**flat) -> Config:
    """A Config from dotted names with `__` for the dot."""
    tree: dict = {}
    for key, value in flat.items():
        part, _, name = key.partition("__")
        if name:
            tree.setdefault(part, {})[name] = value
        else:
            tree[part] = value
    return Config.model_validate(tree)


TINY = {
    "data__train_size": 40,
    "model__name": "mlp",
    "model__hidden": [6],
    "train__batch_size": 8,
    "train__steps": 7,
    "evaluate__large_batch": 100,
}
RESNET = {"model__name": "resnet", "model__width": 2, "train__steps": 2}
PARITY = {
    "data__name": "parity", "data__length": 12, "model__name": "recurrent", "train__steps": 2,
}  # fmt: skip
ROWS = {"data__sequence": "rows", "model__name": "recurrent", "train__steps": 2}
PHOTOS = {
    "data__name": "photos", "data__train_size": None, "data__degradation": "noise",
    "data__patch_size": 16, "model__name": "dncnn", "model__depth": 3, "model__width": 2,
    "task__name": "restoration", "train__steps": 1, "evaluate__large_batch": 8,
    "evaluate__precise_examples": 8,
}  # fmt: skip
STYLE = {
    **PHOTOS, "data__degradation": "none", "task__name": "stylization", "task__style_size": 32,
    "model__name": "stylizer", "model__depth": 1,
}  # fmt: skip
# field -> (what else is set so that the field matters, the other value)
FLIPS = {
    "data.name": ({"data__root": "images"}, "image_folder"),
    "data.train_size": ({}, 41),
    "data.split_seed": ({}, 1),
    "data.test_part": ({}, "validation"),
    "data.contrast": ({}, 0.5),
    "data.pixel_noise": ({}, 0.1),
    "data.noise_every_step": ({"data__pixel_noise": 0.1}, True),
    "data.image_size": ({"data__name": "image_folder", "data__root": "images"}, 6),
    "data.entry": ({"data__name": "custom", "data__entry": "own_parts:data"}, "own_parts:other"),
    "model.name": ({}, "lenet"),
    "model.depth": (RESNET, 14),
    "model.width": (RESNET, 3),
    "model.heads": ({**PARITY, "model__name": "transformer"}, 4),
    "model.hidden": ({}, [7]),
    "model.normalized": ({"model__name": "lenet"}, "convolutions"),
    "model.dropout": ({}, 0.5),
    "model.entry": ({"model__name": "custom", "model__entry": "own_parts:net"}, "own_parts:wide"),
    "norm.name": ({}, "layer"),
    "norm.eps": ({}, 1e-2),
    "norm.affine": ({}, "gamma"),
    "norm.momentum": ({}, 0.5),
    "norm.group_size": ({"norm__name": "ghost", "norm__group_size": 2}, 4),
    "norm.num_groups": ({"norm__name": "group", "norm__num_groups": 2}, 3),
    "norm.channels_per_group": ({"norm__name": "group", "norm__channels_per_group": 2}, 3),
    "norm.freeze_at": ({}, 0.5),
    "norm.gamma_init": ({}, 0.5),
    "norm.evaluation": ({}, "batch"),
    "norm.prior_examples": ({"norm__evaluation": "mixture", "norm__prior_examples": 1.0}, 9.0),
    "norm.alpha": ({**RESNET, "norm__evaluation": "example", "norm__alpha": 0.1}, 0.9),
    "norm.r_max": ({"norm__r_max": 3.0, "norm__d_max": 5.0}, 1.0),
    "norm.d_max": ({"norm__r_max": 3.0, "norm__d_max": 5.0}, 0.0),
    "norm.renorm_warmup": ({"norm__r_max": 3.0, "norm__d_max": 5.0}, (2, 9, 9)),
    "norm.warmup": ({"norm__name": "power"}, 2),
    "norm.weight_standardization": ({}, True),
    "norm.standardized": ({**RESNET, "norm__weight_standardization": True}, "convolutions"),
    "model.arch": ({"model__name": "torchvision", "model__arch": "resnet18"}, "mnasnet0_5"),
    "norm.entry": ({"norm__name": "custom", "norm__entry": "own_parts:norm"}, "own_parts:none"),
    "optimizer.name": ({}, "adam"),
    "optimizer.lr": ({}, 0.05),
    "optimizer.momentum": ({}, 0.5),
    "optimizer.beta2": ({"optimizer__name": "adam"}, 0.9),
    "optimizer.weight_decay": ({}, 0.1),
    "optimizer.decay_norm": ({"optimizer__weight_decay": 0.1}, False),
    "optimizer.lr_rule": ({}, "sqrt"),
    "optimizer.reference_batch_size": ({}, 64),
    "optimizer.schedule": ({}, "cosine"),
    "optimizer.milestones": ({}, [0.5]),
    "optimizer.decay": ({}, 0.5),
    "optimizer.growth": ({"optimizer__schedule": "exponential"}, 1.1),
    "optimizer.trainable": ({}, "weights"),
    "train.batch_size": ({}, 4),
    "train.epochs": ({"train__steps": None, "train__epochs": 1.0}, 2.0),
    "train.steps": ({}, 6),
    "train.examples": ({"train__steps": None, "train__examples": 40}, 24),
    "evaluate.every": ({"train__steps": 15}, 2),
    "evaluate.large_batch": ({}, 50),
    "evaluate.precise_examples": ({}, 20),
    "seed": ({}, 1),
    "train.classes_per_batch": ({}, 2),
    "train.corruption": ({}, "noise"),
    "train.severity": ({"train__corruption": "noise"}, 5),
    "train.copies": (
        {"train__corruption": "noise", "norm__name": "ghost", "norm__group_size": 8},
        "behind",
    ),
    "train.classes_per_task": ({}, 2),
    "optimizer.weight_average": ({}, 50.0),
    "optimizer.average_from": ({"optimizer__weight_average": 50.0}, 0.5),
    "evaluate.online": ({}, True),
    "evaluate.steps": ({}, 1),
    "data.sequence": (ROWS, "pixels"),
    "data.length": (PARITY, 13),
    "data.min_length": (PARITY, 4),
    "model.cell": (PARITY, "gru"),
    "model.recurrent_init": (PARITY, "identity"),
    "model.initial_noise": (PARITY, 0.1),
    "norm.scope": (PARITY, "sequence"),
    "norm.min_count": ({**PARITY, "data__min_length": 2}, 5),
    "optimizer.clip_norm": ({}, 0.01),
    "optimizer.clip_adaptive": ({}, 0.001),
    "model.scaled_weights": (RESNET, True),
    "data.patch_size": (PHOTOS, 18),
    "data.color": (PHOTOS, True),
    "data.degradation": (PHOTOS, "jpeg"),
    "data.sigma": (PHOTOS, 15.0),
    "data.quality": ({**PHOTOS, "data__degradation": "jpeg"}, 50),
    "model.residual": (PHOTOS, False),
    "model.activation": ({}, "tanh"),
    "model.init_scale": ({}, 0.5),
    "model.branch": (RESNET, "skipinit"),
    "model.residual_scaling": ({**PHOTOS, "model__name": "edsr"}, 0.1),
    "task.loss": (PHOTOS, "l1"),
    "task.style": (STYLE, "stars"),
    "task.style_size": (STYLE, 48),
    "task.style_weight": (STYLE, 2.0),
}
NOT_FLIPPED = {
    "task.name": "another kind of data with it, see tests/engine/test_restoration.py",
    "task.features": "of weights that need not be there, see tests/models/test_stylizer.py",
    "task.fingerprint": "found from the files, not set: other files are other styles",
    **{
        f"federation.{name}": "of several clients, see tests/engine/test_federation.py"
        for name in ("clients", "local_steps", "shared", "contrast", "noise")
    },
    "train.processes": "in processes of their own, see tests/engine/test_distributed.py",
    "norm.sync": "with several processes only, see tests/engine/test_distributed.py",
    "train.precision": "set on the stack by the worker, see tests/engine",
    "evaluate.adaptation_lr": "of a probe, see tests/probes/test_adaptation.py",
    "evaluate.severity": "of a probe, see tests/probes/test_adaptation.py",
    "evaluate.stream": "of a probe, see tests/probes/test_adaptation.py",
    "evaluate.probes": "more columns beside the same ones, see tests/probes",
    "norm.time_steps": "for test sequences beyond it, see tests/norms/test_step_batch_norm.py",
    "norm.below_min": "an error in the place of a result, see tests/norms/test_step_batch_norm.py",
    "data.fingerprint": "found from the files, not set: other files are other examples",
    "data.source": "found from the entry's source, not set",
    "model.source": "found from the entry's source, not set",
    "norm.source": "found from the entry's source, not set",
    "norm.backend": "the same mathematics by another kernel: equal up to rounding, see tests/norms",
}


def test_every_field_of_the_address_is_flipped_or_excused():
    fields = {*axis_keys(), "seed"}
    assert fields >= set(Config().flat())
    assert fields == FLIPS.keys() | NOT_FLIPPED.keys()
    assert not FLIPS.keys() & NOT_FLIPPED.keys()


OWN_PARTS = """
import torch
from torch import nn
from bnstudy.data import Dataset


def data(config, shift=0):
    x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = (torch.arange(60) + shift) % 10
    return Dataset(x, y, x[:20], y[:20], x[20:40], y[20:40], num_classes=10)


def other(config):
    return data(config, shift=torch.arange(60) // 10)


def net(config, shape, num_classes, norm, width=5):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), norm(width), nn.Linear(width, num_classes)
    )


def wide(*args):
    return net(*args, width=6)


def norm(channels):
    return nn.LayerNorm(channels)


def none(channels):
    return nn.Identity()
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder with parts of one's own and a folder of images; the working directory."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("parts")
    (folder / "own_parts.py").write_text(OWN_PARTS)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 40, 10, 8), dtype=np.uint8)
    for label, images in zip("ab", pixels, strict=True):
        (folder / "images" / label).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / "images" / label / f"{i}.png")
    return folder


PREFIXES = ("train_", "val_", "test_", "online_")


@cache
def outcome(cfg: Config) -> str:
    """Hash of the final parameters and of every measurement of every evaluation.

    Not of what a row merely repeats from the config (lr, examples, epoch): that would keep a dead
    field alive.
    """
    from bnstudy import data
    from bnstudy.engine.train import train
    from bnstudy.engine.widen import Widened
    from bnstudy.work import build as run
    from bnstudy.work.tasks import task

    examples = data.load(cfg.data)
    net = run.build(cfg, tuple(examples.shape), examples.num_classes)
    stack = Widened([net], torch.device("cpu"))
    stack.task = task(cfg, examples.shape[0])
    found = hashlib.sha256()
    for (row,) in train(stack, examples, [cfg]):
        metrics = [(k, v) for k, v in row.items() if k.startswith(PREFIXES)]
        found.update(repr(sorted(metrics)).encode())
    found.update(stack.flat.numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("field", FLIPS)
def test_every_field_is_alive(field, parts, monkeypatch):
    monkeypatch.chdir(parts)
    monkeypatch.syspath_prepend(parts)
    context, other = FLIPS[field]
    base = {**TINY, **context}
    before, after = config(**base), config(**{**base, field.replace(".", "__"): other})
    assert before.address != after.address, "the flip is no flip"
    assert outcome(before) != outcome(after)


def test_what_is_not_flipped_gives_the_same_bits():
    """The control of the liveness test: without it any noise would look like life."""
    assert outcome(config(**TINY)) == outcome.__wrapped__(config(**TINY))
    moved = config(**TINY, data__root=str(Path.cwd()), data__download=True)
    assert outcome.__wrapped__(moved) == outcome(config(**TINY))
