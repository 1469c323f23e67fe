"""Packs through any Hydra launcher: by joblib, by submitit on Slurm, by a plugin of one's own."""

import contextlib
import os
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from bnstudy.config.overrides import quoted
from bnstudy.sweep import cost
from bnstudy.sweep.launchers import WORKER, Launcher, Wait, in_process, local
from bnstudy.sweep.plan import Plan
from bnstudy.sweep.protocol import Pack

if TYPE_CHECKING:
    from bnstudy.config.compose import Composer, Request

LOCAL = ("BasicLauncher", "JoblibLauncher")  # these share this machine's cores
OURS = "local"  # the default: no launcher of Hydra's is needed for this machine's cores
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def chosen(request: "Request") -> str:
    """The name that hydra/launcher= has."""
    return str(request.hydra.hydra.runtime.choices["hydra/launcher"])


def workers_for(request: "Request") -> int:
    """Worker processes: `workers`, or one per core; never more than cores on this machine."""
    from joblib import cpu_count  # knows affinity and the limits of a container

    target = str(request.hydra.hydra.launcher._target_).rpartition(".")[2]
    if target == "BasicLauncher":
        return 1
    wanted = request.settings.workers or cpu_count()
    return min(wanted, cpu_count()) if target in LOCAL else wanted


def launcher_for(
    request: "Request", composer: "Composer", plan: Plan, alone: bool = True
) -> Launcher:
    """What runs the packs of a plan: local processes by default, else the launcher of that name.

    With `alone`, the planner itself where that is sooner done than starting workers, or there is
    one of them. Not before it starts others: training leaves threads, which no fork can copy.
    """
    if chosen(request) != OURS:
        return hydra_launcher(request, composer)
    seconds = sum(stack.seconds for stack in plan.stacks)
    few = workers_for(request) == 1 or len(plan.stacks) == 1 or seconds < cost.FORK
    if alone and few:
        return in_process
    return local(request.settings.device)


def hand_over(config: DictConfig) -> Any:
    """What the launcher calls in a worker: run the pack that the job names."""
    return pkgutil.resolve_name(config.worker)(config.pack)


def hydra_launcher(
    request: "Request", composer: "Composer", worker: str = WORKER
) -> Callable[[list[Pack]], Wait]:
    """The launcher that `hydra/launcher=` chose, as a function of packs.

    Args:
        request: its overrides choose and set the launcher.
        composer: of the session the request comes from.
        worker: `package.module:function`, called with the path of a pack.
    """

    def launch(packs: list[Pack]) -> Wait:
        from hydra._internal.callbacks import Callbacks
        from hydra.core.plugins import Plugins
        from hydra.types import HydraContext

        own = [o for o in request.overrides if o.startswith("hydra")]
        quiet = [
            f"hydra.sweep.dir={quoted(Path(packs[0].folder) / 'hydra')}",
            "hydra.sweep.subdir=${hydra.job.num}",
            "hydra/job_logging=none",
            "hydra/hydra_logging=none",
            f"workers={len(packs)}",
        ]
        config = composer.compose([*own, *quiet])
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=HydraContext(config_loader=composer.loader, callbacks=Callbacks(config)),
            task_function=hand_over,
            config=config,
        )
        jobs = [[f"+pack={quoted(pack.path)}", f"+worker={quoted(worker)}"] for pack in packs]

        def wait() -> None:  # Hydra's launchers start and wait in one call
            with _single_threaded():
                launcher.launch(jobs, initial_job_idx=0)

        return wait

    launch.__name__ = chosen(request)  # what the record says of how its worker began
    return launch


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Workers inherit one thread for every numerical library, set before these start."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
