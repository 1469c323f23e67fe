"""What becomes of stacks, with launchers that fail, kill, hang and return in every order.

No process is started: a launcher is a function of packs, and the tests bring their own.
"""

import itertools
import time
from collections.abc import Callable, Collection
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import pytest

from bnstudy.config import Config
from bnstudy.errors import UserError
from bnstudy.sweep.launch import RELAUNCHES, Outcome, launch
from bnstudy.sweep.plan import balance
from bnstudy.sweep.protocol import (
    Execution,
    Pack,
    StackPlan,
    StackStatus,
    State,
    Status,
    stop_file,
)


def stack(index: int, networks: int = 2) -> StackPlan:
    """A stack of a cell of its own; longer ones come first in a pack."""
    config = Config.model_validate({"train": {"batch_size": 2 + index, "steps": 1}})
    configs = [config.model_copy(update={"seed": s}) for s in range(networks)]
    return StackPlan(configs=configs, seconds=100 - index)


class Lab:
    """A store, workers and a launcher whose every stack does what a script says.

    script[stack's name] is a list of deeds, one for each launch: 'done', 'fails', 'dies' (in the
    middle), 'vanishes' (its worker dies before it begins), 'waits' (is stopped), 'removed' (done,
    and somebody removes it).
    """

    def __init__(self, stacks: list[StackPlan], script: dict[str, list[str]]) -> None:
        self.stacks, self.script = stacks, {k: list(v) for k, v in script.items()}
        self.there: set[str] = set()
        self.notes: list[str] = []
        self.launched: list[list[str]] = []

    def held(self, cells: Collection[str]) -> set[str]:
        known = {c.address: c.cell for plan in self.stacks for c in plan.configs}
        return {a for a in self.there if known[a] in cells}

    def worker(self, pack: Pack) -> bool:
        """Whether it lived to the end of its pack."""
        status = Status()
        for plan in pack.stacks:
            deed = self.script[plan.name].pop(0)
            if deed == "vanishes":
                return False
            status.stacks[plan.name] = StackStatus(state=State.RUNNING)
            status.write(pack.folder, pack.index)
            if deed == "dies":
                return False
            if deed in ("done", "removed"):
                if deed == "done":
                    self.there |= set(plan.addresses)
                own = StackStatus(state=State.DONE)
            elif deed == "fails":
                own = StackStatus(state=State.FAILED, error=f"boom in {plan.label}")
            else:
                assert stop_file(pack.folder).exists(), "it waits for a stop that never came"
                own = StackStatus(state=State.STOPPED)
            status.stacks[plan.name] = own
            status.write(pack.folder, pack.index)
            if own.state is State.STOPPED:
                break
        return True

    def launcher(self, packs: list[Pack]) -> Callable[[], None]:
        self.launched.append([plan.name for pack in packs for plan in pack.stacks])
        return lambda: self.work(packs)

    def work(self, packs: list[Pack]) -> None:
        lived = [self.worker(pack) for pack in packs]
        if not all(lived):
            raise BrokenProcessPool("a worker was killed")

    def launch(self, tmp_path: Path, workers: int = 2, **more) -> Outcome:
        execution = Execution(results_dir=str(tmp_path), **more.pop("execution", {}))
        settings = {"launcher": self.launcher, "watch": lambda folders: nullcontext(), **more}
        return launch(
            self.stacks, execution, divide=partial(balance, workers=workers), held=self.held,
            say=self.notes.append, **settings,
        )  # fmt: skip


DEEDS = ("done", "fails", "dies", "vanishes")


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("deeds", list(itertools.product(DEEDS, repeat=3)))
def test_every_stack_ends_in_the_one_state_it_earned(deeds, workers, tmp_path):
    """All orders of what three stacks do at their first launch; launched again, they work."""
    stacks = [stack(i) for i in range(3)]
    # a stack behind one that died is not reached at that launch and does its deed at the next
    again = [*deeds, "done", "done", "done"]
    script = {s.name: [deed, *again[3:]] for s, deed in zip(stacks, deeds, strict=True)}
    lab = Lab(stacks, script)
    outcome = lab.launch(tmp_path, workers)
    states = {fate.plan.name: fate.state for fate in outcome.stacks}
    for plan, deed in zip(stacks, deeds, strict=True):
        state = states[plan.name]
        if deed == "fails":
            assert state is State.FAILED
        elif state is not State.DONE:  # killed at all of its launches, by itself or a neighbour
            assert state is State.DIED
    assert outcome.trained == sum(2 for s in states.values() if s is State.DONE)
    assert outcome.trained == len(lab.there)
    assert outcome.complete == (set(states.values()) == {State.DONE})
    assert sum(outcome.counts.values()) == 3


def test_a_stack_that_failed_stays_failed_while_another_workers_death_is_mended(tmp_path):
    """Its failure must survive the second launch, in which it has no part."""
    bad, good, third = stack(0), stack(1), stack(2)
    script = {bad.name: ["fails"], good.name: ["dies", "done"], third.name: ["done"]}
    lab = Lab([bad, good, third], script)
    outcome = lab.launch(tmp_path, workers=3)
    (failed,) = outcome.of(State.FAILED)
    assert failed.plan is bad
    assert failed.error == f"boom in {bad.label}"
    assert failed.launches == 1
    assert outcome.trained == 4
    assert not outcome.complete
    assert lab.launched[1] == [good.name]
    assert lab.notes == [
        "the launcher ended early: BrokenProcessPool: a worker was killed",
        "1 stack missing because a worker died: launching again",
    ]


def test_what_always_dies_is_launched_three_times_and_reported(tmp_path):
    lab = Lab([stack(0)], {stack(0).name: ["dies"] * 9})
    (fate,) = lab.launch(tmp_path).stacks
    assert (fate.state, fate.launches) == (State.DIED, 1 + RELAUNCHES)
    assert len(lab.launched) == 3


def test_a_worker_that_ends_quietly_without_its_work_has_died(tmp_path):
    """A launcher that returns, as Slurm's does, although nothing came of a job."""
    lab = Lab([stack(0)], {stack(0).name: ["done"]})
    calls = []

    def launcher(packs):
        calls.append(packs)
        return lab.launcher(packs) if len(calls) == 2 else lambda: None

    outcome = lab.launch(tmp_path, launcher=launcher)
    assert outcome.complete
    assert outcome.stacks[0].launches == 2


def test_a_worker_that_hangs_is_stopped_by_the_stop_file_and_not_launched_again(tmp_path):
    running, waiting = stack(0), stack(1)
    lab = Lab([running, waiting], {running.name: ["waits"], waiting.name: ["done"]})

    @contextmanager
    def ctrl_c(folders):
        stop_file(folders[0]).touch()
        yield

    outcome = lab.launch(tmp_path, workers=1, watch=ctrl_c)
    assert [fate.state for fate in outcome.stacks] == [State.STOPPED, State.STOPPED]
    assert len(lab.launched) == 1
    assert outcome.trained == 0


def test_what_was_killed_during_a_stop_has_died_and_is_not_launched_again(tmp_path):
    lab = Lab([stack(0)], {stack(0).name: ["dies"]})

    @contextmanager
    def ctrl_c(folders):
        stop_file(folders[0]).touch()
        yield

    (fate,) = lab.launch(tmp_path, watch=ctrl_c).stacks
    assert (fate.state, fate.launches) == (State.DIED, 1)


def test_after_the_deadline_nothing_is_launched_again(tmp_path):
    first, second = stack(0), stack(1)
    lab = Lab([first, second], {first.name: ["done"], second.name: ["vanishes"]})
    past = {"deadline": time.time() - 1}
    outcome = lab.launch(tmp_path, workers=1, execution=past)
    assert [fate.state for fate in outcome.stacks] == [State.DONE, State.STOPPED]
    assert len(lab.launched) == 1


def test_what_somebody_else_stored_is_done_even_if_ours_failed(tmp_path):
    """Two sweeps may share a store: what counts is that the runs are there."""
    lab = Lab([stack(0)], {stack(0).name: ["fails"]})

    def launcher(packs):
        def wait():
            lab.work(packs)
            lab.there |= set(stack(0).addresses)

        return wait

    assert lab.launch(tmp_path, launcher=launcher).complete


def test_half_a_stack_is_not_done(tmp_path):
    lab = Lab([stack(0)], {stack(0).name: ["dies"] * 3})
    lab.there = set(stack(0).addresses[:1])
    (fate,) = lab.launch(tmp_path).stacks
    assert fate.state is State.DIED


@pytest.mark.parametrize("times", [1, 3])
def test_what_was_stored_and_removed_is_trained_again_and_no_worker_is_said_to_have_died(
    tmp_path, times
):
    gone, stays = stack(0), stack(1)
    script = {gone.name: ["removed"] * times + ["done"], stays.name: ["done"]}
    lab = Lab([gone, stays], script)
    outcome = lab.launch(tmp_path)
    state = State.DONE if times == 1 else State.REMOVED
    assert [fate.state for fate in outcome.stacks] == [state, State.DONE]
    assert lab.launched[1:] == [[gone.name]] * min(times, RELAUNCHES)
    again = "1 stack missing because what was stored is gone again (bnstudy rm, or damage)"
    assert lab.notes == [f"{again}: launching again"] * min(times, RELAUNCHES)


def test_a_launcher_whose_workers_never_begin_is_told_in_full_and_not_tried_again(tmp_path):
    calls = []

    def launcher(packs):
        calls.append(packs)
        raise RuntimeError("Could not detect srun, are you indeed on a slurm cluster?")

    outcome = Lab([stack(0)], {}).launch(tmp_path, launcher=launcher)
    assert outcome.launcher_error == (
        "RuntimeError: Could not detect srun, are you indeed on a slurm cluster?"
    )
    assert [fate.state for fate in outcome.stacks] == [State.PLANNED]
    assert len(calls) == 1


def test_a_worker_that_fails_as_a_whole_fails_its_stacks_with_its_reason(tmp_path):
    one, two = stack(0), stack(1)
    lab = Lab([one, two], {})

    def launcher(packs):
        for pack in packs:
            status = Status(error="no device" if pack.index == 0 else "")
            if pack.index == 1:
                lab.there |= set(pack.stacks[0].addresses)
            status.write(pack.folder, pack.index)
        return lambda: None

    outcome = lab.launch(tmp_path, launcher=launcher)
    assert {(f.state, f.error) for f in outcome.stacks} == {
        (State.FAILED, "no device"),
        (State.DONE, ""),
    }


def test_a_mistake_of_the_person_and_an_interrupt_pass_through(tmp_path):
    for error in (UserError("no such launcher"), KeyboardInterrupt()):

        def launcher(packs, error=error):
            raise error

        with pytest.raises(type(error)):
            Lab([stack(0)], {}).launch(tmp_path, launcher=launcher)


def test_launching_prints_nothing(tmp_path, capfd):
    stacks = [stack(i) for i in range(3)]
    deeds = [["fails"], ["dies"] * 3, ["done"]]
    Lab(stacks, {s.name: d for s, d in zip(stacks, deeds, strict=True)}).launch(tmp_path)
    assert capfd.readouterr() == ("", "")
