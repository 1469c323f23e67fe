"""Several processes against one: the same steps where statistics are shared, others where not."""

import os
import signal
import time

import pytest
import torch
from joblib import Parallel, delayed

from bnstudy.config import Config
from bnstudy.data import Dataset
from bnstudy.engine.distributed import Shard, together
from bnstudy.engine.train import train
from bnstudy.engine.widen import Widened
from bnstudy.errors import UserError
from bnstudy.work import build as run

pytestmark = pytest.mark.slow  # every process starts torch: 5 s and more


def config(model, processes, sync):
    return Config.model_validate(
        {
            "model": {"name": model, "hidden": (8, 6), "width": 2},
            "norm": {"sync": sync},
            "optimizer": {"lr": 0.1, "lr_rule": "none", "schedule": "constant"},
            "train": {"batch_size": 8, "steps": 5, "processes": processes},
        }
    )


def wide_data():
    g = torch.Generator().manual_seed(0)
    x = 3 + 2 * torch.randn(60, 1, 8, 8, generator=g, dtype=torch.float64)
    y = torch.randint(0, 3, (60,), generator=g)
    return Dataset(x[:40], y[:40], x[40:50], y[40:50], x[50:], y[50:], 3)


def five_steps(shard, tell, model, processes, sync):
    """Weights and buffers after five steps in float64, two seeds in a stack."""
    configs = [config(model, processes, sync).model_copy(update={"seed": s}) for s in (0, 1)]
    dataset = wide_data()
    nets = [run.build(c, tuple(dataset.shape), 3).double() for c in configs]
    stack = Widened(nets, torch.device("cpu"))
    for _ in train(stack, dataset, configs, shard=shard):
        pass
    yield {
        "flat": stack.flat.tolist(),
        **{k: b.flatten().tolist() for k, b in stack.buffers.items()},
    }


def found(model, processes, sync):
    if processes == 1:
        (result,) = five_steps(Shard(), lambda what: None, model, 1, sync)
    else:
        said = together(processes, five_steps, model, processes, sync)
        (result,) = [what for kind, what in said if kind == "item"]
    return {k: torch.tensor(v, dtype=torch.float64) for k, v in result.items()}


@pytest.mark.parametrize("model", ["mlp", "resnet"])
@pytest.mark.parametrize("processes", [2, 4])
def test_synchronised_processes_are_one_process(model, processes):
    """Five steps in float64: weights and buffers, and without synchronisation not.

    Rounding 1e-16 through five steps, amplified by 1 / std of small batches: 1e-10 is 1e6 of it.
    """
    one, many = found(model, 1, False), found(model, processes, True)
    assert one.keys() == many.keys()
    for name, value in one.items():
        assert torch.allclose(many[name], value, rtol=1e-10, atol=1e-10), name
    apart = found(model, processes, False)
    assert (apart["flat"] - one["flat"]).abs().max() > 1e-3


def fails_on_one(shard, tell):
    yield 1
    if shard.rank == 1:
        raise ValueError("what went wrong")
    yield 2


def dies_on_one(shard, tell):
    yield 1
    if shard.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    yield 2


@pytest.mark.parametrize(("work", "said"), [(fails_on_one, "what went wrong"),
                                            (dies_on_one, "died")])  # fmt: skip
def test_a_process_that_fails_is_named_and_the_others_end(work, said):
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=f"(?s)process 1 of 2.*{said}"):
        list(together(2, work))
    assert time.monotonic() - begin < 60, "nobody waits for the time limit"


def ranks(shard, tell):
    yield shard.world


def test_processes_start_inside_a_worker_too():
    found = Parallel(n_jobs=2)(delayed(lambda: list(together(2, ranks)))() for _ in range(2))
    assert found == [[("item", 2)]] * 2


def test_what_has_no_statistics_to_share_is_refused():
    cfg = config("mlp", 2, True)
    layer = cfg.norm.model_copy(update={"name": "layer"})
    with pytest.raises(UserError, match=r"norm\.sync=true: layer norm"):
        run.check(cfg.model_copy(update={"norm": layer}), wide_data())
