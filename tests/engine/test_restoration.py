"""Restoration: what is measured equals scikit-image's numbers, and seeds stay apart."""

import math

import numpy as np
import pytest
import torch

from bnstudy import data, models
from bnstudy.config import Config, TaskConfig, capabilities
from bnstudy.engine.evaluate import View
from bnstudy.engine.restoration import Restoration, fidelity
from bnstudy.engine.stack import make_stack
from bnstudy.engine.train import train
from bnstudy.engine.widen import Widened
from bnstudy.work.build import anatomy, build, check

metrics = pytest.importorskip("skimage.metrics")
RESTORERS = ("dncnn", "edsr", "unet")
CPU = torch.device("cpu")


def config(network="dncnn", layer="batch", **parts) -> Config:
    tree = {
        "data": {"name": "photos", "degradation": "noise", "patch_size": 16},
        "model": {"name": network, "depth": 3, "width": 4},
        "norm": {"name": layer, "num_groups": 2 if layer == "group" else None},
        "optimizer": {"name": "adam", "lr": 0.01, "lr_rule": "none", "schedule": "constant"},
        "task": {"name": "restoration"},
        "train": {"batch_size": 4, "steps": 3},
        "evaluate": {"large_batch": 8, "precise_examples": 16},
    }
    for part, own in parts.items():
        tree[part] = {**tree[part], **own}
    return Config.model_validate(tree)


def stack_of(cfg: Config, seeds, shape=(1, 16, 16)):
    nets = [build(cfg.model_copy(update={"seed": s}), shape, 256) for s in seeds]
    stack = make_stack(nets, CPU, capabilities.widens(cfg))
    stack.task = Restoration(cfg.task)
    return stack


@pytest.fixture
def small(monkeypatch):
    """The embedded photographs, the test ones cut to 40 x 50 pixels."""
    found = data.load(config().data)
    cut = {p: [i[:, :40, :50] for i in own] for p, own in found.images.items() if p != "train"}
    return data.photographs.replace(found, images={**found.images, **cut})


def test_psnr_and_ssim_of_a_run_are_scikit_images_on_what_the_network_returns(small):
    """Recomputed outside the package, from the plain network and its inputs."""
    cfg = config()
    stack = stack_of(cfg, [0, 1])
    row = list(train(stack, small, [cfg, cfg.model_copy(update={"seed": 1})]))[-1][1]
    net = build(cfg, (1, 16, 16), 256)
    net.load_state_dict(stack.state(1))
    net.eval()
    psnr, ssim, error = [], [], []
    for name, pixels in zip(small.names["test"], small.images["test"], strict=True):
        clean = pixels.numpy() / np.float32(255)
        stream = data.samplers.generator(0, f"degradation {name}")
        noisy = torch.tensor(clean)[None] + 25 / 255 * torch.randn(
            (1, *clean.shape), generator=stream
        )
        with torch.no_grad():
            restored = net(noisy)[0].clamp(0, 1).numpy()
        own = clean[0].astype(float), restored[0].astype(float)
        psnr.append(metrics.peak_signal_noise_ratio(*own, data_range=1))
        ssim.append(
            metrics.structural_similarity(
                *own, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
        )
        error.append(np.square(own[0] - own[1]).mean() / np.square(noisy[0].numpy() - clean).mean())
    # a wide network's convolutions round otherwise: 1e-6 of an output, 1e-4 of an error of a tenth
    assert row["test_psnr"] == pytest.approx(np.mean(psnr), abs=1e-3)
    assert row["test_ssim"] == pytest.approx(np.mean(ssim), abs=1e-4)
    assert row["test_error"] == pytest.approx(np.mean(error), rel=1e-3)


def test_the_error_is_the_part_of_the_degradation_that_is_left():
    clean, noise = torch.rand(6, 2, 1, 16, 16), torch.randn(6, 2, 1, 16, 16)
    y = torch.stack([clean, clean + 0.1 * noise], 2)
    task = Restoration(TaskConfig(name="restoration"))
    loss, error, psnr = task.score(clean + 0.05 * noise, y)
    assert torch.allclose(error, torch.full((2,), 0.25), rtol=1e-4)  # half the amplitude
    assert torch.allclose(psnr, -10 * loss.log10())
    assert torch.allclose(task.score(y[:, :, 1], y)[1], torch.ones(2))
    absolute = Restoration(TaskConfig(name="restoration", loss="l1")).score(clean + 0.5, y)[0]
    assert torch.allclose(absolute, torch.full((2,), 0.5))


def test_equal_images_have_infinite_psnr_and_broken_ones_none():
    image = torch.rand(1, 16, 16)
    assert fidelity(image, image) == (math.inf, pytest.approx(1))
    assert all(map(math.isnan, fidelity(image, image * math.nan)))


@pytest.mark.parametrize("model", RESTORERS)
@pytest.mark.parametrize("norm", ["batch", "group", "instance", "none"])
def test_seeds_in_a_stack_are_the_networks_that_they_are_alone(model, norm, small):
    cfg = config(model, norm)
    seeds = [cfg.model_copy(update={"seed": s}) for s in (0, 1)]
    stack = stack_of(cfg, [0, 1])
    assert isinstance(stack, Widened)
    both = list(train(stack, small, seeds))[-1]
    for own, row in zip(seeds, both, strict=True):
        (alone,) = list(train(stack_of(own, [own.seed]), small, [own]))[-1]
        # Adam divides by a root of squares: rounding of 1e-7 grows to 1e-4 of a step in few steps
        assert row["test_psnr"] == pytest.approx(alone["test_psnr"], abs=0.02)
        assert row["train_loss"] == pytest.approx(alone["train_loss"], rel=1e-3)


@pytest.mark.parametrize("model", RESTORERS)
def test_whole_images_of_odd_sizes_keep_their_size(model):
    cfg = config(model)
    net = build(cfg, (1, 16, 16), 256).eval()
    x = torch.rand(1, 1, 37, 51)
    assert net(x).shape == x.shape


@pytest.mark.parametrize("model", RESTORERS)
def test_without_the_skip_the_input_is_not_added(model):
    plain = config(model, "none", model={"name": model, "residual": False})
    with_skip = config(model, "none", model={"name": model})
    nets = [build(cfg, (1, 16, 16), 256).eval() for cfg in (plain, with_skip)]
    x = torch.rand(2, 1, 16, 16)
    # a body's output of magnitude one, plus x: float32 of the sum
    assert torch.allclose(nets[0](x) + x, nets[1](x), atol=1e-6)


def test_residual_scaling_scales_each_branch():
    cfg = config("edsr", "none", model={"name": "edsr", "residual_scaling": 1e-9})
    other = config("edsr", "none", model={"name": "edsr", "depth": 5, "residual_scaling": 1e-9})
    assert len(models.build(other.model, (1, 16, 16), 256, torch.nn.Identity).body[1]) == 6
    block = models.build(cfg.model, (1, 16, 16), 256, torch.nn.Identity).body[1][0]
    x = torch.rand(1, 4, 8, 8)
    assert torch.allclose(block(x), x)


def test_a_photographs_own_statistics_do_not_depend_on_the_others(small):
    cfg = config()
    stack = stack_of(cfg, [0])
    list(train(stack, small, [cfg]))
    fewer = data.photographs.replace(
        small,
        images={**small.images, "test": small.images["test"][:1]},
        names={**small.names, "test": small.names["test"][:1]},
    )
    with stack.training(False):
        first, one = (View(stack, d, cfg, (0,), None) for d in (small, fewer))
        with first.batch_statistics(1):
            assert first.each("test")[0] == one.each("test")[0]


def test_a_diverged_network_counts_as_its_input():
    task = Restoration(TaskConfig(name="restoration"))
    assert task.diverged("test_error_precise", None) == 1
    assert math.isnan(task.diverged("test_psnr", None))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": {"name": "classification"}}, "choose task=restoration"),
        ({"data": {"degradation": "none"}}, "choose data.degradation=noise"),
        ({"model": {"name": "resnet", "depth": 8}}, "choose model=dncnn, edsr, unet"),
        ({"train": {"classes_per_batch": 2}}, "order images, not photographs"),
        ({"evaluate": {"probes": ["corruptions"]}}, "measures networks on images"),
        ({"train": {"batch_size": 100_000}}, "use at most"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    cfg = config(**change)
    with pytest.raises(ValueError, match=said):
        check(cfg, data.load(cfg.data))


def test_restoration_of_classes_is_refused():
    cfg = Config.model_validate({"task": {"name": "restoration"}})
    with pytest.raises(ValueError, match="learns from photographs"):
        check(cfg, data.load(cfg.data))


def test_too_shallow_a_network_is_refused():
    cfg = config(model={"depth": 2})
    with pytest.raises(ValueError, match="at least 3 layers"):
        anatomy(cfg, data.load(cfg.data))
