"""Launchers of Hydra's that cannot start their workers."""

from pathlib import Path

from shell import TINY, own_folder, process

import bnstudy

__all__ = ["own_folder"]

# in the place of submitit's, on a machine without Slurm
PLUGIN = """
from hydra.plugins.launcher import Launcher

class Lost(Launcher):
    def setup(self, **kwargs):
        pass

    def launch(self, job_overrides, initial_job_idx):
        raise RuntimeError(
            "Could not detect \\"srun\\", are you indeed on a slurm cluster?\\n"
            "Try `module load slurm`."
        )
"""


def test_the_launchers_own_message_is_shown_in_full(tmp_path):
    (tmp_path / "site" / "hydra_plugins" / "lost").mkdir(parents=True)
    (tmp_path / "site" / "hydra_plugins" / "lost" / "__init__.py").write_text(PLUGIN)
    (tmp_path / "conf" / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "conf" / "hydra" / "launcher" / "lost.yaml").write_text(
        "_target_: hydra_plugins.lost.Lost\n"
    )
    path = f"{tmp_path / 'site'}:{Path(bnstudy.__file__).parents[1]}"
    running = process(
        "train", "--config-dir", "conf", "hydra/launcher=lost", *TINY, env={"PYTHONPATH": path}
    )
    out, err = running.communicate(timeout=120)
    assert running.returncode == 2, (out, err)
    assert "Traceback" not in err
    assert 'Could not detect "srun", are you indeed on a slurm cluster?' in err
    assert "Try `module load slurm`." in err
    assert err.startswith("bnstudy: the launcher could not start its workers: ")
