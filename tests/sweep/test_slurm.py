"""What is made of Slurm's answers, and when a job goes back to the queue; no Slurm is needed."""

import time
from contextlib import nullcontext

import pytest

from bnstudy.config import Config
from bnstudy.config.compose import hydra_session
from bnstudy.errors import UserError
from bnstudy.sweep import hydra_launcher as hydra
from bnstudy.sweep import slurm
from bnstudy.sweep.begin import describe, new_folder
from bnstudy.sweep.launch import launch
from bnstudy.sweep.plan import fill
from bnstudy.sweep.protocol import (
    Execution,
    Job,
    Launch,
    Pack,
    StackPlan,
    StackStatus,
    State,
    Status,
    launches_dir,
    stop_file,
)


def stack(index: int, seconds: float = 10) -> StackPlan:
    config = Config.model_validate({"train": {"batch_size": 2 + index, "steps": 1}})
    return StackPlan(configs=[config], seconds=seconds)


def states(text: str, packs: int, **before: Job) -> dict[int, str]:
    known = {int(k.removeprefix("_")): job for k, job in before.items()}
    return {i: job.state for i, job in slurm._jobs(text, "mine", packs, known).items()}


def test_an_array_is_read_by_index_and_other_launches_are_left_out():
    text = "mine|7|0|RUNNING|None\nother|8|0|FAILED|x\nmine|7|1|PENDING|Resources\n"
    assert states(text, 2) == {0: "RUNNING", 1: "PENDING"}
    assert slurm._jobs(text, "mine", 2, {})[1] == Job(id="7_1", state="PENDING", reason="Resources")


def test_a_row_without_an_index_is_about_all_that_have_none():
    """A job that is no array; the part of an array that was cancelled in the queue."""
    assert states("mine|7|N/A|RUNNING|None\n", 1) == {0: "RUNNING"}
    text = "mine|7|1|COMPLETED|None\nmine|7|N/A|CANCELLED|None\n"
    assert states(text, 3) == {0: "CANCELLED", 1: "COMPLETED", 2: "CANCELLED"}


def test_what_slurm_has_forgotten_keeps_its_end_or_is_gone():
    ended, running = Job(id="7_0", state="TIMEOUT"), Job(id="7_1", state="RUNNING")
    assert states("", 2, _0=ended, _1=running) == {0: "TIMEOUT", 1: "GONE"}
    assert not Job(id="7_1", state="GONE").alive


def test_without_an_answer_nothing_is_submitted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.look([]) == {}
    folder, cluster = begun(tmp_path, [stack(0)]), slurm.Slurm(SETTINGS)
    with pytest.raises(UserError, match=r"no squeue here.*nothing is submitted"):
        cluster.underway(folder.parent)


SETTINGS = {"timeout_min": 60, "signal_delay_s": 120}


def begun(results, stacks: list[StackPlan], jobs: dict[int, str] | None = None):
    """The folder of a launch on a cluster, with a pack for each stack."""
    folder = new_folder(launches_dir(results))
    execution = Execution(results_dir=str(results), launcher=slurm.NAME)
    packs = [
        Pack(index=i, folder=str(folder), execution=execution, stacks=[plan])
        for i, plan in enumerate(stacks)
    ]
    for pack in packs:
        pack.write()
    states = {i: Job(id=str(i), state=state) for i, state in (jobs or {}).items()}
    describe(packs, folder.name).model_copy(update={"jobs": states}).write(folder)
    return folder


class Queue:
    """A cluster whose jobs are over when they are waited for."""

    def __init__(self, store: set[str], folders) -> None:
        self.store, self.folders, self.submitted = store, folders, []

    def __call__(self, packs):
        self.submitted.append([plan.name for pack in packs for plan in pack.stacks])
        return self.following([])

    def sole(self, launches):
        return slurm.Slurm(SETTINGS).sole(launches)

    def underway(self, launches):
        return self.folders

    def following(self, folders):
        def wait():
            packs = [Pack.read(p) for f in folders for p in f.glob("pack-*.json")]
            self.store |= {a for pack in packs for plan in pack.stacks for a in plan.addresses}

        return wait


def run(tmp_path, stacks, queue, watched=None):
    def watch(folders):
        (watched if watched is not None else []).extend(folders)
        return nullcontext()

    return launch(
        stacks,
        Execution(results_dir=str(tmp_path), launcher=slurm.NAME),
        queue,
        divide=lambda plans: [[plan] for plan in plans],
        held=lambda cells: queue.store,
        watch=watch,
        say=lambda text: None,
    )


def test_what_a_live_job_has_is_waited_for_and_not_submitted(tmp_path):
    queued, over, new = stack(0), stack(1), stack(2)
    folder = begun(tmp_path, [queued, over], {0: "PENDING", 1: "CANCELLED"})
    queue, watched = Queue(set(), [folder]), []
    outcome = run(tmp_path, [queued, over, new], queue, watched)
    assert outcome.complete
    assert queue.submitted == [[over.name, new.name]]
    assert folder in watched
    assert len(watched) == 2
    assert Launch.read(folder).ended
    assert {Launch.read(f).sweep for f in watched} == {folder.name}, "one sweep for who looks on"


def test_what_a_job_stored_since_the_plan_was_made_is_not_submitted(tmp_path):
    stored = stack(0)
    queue = Queue(set(stored.addresses), [])
    assert run(tmp_path, [stored], queue).complete
    assert queue.submitted == []


@pytest.mark.parametrize("state", [State.DONE, State.FAILED])
def test_what_a_live_job_is_through_with_is_not_waited_for(tmp_path, state):
    """The stack failed there, or its records were removed since: the command wants it trained."""
    plan = stack(0)
    folder = begun(tmp_path, [plan], {0: "RUNNING"})
    Status(stacks={plan.name: StackStatus(state=state)}).write(folder, 0)
    queue = Queue(set(), [folder])
    run(tmp_path, [plan], queue)
    assert queue.submitted[0] == [plan.name]


def test_a_job_that_was_interrupted_goes_back_to_the_queue(tmp_path):
    one, two = stack(0), stack(1)
    folder = begun(tmp_path, [one])
    pack = Pack.read(Pack.path_of(folder, 0)).model_copy(update={"stacks": [one, two]})
    assert not slurm.interrupted(pack), "its worker never began: again would be the same"
    done = StackStatus(state=State.DONE)
    Status(stacks={one.name: done}).write(folder, 0)
    assert slurm.interrupted(pack)
    Status(stacks={one.name: done, two.name: StackStatus(state=State.FAILED)}).write(folder, 0)
    assert not slurm.interrupted(pack), "all was tried"
    Status(stacks={one.name: StackStatus(state=State.STOPPED)}).write(folder, 0)
    assert slurm.interrupted(pack)
    late = pack.execution.model_copy(update={"deadline": time.time() - 1})
    assert not slurm.interrupted(pack.model_copy(update={"execution": late}))
    stop_file(folder).touch()
    assert not slurm.interrupted(pack), "by the person who waits"


@pytest.mark.parametrize(
    ("answer", "restarts", "asked"),
    [("RUNNING", "0", [["scontrol", "requeue", "7_3"]]),
     ("COMPLETING", "0", []),  # cancelled: whoever did that does not want it back
     ("RUNNING", "20", [])],
)  # fmt: skip
def test_a_job_requeues_itself_and_no_other_of_its_array(monkeypatch, answer, restarts, asked):
    said, ran = [], []
    for name, value in {"ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "3", "JOB_ID": "7",
                        "RESTART_COUNT": restarts}.items():  # fmt: skip
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(slurm, "_squeue", lambda *words: said.append(words) or f"{answer}\n")
    monkeypatch.setattr(slurm.subprocess, "run", lambda words, **_: ran.append(words))
    slurm.requeue()
    assert ran == asked
    assert all("--jobs=7_3" in words for words in said)


@pytest.mark.parametrize(
    ("seconds", "packs"),
    [([30, 30, 30, 30], [2, 2]), ([90, 10, 10], [1, 2]), ([50, 40, 20, 10], [2, 2]), ([], [])],
)
def test_short_stacks_share_a_job_of_some_minutes(seconds, packs):
    found = fill([stack(i, s) for i, s in enumerate(seconds)], minutes=1)
    assert [len(pack) for pack in found] == packs
    assert all(len(p) == 1 or sum(s.seconds for s in p) <= 60 for p in found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["launcher.gpus=1"], r"launcher.gpus .* needs hydra/launcher=submitit_slurm"),
        (["hydra/launcher=joblib", "launcher.partition=x"], "here the launcher is 'joblib'"),
    ],
)
def test_settings_of_jobs_need_a_cluster(words, message):
    with hydra_session() as composer, pytest.raises(UserError, match=message):
        hydra.check(composer.request(words))


def test_to_detach_needs_a_cluster():
    with hydra_session() as composer, pytest.raises(UserError, match="--detach needs jobs that"):
        hydra.check(composer.request([]), detach=True)


def test_jobs_that_would_be_warned_at_their_start_are_refused():
    with pytest.raises(UserError, match=r"launcher\.time_minutes=8 or more"):
        slurm.Slurm({"timeout_min": 3, "signal_delay_s": 120})


def test_settings_reach_submitit_by_its_own_names():
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ["hydra/launcher=submitit_slurm", "launcher.partition=gpu", "launcher.gpus=2",
             "launcher.memory_gb=8", "launcher.time_minutes=90", "workers=3",
             "hydra.launcher.qos=low"]  # fmt: skip
    with hydra_session() as composer:
        found = hydra.slurm_launcher(composer.request(words)).settings
        with pytest.raises(UserError, match="minutes_per_job=90 is more than the 60 minutes"):
            hydra.check(composer.request([words[0], "launcher.minutes_per_job=90"]))
    wanted = {"partition": "gpu", "gpus_per_node": 2, "mem_gb": 8, "timeout_min": 90,
              "array_parallelism": 3, "qos": "low"}  # fmt: skip
    assert wanted.items() <= found.items()
    assert found["additional_parameters"] == {"requeue": True}
