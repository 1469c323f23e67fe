"""docs/wandb.md names what is logged: every name, and no other."""

import re
from pathlib import Path

import pytest
import torch
from wandb_files import StandIn

from bnstudy.config import Config, TrackerConfig
from bnstudy.probes import PROBES
from bnstudy.sweep.protocol import Execution
from bnstudy.tracking import Mirror, Tracker, study
from bnstudy.work import record
from bnstudy.work.trainer import Trainer

DOCS = (Path(__file__).parents[2] / "docs/wandb.md").read_text()
PLACES = {"<n>": r"\d+(\.\d+)?", "<shift>": "(contrast|brightness|noise|blur|jpeg)",
          "<stream>": "(mixed|single|sorted)", "<way>": "(source|batch|tent)",
          "<verdict>": ".+", "<image>": "[a-z]+"}  # fmt: skip
SIZE = {"model": {"name": "mlp", "hidden": [8]}, "train": {"batch_size": 8, "steps": 4}}
# together they have every probe, and everything else that has a metric of its own
CONFIGS = [
    {**SIZE, "data": {"train_size": 40}, "optimizer": {"weight_average": 0.9},
     "evaluate": {"steps": 1, "online": True,
                  "probes": ["corruptions", "evaluation_batch", "checkpoints", "precise_samples",
                             "effective_m", "renorm", "statistics_gap", "composition", "affine",
                             "steps_to_loss", "fit", "step_time", "adaptation",
                             "averaged_weights"], "stream": 40}},
    {**SIZE, "data": {"train_size": 40}, "federation": {"clients": 2}},
    {**SIZE, "data": {"train_size": 40}, "train": {**SIZE["train"], "classes_per_task": 2},
     "evaluate": {"probes": ["forgetting"]}},
    {**SIZE, "data": {"train_size": 40}, "train": {**SIZE["train"], "corruption": "noise"},
     "evaluate": {"probes": ["copies"]}},
    {"data": {"name": "text", "length": 6, "train_size": 32}, "train": SIZE["train"],
     "model": {"name": "recurrent", "hidden": [4]},
     "evaluate": {"probes": ["lengths", "shared_statistics", "step_statistics",
                             "gradient_norm"]}},
    {"data": {"name": "photos", "degradation": "noise", "patch_size": 16},
     "model": {"name": "dncnn", "depth": 3, "width": 2}, "train": {"batch_size": 4, "steps": 4},
     "task": {"name": "restoration"},
     "evaluate": {"precise_examples": 16,
                  "probes": ["photographs", "baselines", "whole_statistics", "blotches",
                             "intensity", "activation_memory", "loss_course"]}},
    {"data": {"name": "photos", "patch_size": 32}, "model": {"name": "stylizer", "width": 2},
     "train": {"batch_size": 2, "steps": 2}, "task": {"name": "stylization", "style_size": 32},
     "evaluate": {"precise_examples": 4, "probes": ["companions"]}},
    {"model": {"name": "deep", "depth": 8, "width": 4}, "train": SIZE["train"],
     "data": {"train_size": 40},
     "evaluate": {"probes": ["layer_gradients", "activation_moments", "branch_variance",
                             "landscape", "covariate_shift", "logits"]}},
    # learns nothing but how to diverge
    {**SIZE, "data": {"train_size": 40}, "optimizer": {"lr": 1e30}, "norm": {"name": "none"}},
]  # fmt: skip


def section(title: str) -> list[re.Pattern]:
    """The names in the tables below a heading: of each row, the code in the last cell but one."""
    text = DOCS.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    found = [name for cells in rows for name in re.findall(r"`([^`]+)`", cells[-2])]
    assert found
    return [pattern(name) for name in found]


def pattern(name: str) -> re.Pattern:
    text = re.escape(name)
    for place, meaning in PLACES.items():
        text = text.replace(re.escape(place), meaning)
    return re.compile(text)


def unnamed(names: set[str], patterns: list[re.Pattern]) -> set[str]:
    return {name for name in names if not any(p.fullmatch(name) for p in patterns)}


def unused(names: set[str], patterns: list[re.Pattern]) -> set[str]:
    return {p.pattern for p in patterns if not any(map(p.fullmatch, names))}


@pytest.fixture
def logged(tmp_path, monkeypatch):
    """Names in the history and summary of runs of CONFIGS, as W&B is told them."""
    runs = []

    def init(self, *rest):
        self._run = StandIn()
        runs.append(self._run)

    monkeypatch.setattr(Tracker, "_init", init)
    trainer = Trainer(Execution(results_dir=str(tmp_path)), tmp_path, torch.device("cpu"))
    for plain in CONFIGS:
        configs = [Config.model_validate({**plain, "seed": 3})]
        with Mirror(TrackerConfig(), tmp_path, "g", [], configs) as mirror:
            trained = trainer.train(configs, lambda fraction: None, mirror.log)
            mirror.summaries = record.summaries(trained)
        assert mirror.status == "mirrored"
    return {name for run in runs for told in (*run.told, run.summary) for name in told}


def test_the_metrics_of_a_cell_are_those_in_the_docs(logged):
    assert {p for c in CONFIGS for p in c.get("evaluate", {}).get("probes", [])} == set(PROBES)
    named = section("Metrics of a cell")
    of_seeds = {n.removeprefix("seed_3/") for n in logged if n.startswith("seed_3/")}
    means = {n for n in logged if not n.startswith("seed_3/")}
    assert means - of_seeds == {"epoch", "examples"}
    assert of_seeds - means == set()
    plain = {n.removesuffix("_last5") for n in means}
    assert unnamed(plain, named) == set()
    assert unused(plain, named) == set()
    median = {n.removesuffix("_last5") for n in means if n.endswith("_last5")}
    assert median == {n for n in plain if n.startswith(("train_", "val_", "test_"))}


CLAIM = {"text": "t", "kind": "greater", "verdict": "not shown", "mean": 1.0, "low": 0.5,
         "high": 2.0, "unit": "pp", "n": 6, "p": 0.03, "p_holm": None, "published": "",
         "status": "confirmatory", "primary": True}  # fmt: skip


def test_the_metrics_of_a_study_are_those_in_the_docs(monkeypatch, tmp_path):
    run = StandIn()
    pytest.importorskip("wandb")
    monkeypatch.setattr("wandb.Image", lambda path, caption: path)
    study._log(run, [CLAIM], tmp_path / "figure.png", "words")
    named = section("Metrics of a study")
    names = {name for told in (*run.told, run.summary) for name in told}
    assert unnamed(names, named) == set()
    assert unused(names, named) == set()


def test_the_columns_of_the_claims_are_those_in_the_docs():
    (row,) = [line for line in DOCS.splitlines() if line.startswith("| `claims` |")]
    assert tuple(re.findall(r"`(\w+)`", row))[1:] == study.COLUMNS


@pytest.mark.parametrize("name", ["test_error_of_nothing", "lag", "length/x"])
def test_a_name_that_the_docs_lack_is_found(name):
    """Otherwise the tests above could not fail."""
    assert unnamed({name}, section("Metrics of a cell")) == {name}
