"""Probes of photographs say what they say they measure, and change nothing."""

import numpy as np
import pytest
import torch

from bnstudy import data, probes
from bnstudy.config import Config
from bnstudy.engine.evaluate import View
from bnstudy.engine.restoration import Restoration
from bnstudy.engine.stack import make_stack
from bnstudy.engine.train import train
from bnstudy.probes.photographs import BLOCK, _even, non_local_means
from bnstudy.work.build import build

pytest.importorskip("skimage")
CPU = torch.device("cpu")
OWN = [n for n, p in probes.PROBES.items() if p.entry.startswith("bnstudy.probes.photographs:")]


def config(norm="batch", residual=True) -> Config:
    return Config.model_validate(
        {
            "data": {"name": "photos", "degradation": "noise", "patch_size": 16},
            "model": {"name": "dncnn", "depth": 3, "width": 4, "residual": residual},
            "norm": {"name": norm},
            "optimizer": {"name": "adam", "lr": 0.01, "lr_rule": "none"},
            "task": {"name": "restoration"},
            "train": {"batch_size": 4, "steps": 2},
            "evaluate": {"large_batch": 8, "precise_examples": 16},
        }
    )


@pytest.fixture(scope="module")
def small():
    """Photographs of 48 x 48 pixels; half of the test ones are of another folder."""
    found = data.load(config().data)
    images = {part: [i[:, :48, :48] for i in own] for part, own in found.images.items()}
    names = {**found.names, "test": ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]}
    tiles = torch.arange(len(images["train"])).repeat_interleave(9)
    return data.photographs.replace(found, images=images, names=names, owner=tiles)


def trained(cfg, dataset, names):
    configs = [cfg.model_copy(update={"seed": s}) for s in (0, 1)]
    stack = make_stack([build(c, (1, 16, 16), 256) for c in configs], CPU, known=True)
    stack.task = Restoration(cfg.task)
    *_, rows = train(stack, dataset, configs, probes.find(names))
    return stack, rows


@pytest.mark.parametrize("norm", ["batch", "none"])
def test_they_leave_the_training_as_it_is(small, norm):
    plain, rows = trained(config(norm), small, ())
    probed, more = trained(config(norm), small, OWN)
    assert torch.equal(plain.flat, probed.flat)
    for name, buffer in plain.buffers.items():
        assert torch.equal(buffer, probed.buffers[name]), name
    for row, other in zip(rows, more, strict=True):
        assert {k: other[k] for k in row} == row
        assert ("whole_psnr" in other) is (norm == "batch")


def test_the_mean_over_images_and_folders_is_that_of_the_run(small):
    _, rows = trained(config(), small, ["photographs", "intensity"])
    for row in rows:
        each = [row[f"psnr/{name}"] for name in small.names["test"]]
        assert np.mean(each) == pytest.approx(row["test_psnr"], abs=1e-4)  # float32 of 30 dB
        assert np.mean(each[:2]) == pytest.approx(row["psnr_of/a"], abs=1e-4)
        # contrast 1 is the photographs as they are
        assert row["psnr_contrast/100"] == pytest.approx(row["test_psnr"], abs=1e-3)


def test_instance_norm_without_a_skip_cannot_know_the_mean(small):
    """Its output has one mean, whatever the image's: over means apart by 0.5 it is off by 64."""
    _, rows = trained(config("instance", residual=False), small, ["intensity"])
    for row in rows:
        low, high = row["offset_mean/025"], row["offset_mean/075"]
        assert low + high > 0.9 * 127.5  # the first layer sees the mean at the border alone


def test_baselines_are_scikit_images_and_better_than_the_input(small):
    metrics = pytest.importorskip("skimage.metrics")
    _, rows = trained(config(), small, ["baselines"])
    found = []
    for degraded, target in small.whole("test"):
        pair = target[0, 0].double().numpy(), degraded[0].double().numpy().clip(0, 1)
        found.append(metrics.peak_signal_noise_ratio(*pair, data_range=1))
    assert rows[0]["input_psnr"] == pytest.approx(np.mean(found), abs=1e-4)
    assert rows[0]["nlm_psnr"] > rows[0]["input_psnr"] + 2
    assert rows[0]["nlm_psnr"] == rows[1]["nlm_psnr"]


@pytest.mark.parametrize("channels", [1, 3])
def test_non_local_means_keep_the_shape(channels):
    noisy = np.random.default_rng(0).normal(0.5, 0.1, (channels, 24, 30))
    smooth = non_local_means(noisy, 0.1)
    assert smooth.shape == noisy.shape
    assert smooth.std() < noisy.std()


def test_blotches_are_even_errors_and_nothing_else():
    clean = torch.rand(1, 1, 1, 4 * BLOCK, 4 * BLOCK)
    y = torch.stack([clean, clean], 2)
    checked = torch.ones(BLOCK, BLOCK)
    checked[::2] *= -1
    checked[:, ::2] *= -1
    fine = 0.1 * checked.repeat(4, 4)
    # float32: a mean of 256 numbers near one, in grey levels of 255
    assert float(_even(clean + fine, y)) == pytest.approx(0, abs=1e-4)
    assert float(_even(clean + 0.1, y)) == pytest.approx(25.5, abs=1e-4)


def test_whole_statistics_are_those_of_all_training_pixels(small):
    """With one norm: its population statistics are the moments of what it sees, whole images."""
    cfg = config()
    stack, _ = trained(cfg, small, ())
    seen = []
    layer = stack.net.body[3]
    hook = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    with stack.training(False):
        for degraded, _ in small.whole("train"):
            stack.predict(degraded[:, None].expand(-1, 2, *degraded.shape[1:]))
    hook.remove()
    pixels = torch.cat([x.transpose(0, 1).flatten(1) for x in seen], 1).double()
    wanted = {"running_mean": pixels.mean(1), "running_var": pixels.var(1, unbiased=False)}
    used = {}
    view = View(stack, small, cfg, (0, 1), None)
    real = view.measures

    def measures(part):
        used.update({name: b.clone() for name, b in stack.buffers.items()})
        return real(part)

    view.measures = measures
    probes.PROBES["whole_statistics"].measure(view)
    for name, value in wanted.items():
        # float32 buffers of numbers near one
        assert torch.allclose(used[f"body.3.{name}"].double(), value, rtol=1e-5, atol=1e-6)
