"""Packs through any Hydra launcher: by joblib, by submitit on Slurm, by a plugin of one's own."""

import pkgutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from bnstudy.config.overrides import quoted
from bnstudy.errors import UserError
from bnstudy.sweep import cost, slurm
from bnstudy.sweep.launchers import WORKER, Launcher, Wait, in_process, local, single_threaded
from bnstudy.sweep.plan import Divide, Plan, balance, fill
from bnstudy.sweep.protocol import Pack, StackPlan

if TYPE_CHECKING:
    from bnstudy.config.compose import Composer, Request

LOCAL = ("BasicLauncher", "JoblibLauncher")  # these share this machine's cores
JOBS = {
    "cpus": "cpus_per_task",
    "gpus": "gpus_per_node",
    "memory_gb": "mem_gb",
    "time_minutes": "timeout_min",
    "partition": "partition",
    "account": "account",
}  # under `launcher` -> under `hydra.launcher`
OURS = "local"  # the default: no launcher of Hydra's is needed for this machine's cores


def chosen(request: "Request") -> str:
    """The name that hydra/launcher= has."""
    return str(request.hydra.hydra.runtime.choices["hydra/launcher"])


def workers_for(request: "Request", stacks: Sequence[StackPlan] = ()) -> int:
    """How many work at once: `workers`, or one per core; never more than cores on this machine.
    On a cluster `workers`, or all the jobs of these stacks."""
    from joblib import cpu_count  # knows affinity and the limits of a container

    if on_cluster(request):
        jobs = max(1, len(fill(stacks, request.settings.launcher.minutes_per_job)))
        return min(jobs, request.settings.workers or jobs)
    target = str(request.hydra.hydra.launcher._target_).rpartition(".")[2]
    if target == "BasicLauncher":
        return 1
    wanted = request.settings.workers or cpu_count()
    return min(wanted, cpu_count()) if target in LOCAL else wanted


def on_cluster(request: "Request") -> bool:
    """Whether workers are jobs that outlive the planner; also under a name of the user's own."""
    return str(request.hydra.hydra.launcher._target_).endswith(".SlurmLauncher")


def check(request: "Request", detach: bool = False) -> None:
    """Refuse settings of jobs for a launcher that has none, or that no job could meet.

    With `detach` also what would end with the command, or would have to be waited for by it.
    """
    if on_cluster(request):
        slurm_launcher(request)
        if detach and request.settings.tune == "auto":
            raise UserError(
                "--detach cannot wait for the pilots of tune=auto: first run 'bnstudy tune', "
                "which trains them and writes the choices"
            )
        return
    needs = f"hydra/launcher={slurm.NAME}; here the launcher is '{chosen(request)}'"
    if detach:
        raise UserError(
            f"--detach needs jobs that outlive this command, {needs}. On this machine: "
            "nohup bnstudy study ... &"
        )
    for key in request.settings.launcher.model_dump(exclude_defaults=True):
        raise UserError(f"launcher.{key} describes jobs of a cluster: it needs {needs}")


def divide_for(request: "Request") -> Divide:
    """How stacks become packs: one for each worker, or jobs of some minutes on a cluster."""
    if on_cluster(request):
        return partial(fill, minutes=request.settings.launcher.minutes_per_job)
    return partial(balance, workers=workers_for(request))


def launcher_for(
    request: "Request", composer: "Composer", plan: Plan, alone: bool = True
) -> Launcher:
    """What runs the packs of a plan: local processes by default, else the launcher of that name.

    With `alone`, the planner itself where that is sooner done than starting workers, or there is
    one of them. Not before it starts others: training leaves threads, which no fork can copy.
    """
    if on_cluster(request):
        return slurm_launcher(request)
    if chosen(request) != OURS:
        return hydra_launcher(request, composer)
    seconds = sum(stack.seconds for stack in plan.stacks)
    few = workers_for(request) == 1 or len(plan.stacks) == 1 or seconds < cost.FORK
    if alone and few:
        return in_process
    return local(request.settings.device)


def slurm_launcher(request: "Request") -> slurm.Slurm:
    """Slurm with the settings of `hydra.launcher`, and those of `launcher`, which come first.

    Raises:
        UserError: jobs that would hold more work than their time allows.
    """
    own = request.settings.launcher
    node = request.hydra.hydra.launcher
    settings = {k: node[k] for k in node if k not in slurm.OURS}
    settings = {k: OmegaConf.to_object(v) if OmegaConf.is_config(v) else v
                for k, v in settings.items()}  # fmt: skip
    for key, name in JOBS.items():
        if (value := getattr(own, key)) is not None:
            settings[name] = value
    if own.minutes_per_job > settings["timeout_min"]:
        raise UserError(
            f"launcher.minutes_per_job={own.minutes_per_job:g} is more than the "
            f"{settings['timeout_min']} minutes that a job may take: give a larger "
            "launcher.time_minutes, about twice as much, or fewer minutes_per_job"
        )
    return slurm.Slurm(settings, at_once=request.settings.workers)


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
            with single_threaded():
                launcher.launch(jobs, initial_job_idx=0)

        return wait

    launch.__name__ = chosen(request)  # what the record says of how its worker began
    return launch
