"""W&B's bad days, from the command line: the work is whole, soon done, and pushed later."""

import json
import os
import re
import shutil
import socket
import time
from pathlib import Path

import pytest
from shell import TINY, bnstudy_, own_folder, process, said
from wandb_server import WandbServer

from bnstudy.config import TrackerConfig
from bnstudy.errors import UserError
from bnstudy.store import Store
from bnstudy.tracking import environment, pushed, server, session

__all__ = ["own_folder"]  # a fixture that acts by being here

KEY = "0123456789abcdef" * 2 + "01234567"
WORDS = [word for word in TINY if not word.startswith(("tracker.", "workers="))]
GRID = ["train", "-m", "norm=batch,group,layer", *WORDS]  # three cells, three runs of W&B
# what docs/wandb.md states beside the time of training: asking, or the timeouts of W&B's client
# (init and finish) with its own slack of 1 to 10 s. Machines are busy: a start is 3 to 10 s
ASKED, TIMEOUTS, BUSY = server.PATIENCE, session.INIT_TIMEOUT + session.FINISH_TIMEOUT, 25.0


def train(mode: str, words=GRID, **env: str) -> tuple[float, str, str]:
    """(seconds, stdout, stderr) of a command that has to end well."""
    begin = time.monotonic()
    running = process(*words, f"tracker.mode={mode}", env=env, stdin=-3)
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, (out, err)
    assert "Traceback" not in err
    return time.monotonic() - begin, out, err


def address() -> str:
    """A server's address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def holding(folder: Path, text: str) -> list[Path]:
    """The files that hold a text."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
    return [p for p in files if text.encode() in p.read_bytes()]


def sync(target: WandbServer) -> tuple[int, str]:
    running = process("sync", env={**target.env, "WANDB_API_KEY": KEY}, stdin=-3)
    out, err = running.communicate(timeout=300)
    assert "Traceback" not in err
    return running.returncode, out + err


def check_pushed_once(folder: Path) -> None:
    """`bnstudy sync` brings three whole runs to a server, and nothing the next time."""
    with WandbServer() as good:
        code, out = sync(good)
        assert (code, "3 of 3 runs pushed" in out) == (0, True), out
        assert len(good.runs) == 3
        for run in good.runs.values():
            assert run["complete"]
            assert len(run["history"]) == 1
            assert "test_error" in run["summary"]
        before = json.dumps(good.runs, default=str)
        code, out = sync(good)
        assert (code, "nothing to push" in out) == (0, True), out
        assert json.dumps(good.runs, default=str) == before


@pytest.mark.slow
@pytest.mark.parametrize("day", ["absent", "503", "hang", "401", "no key"])
def test_a_server_that_takes_nothing_costs_seconds_and_a_line(tmp_path, day):
    whole, _, _ = train("offline", [*GRID, "results_dir=other"])
    with WandbServer(fail_after=0, trouble=day if day in ("503", "401") else "hang") as bad:
        settings = {**bad.env, "WANDB_API_KEY": KEY}
        if day == "no key":
            del settings["WANDB_API_KEY"]
        if day == "absent":
            settings["WANDB_BASE_URL"] = address()
        # joblib's workers are processes, each of which finds out for itself
        words = [*GRID, "hydra/launcher=joblib", "workers=2"] if day == "503" else GRID
        seconds, out, err = train("online", words, **settings)
    assert seconds < whole + ASKED + BUSY
    assert err.count("W&B") == 1, err
    assert "`bnstudy sync` pushes the runs" in err
    store = Store(Path("results/runs"))
    assert len(store.held()) == 6
    assert {r["provenance"]["tracker"].partition(":")[0] for r in store} == {"kept offline"}
    assert "W&B kept offline: " in out
    assert holding(tmp_path, KEY) == []
    check_pushed_once(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["503", "hang"])
@pytest.mark.parametrize("after", [1, 3, 12])
def test_a_server_that_fails_later_costs_its_timeouts_once(tmp_path, trouble, after):
    """After the question, while runs begin, while they are logged."""
    whole, _, _ = train("offline", [*GRID, "results_dir=other"])
    with WandbServer(fail_after=after, trouble=trouble) as bad:
        seconds, _, err = train("online", **{**bad.env, "WANDB_API_KEY": KEY})
    assert seconds < whole + ASKED + TIMEOUTS + BUSY
    assert err.count("W&B") == 1, err
    store = Store(Path("results/runs"))
    assert len(store.held()) == 6
    assert holding(tmp_path, KEY) == []
    with WandbServer() as good:
        code, out = sync(good)
        assert code == 0, out
        # what the failing server took in full is not pushed again
        taken = {name for name, run in bad.runs.items() if run["history"]} - good.runs.keys()
        assert len(taken) + len(good.runs) == 3, (bad.runs, good.runs)
        assert [len(run["history"]) for run in good.runs.values()] == [1] * len(good.runs)
        assert "nothing to push" in sync(good)[1]


@pytest.mark.slow
def test_what_arrived_online_is_not_pushed_again(tmp_path):
    with WandbServer() as good:
        _, _, err = train("online", **{**good.env, "WANDB_API_KEY": KEY})
        assert err == ""
        assert len(good.runs) == 3
        requests = good.requests
        code, out = sync(good)
        assert (code, "nothing to push" in out) == (0, True)
        assert good.requests == requests
    assert holding(tmp_path, KEY) == []


@pytest.mark.slow
def test_sync_without_a_server_says_so_and_keeps_the_runs():
    train("offline")
    with WandbServer(fail_after=0, trouble="hang") as bad:
        begin = time.monotonic()
        code, out = sync(bad)
        assert (code, "nothing was pushed" in out) == (1, True), out
        assert time.monotonic() - begin < ASKED + BUSY
    with WandbServer(fail_after=4) as bad:
        pass
    check_pushed_once(Path())


# ---- sync, in this process


def test_sync_of_nothing_says_so():
    assert "nothing to push" in said(bnstudy_("sync"))


def test_sync_without_a_key_is_one_message():
    pytest.importorskip("wandb")
    run = Path("results/wandb/wandb/offline-run-1-a")
    run.mkdir(parents=True)
    (run / "run-a.wandb").touch()
    result = bnstudy_("sync")
    assert result.exit_code == 2
    assert "no API key" in result.stderr


@pytest.mark.parametrize("words", [["results_dir=nowhere"], ["seeds=3"]])
def test_sync_refuses_what_it_does_not_know(words):
    result = bnstudy_("sync", *words)
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr


def test_a_run_that_is_being_written_is_not_pushed(tmp_path):
    run = tmp_path / "wandb/offline-run-1-a"
    run.mkdir(parents=True)
    log = run / "run-a.wandb"
    log.touch()
    assert pushed.waiting(tmp_path) == ([log], 0)
    pid = os.fork()
    if pid == 0:
        pushed.hold(run)
        (run / "held").touch()
        time.sleep(30)
        os._exit(0)
    try:
        while not (run / "held").exists():
            time.sleep(0.01)
        assert pushed.waiting(tmp_path) == ([], 1)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert pushed.waiting(tmp_path) == ([log], 0), "the lock ends with its process"
    pushed.marker(log).touch()
    assert pushed.waiting(tmp_path) == ([], 0)


def test_a_push_that_fails_says_what_wandb_said(tmp_path, monkeypatch):
    logs = [tmp_path / "a.wandb"]
    monkeypatch.setattr(pushed.sys, "executable", shutil.which("false"))
    assert pushed.push(logs, lambda n: None) == "`wandb sync` ended with exit code 1"


# ---- asking


@pytest.mark.parametrize(
    ("trouble", "said"), [("503", "answers 503"), ("401", "refuses the API key"),
                          ("hang", "does not answer within")]
)  # fmt: skip
def test_what_a_server_says_is_named(trouble, said):
    with WandbServer(fail_after=0, trouble=trouble) as bad:
        begin = time.monotonic()
        assert said in server.trouble(bad.url, KEY)
        assert time.monotonic() - begin < ASKED + 2  # of a busy machine


def test_a_good_server_is_no_trouble_and_others_are_named():
    with WandbServer() as good:
        assert server.trouble(good.url, KEY) == ""
    assert "cannot be reached (Connection refused)" in server.trouble(address(), KEY)
    assert server.trouble("http://anywhere", "") == server.NO_KEY


# ---- environment


def test_variables_fill_in_settings_that_the_command_line_leaves_open(monkeypatch):
    plain = TrackerConfig()
    assert environment.heeded(plain, ()) == plain
    for name, value in (("MODE", "dryrun"), ("PROJECT", "mine"), ("ENTITY", "we")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    assert environment.heeded(TrackerConfig(mode="online"), ()) == TrackerConfig(
        mode="offline", project="mine", entity="we"
    )
    given = TrackerConfig(mode="online", project="p")
    kept = environment.heeded(given, ("tracker.mode", "tracker.project"))
    assert kept == TrackerConfig(mode="online", project="p", entity="we")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_DISABLED", "true")
    assert environment.heeded(plain, ()).mode == "disabled"


def test_a_mode_that_does_not_exist_is_refused_before_training(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(UserError, match=r"WANDB_MODE.*Did you mean 'offline'"):
        environment.heeded(TrackerConfig(), ())
    result = bnstudy_(*GRID)
    assert result.exit_code == 2
    assert "WANDB_MODE" in result.stderr
    assert not Path("results").exists()


def test_variables_that_are_not_used_are_named(monkeypatch):
    assert environment.named() == ""
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    assert environment.named().startswith("W&B: WANDB_RUN_ID is not used")
    monkeypatch.setenv("WANDB_NAME", "mine")
    assert "WANDB_RUN_ID, WANDB_NAME are not used" in environment.named()


@pytest.mark.slow
def test_the_variables_do_what_they_say(tmp_path, monkeypatch):
    env = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path / "elsewhere"), "WANDB_RUN_ID": "x",
           "WANDB_RESUME": "must", "WANDB_PROJECT": "mine"}  # fmt: skip
    running = process(*GRID, env=env, stdin=-3)
    _, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert re.search("WANDB_RUN_ID, WANDB_RESUME are not used", err)
    assert err.count("W&B") == 1, err
    runs = list((tmp_path / "elsewhere/wandb").glob("offline-run-*"))
    assert len({r.name for r in runs}) == 3
    assert not Path("results/wandb").exists()
    with WandbServer() as good:
        running = process("sync", env={**env, **good.env}, stdin=-3)
        running.communicate(timeout=300)
        assert {name.split("/")[1] for name in good.runs} == {"mine"}


@pytest.mark.slow
def test_mode_disabled_by_the_environment_leaves_wandb_out():
    running = process(*GRID, env={"WANDB_MODE": "disabled"}, stdin=-3)
    running.communicate(timeout=300)
    assert running.returncode == 0
    assert not Path("results/wandb").exists()
    assert {r["provenance"]["tracker"] for r in Store("results/runs")} == {"disabled"}
