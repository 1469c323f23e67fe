"""What outputs owe to the batch and to the contrast, on networks where that is known."""

from types import SimpleNamespace

import pytest
import torch

from bnstudy import norms
from bnstudy.config import Config
from bnstudy.data.photographs import Photographs
from bnstudy.engine.evaluate import View
from bnstudy.engine.stack import make_stack
from bnstudy.models.stylizer import Stylizer
from bnstudy.probes import style


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    config = Config.model_validate({"data": {"name": "photos", "patch_size": 16}}).data
    torch.manual_seed(0)
    images = [(255 * torch.rand(1, 32, 48)).byte(), (255 * torch.rand(1, 48, 32)).byte()]
    names = ["one", "two"]
    parts = ("train", "val", "test")
    return Photographs(
        config, dict.fromkeys(parts, images), dict.fromkeys(parts, names), torch.zeros(9).long()
    )


def view(photographs, norm: str, size: int, seeds=2, **settings) -> View:
    nets = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        nets.append(Stylizer(1, 4, 1, norms.make(norm, **settings)))
    config = Config.model_validate({"train": {"batch_size": size, "steps": 1}})
    stack = make_stack(nets, torch.device("cpu"), known=True)
    return View(stack, photographs, config, tuple(range(seeds)), SimpleNamespace())


def test_companions_change_what_batch_norm_puts_out_and_nothing_else(photographs):
    found = {n: style.companions(view(photographs, n, 4)) for n in ("batch", "instance", "none")}
    assert found["batch"]["companion_change"].min() > 0.1
    for norm in ("instance", "none"):  # float32, of 255 levels: rounding is 1e-4
        assert found[norm]["companion_change"].max() < 1e-2


def test_an_image_alone_has_no_companions(photographs):
    found = style.companions(view(photographs, "batch", 1))
    assert found["companion_change"].max() < 1e-2


def test_the_contrast_is_lost_by_instance_norm_only(photographs):
    instance = style.companions(view(photographs, "instance", 2))["contrast_change"]
    batch = style.companions(view(photographs, "batch", 2))["contrast_change"]
    assert instance.max() < 0.1  # eps is 1e-4 of the variance of these images' first maps
    assert batch.min() > 10 * instance.max()


def test_the_probe_leaves_the_network_as_it_is(photographs):
    own = view(photographs, "batch", 4)
    before = {name: b.clone() for name, b in own.stack.buffers.items()}
    style.companions(own)
    assert all(torch.equal(b, before[name]) for name, b in own.stack.buffers.items())
    assert own.stack.net.training


def test_the_course_is_the_mean_of_each_twentieth():
    losses = torch.arange(40.0).repeat(2, 1) * torch.tensor([[1.0], [2.0]])
    found = style.loss_course(SimpleNamespace(losses=losses))
    assert list(found) == [f"loss_course/{i:02d}" for i in range(1, 21)]
    assert found["loss_course/01"].tolist() == [0.5, 1.0]
    assert found["loss_course/20"].tolist() == [38.5, 77.0]


def test_tiles_are_the_whole_patches_of_each_image():
    image = torch.arange(40.0).view(1, 5, 8)
    found = style.tiles([image], 2)
    assert found.shape == (8, 1, 2, 2)
    assert torch.equal(found[5, 0], image[0, 2:4, 2:4])
