"""Golden runs: what a few tiny configs came to. When they move, RESULTS_VERSION must move, too.

The numbers are regression anchors, not science. Tolerance: other processors and versions of torch
round differently (6e-8 a step), and eight steps at lr 0.05 amplify that by less than a thousand.
"""

import pytest
import torch

from bnstudy import data
from bnstudy.config import RESULTS_VERSION, Config
from bnstudy.engine.stack import make_stack
from bnstudy.engine.train import train
from bnstudy.work import build as run

TOLERANCE = 1e-3
CONFIGS = {
    "mlp batch": {"model": {"name": "mlp", "hidden": [8]}},
    "resnet group": {
        "model": {"name": "resnet", "width": 2},
        "norm": {"name": "group", "channels_per_group": 2},
    },
    "lenet ghost adam": {
        "model": {"name": "lenet"},
        "norm": {"name": "ghost", "group_size": 8},
        "optimizer": {"name": "adam", "lr": 0.01, "lr_rule": "none"},
        "data": {"contrast": 1.0, "pixel_noise": 0.1, "train_size": 100},
    },
}
# RESULTS_VERSION -> config -> final training loss of seeds 0 and 1
GOLDEN = {
    4: {
        "mlp batch": [1.9629438, 1.8909051],
        "resnet group": [2.2377775, 2.0859122],
        "lenet ghost adam": [2.1915224, 1.8714278],
    }
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_golden_run_ends_where_it_did(name):
    plain = {
        "train": {"batch_size": 16, "steps": 8},
        "optimizer": {"lr": 0.05, "lr_rule": "none", "schedule": "constant"},
        **CONFIGS[name],
    }
    plain["data"] = {"train_size": 100, **plain.get("data", {})}
    config = Config.model_validate(plain)
    configs = [config.model_copy(update={"seed": s}) for s in (0, 1)]
    examples = data.load_many([(c.data, c.seed) for c in configs])
    nets = [run.build(c, tuple(examples.shape), 10) for c in configs]
    stack = make_stack(nets, torch.device("cpu"), known=True)
    *_, last = train(stack, examples, configs)
    found = [row["train_loss"] for row in last]
    assert found == pytest.approx(GOLDEN[RESULTS_VERSION][name], rel=TOLERANCE), found
