"""Which launcher a command gets, and packs through Hydra's own; no process is started."""

import json
import os

import pytest

from bnstudy.config import Config
from bnstudy.config.compose import hydra_session
from bnstudy.errors import UserError
from bnstudy.sweep import cost, launchers
from bnstudy.sweep import hydra_launcher as hydra
from bnstudy.sweep.plan import Plan
from bnstudy.sweep.protocol import Execution, Pack, StackPlan

WORKER = "fake_worker:run_pack"


def plan(*seconds: float) -> Plan:
    stacks = tuple(StackPlan(configs=[Config()], seconds=s) for s in seconds)
    return Plan((Config(),), (0,), stacks, 0)


@pytest.fixture
def composer():
    with hydra_session() as found:
        yield found


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch):
    monkeypatch.setattr("joblib.cpu_count", lambda: 2)
    monkeypatch.setattr(launchers, "threads", lambda: 1)
    monkeypatch.setattr(launchers, "gpu_seen", lambda: False)


@pytest.mark.parametrize(
    ("words", "seconds", "name"),
    [
        ([], [9, 9], "forked"),
        ([], [9], "in_process"),  # one stack is one worker's
        (["workers=1"], [9, 9], "in_process"),
        ([], [cost.FORK / 3] * 2, "in_process"),  # sooner done than a worker is begun
        (["device=cuda"], [9, 9], "spawned"),
        (["hydra/launcher=basic"], [9, 9], "basic"),
        (["hydra/launcher=joblib"], [9, 9], "joblib"),
    ],
)
def test_the_launcher_follows_from_the_command_and_the_plan(composer, words, seconds, name):
    found = hydra.launcher_for(composer.request(words), composer, plan(*seconds))
    assert found.__name__ == name


@pytest.mark.parametrize(
    ("words", "workers"),
    [([], 2), (["workers=1"], 1), (["workers=9"], 2), (["hydra/launcher=basic"], 1),
     (["hydra/launcher=joblib", "workers=9"], 2)],
)  # fmt: skip
def test_this_machine_never_runs_more_workers_than_it_has_cores(composer, words, workers):
    assert hydra.workers_for(composer.request(words)) == workers


@pytest.mark.parametrize("folder", ["plain", "with blank", "it's = (odd), [very]"])
def test_packs_reach_the_worker_through_hydra_wherever_they_lie(composer, tmp_path, folder):
    folder = tmp_path / folder
    folder.mkdir()
    execution = Execution(results_dir=str(folder))
    packs = [Pack(index=i, folder=str(folder), execution=execution, stacks=[]) for i in range(2)]
    for pack in packs:
        pack.write()
    request = composer.request(["hydra/launcher=basic"])
    before = os.environ.get("OMP_NUM_THREADS")
    hydra.hydra_launcher(request, composer, WORKER)(packs)()
    said = [json.loads(path.read_text()) for path in sorted(folder.glob("said-*.json"))]
    assert [s["pid"] for s in said] == [os.getpid()] * 2
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_an_unknown_launcher_is_a_mistake_of_the_command(composer):
    with pytest.raises(UserError, match="no_such_launcher"):
        composer.request(["hydra/launcher=no_such_launcher"])


def test_an_estimate_grows_with_steps_networks_and_probes():
    def seconds(networks=8, **more):
        config = Config.model_validate({"model": {"name": "mlp"}, "train": {"steps": 100}, **more})
        return cost.seconds(config, anatomy, networks)

    from bnstudy.work.build import Anatomy

    layers = [{"norm": "batch", "positions": 1}]
    anatomy = Anatomy(layers, 5, 5000, 640, 600, 400, 900, 10)
    base = seconds()
    assert base > cost.STACK
    assert seconds(train={"steps": 200}) > base
    assert seconds(networks=16) > base
    assert seconds(evaluate={"probes": ["corruptions"]}) > base
    assert seconds(train={"steps": 100, "processes": 2}) > base
