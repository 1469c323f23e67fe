"""Tab, as a person presses it: in a real bash, through a terminal."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from shell import bnstudy_, own_folder, said

from bnstudy import cli

__all__ = ["own_folder"]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_completion_script(shell):
    script = said(bnstudy_("completion", shell))
    assert "_BNSTUDY_COMPLETE" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        (["train"], "norm=", {"norm=batch", "norm=group", "norm=none"}),
        (["train"], "norm=batch,gr", {"norm=batch,group"}),
        (["train"], "norm.nu", {"norm.num_groups="}),
        (
            ["train"],
            "norm.scope=s",
            {"norm.scope=sequence", "norm.scope=shared", "norm.scope=step"},
        ),
        (["train"], "norm.sync=", {"norm.sync=false", "norm.sync=true"}),
        (["train"], "device=", {"device=auto", "device=cpu", "device=cuda"}),
        (["train"], "hydra/launcher=sub", {"hydra/launcher=submitit_slurm"}),
        (["train"], "sc", {"scale="}),
        (["study"], "batch", {"batch_size"}),
        (["study", "batch_size"], "scale=q", {"scale=quick"}),
        ([], "st", {"study"}),
        (["tune"], "batch", {"batch_size"}),
        (["power"], "batch", {"batch_size"}),
        ([], "adv", {"advise"}),
        (["advise"], "b", {"batch_size="}),
        (
            ["advise"],
            "task=",
            {f"task={name}" for name in ("classification", "recurrent", "language", "pixels")},
        ),
        (["advise"], "problem=s", {"problem=shift", "problem=stream"}),
        (["advise"], "model=r", {"model=resnet", "model=recurrent"}),
        (["study"], "tune=", {"tune=auto", "tune=committed", "tune=published"}),
    ],
)
def test_completion_offers_keys_choices_and_studies(words, incomplete, offered):
    complete = ShellComplete(cli.main, {}, "bnstudy", "_BNSTUDY_COMPLETE")
    found = {item.value for item in complete.get_completions(words, incomplete)}
    assert offered <= found
    assert all(value.startswith(incomplete) for value in found)


class Terminal:
    """A bash with completion, and somebody at its keyboard."""

    def __init__(self, folder: Path) -> None:
        program = Path(sys.executable).with_name("bnstudy")
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            env = {
                **os.environ,
                "PS1": "$ ",
                "TERM": "dumb",
                "PATH": f"{program.parent}:/bin:/usr/bin",
            }
            os.execve(shutil.which("bash"), ["bash", "--norc", "--noprofile", "-i"], env)
        self.type("stty cols 400; bind 'set page-completions off'\n")
        self.type("bind 'set enable-bracketed-paste off'; bind 'set show-all-if-ambiguous on'\n")
        self.type('eval "$(bnstudy completion bash)"; echo rea""dy\n')
        self.until("ready")

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, wanted: str, seconds: float = 30) -> str:
        """What appears until `wanted` does."""
        seen, end = "", time.monotonic() + seconds
        while wanted not in seen:
            assert time.monotonic() < end, f"no {wanted!r} in {seen!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                seen += os.read(self.fd, 4096).decode(errors="replace")
        return seen

    def tab(self, typed: str, wanted: str) -> str:
        """Type, press Tab, and wait for what should appear; then an empty line."""
        self.type(typed + "\t")
        seen = self.until(wanted)
        self.type("\x15\n")
        return seen

    def close(self) -> None:
        os.close(self.fd)
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
@pytest.mark.slow
def test_tab_in_a_real_bash(tmp_path):
    said(bnstudy_("train", "model=mlp", "model.hidden=[4]", "data.train_size=40", "train.steps=1",
                  "seeds=1", "tracker.mode=disabled"))  # fmt: skip
    (cell,) = [p.name for p in (tmp_path / "results/runs/cells").iterdir()]
    (tmp_path / "my images").mkdir()
    terminal = Terminal(tmp_path)
    try:
        # a single choice is written out; what bash splits at = must not lose its beginning
        assert "norm=group" in terminal.tab("bnstudy train norm=gro", "norm=group")
        assert "train norm=batch,group" in terminal.tab("bnstudy train norm=batch,gro", ",group")
        terminal.tab("bnstudy train norm.num_gr", "norm.num_groups=")
        terminal.tab("bnstudy train norm=batch train.batch_s", "train.batch_size=")
        terminal.tab("bnstudy study batch_si", "batch_size")
        terminal.tab("bnstudy train hydra/launcher=submitit_s", "hydra/launcher=submitit_slurm")
        terminal.tab("bnstudy train norm.scope=seq", "norm.scope=sequence")
        terminal.tab(f"bnstudy show {cell[:5]}", cell)
        terminal.tab("bnstudy train data.root=my", "my\\ images")
        # several choices are listed, each whole
        listed = terminal.tab("bnstudy train norm=", "filter_response")
        assert "ghost" in listed
    finally:
        terminal.close()
