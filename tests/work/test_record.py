"""What a run leaves behind."""

import torch

from bnstudy.config import Config
from bnstudy.sweep.protocol import Execution
from bnstudy.work import record
from bnstudy.work.build import Anatomy
from bnstudy.work.trainer import Trained

MADE = {"stack_seconds": 1.0}


def trained(*configs: Config) -> Trained:
    layers = [{"name": "2", "m": 16}, {"name": "5", "m": 4}]
    job = Trained(list(configs), Anatomy(layers, 5, 900, 80, 40, 20, 77, 10))
    for i, config in enumerate(configs):
        job.history[i] = [
            {"seed": config.seed, "step": t, "test_error": 0.1 * (i + t), "lr": 0.1}
            for t in (1, 2, 3)
        ]
        job.how[i] = {"networks": len(configs), "kind": "widened", "steps": "eager: a test"}
    return job


def config(seed=0, **optimizer) -> Config:
    return Config.model_validate({"seed": seed, "optimizer": optimizer, "train": {"batch_size": 8}})


def test_a_summary_holds_the_last_epoch_and_the_median_of_five():
    history = [{"seed": 0, "step": i, "test_error": e} for i, e in enumerate([9, 1, 5, 3, 4, 2])]
    found = record.summary(history)
    assert found["test_error"] == 2
    assert found["test_error_last5"] == 3


def test_a_summary_takes_what_only_the_last_evaluation_has():
    rows = [{"seed": 0, "step": t, "test_error": t} for t in (1, 2)]
    found = record.summary([*rows, {"seed": 0, "step": 3, "test_error": 3, "test_error_shared": 7}])
    assert (found["test_error_shared"], found["test_error_shared_last5"]) == (7, 7)
    assert found["test_error_last5"] == 2


def test_each_cell_of_a_job_is_delivered_by_itself_with_its_own_constants():
    job = trained(config(3, lr=0.1), config(5, lr=0.1), config(3, lr=0.2))
    one, two = record.deliveries(job, MADE)
    assert [r["seed"] for r in one[0]] == [3, 5]
    assert [r["seed"] for r in two[0]] == [3]
    assert [r["summary"]["lr_initial"] for r in (*one[0], *two[0])] == [0.025, 0.025, 0.05]
    assert {row["seed"] for row in one[1]} == {3, 5}
    assert one[2] is None, "no weights were kept"


def test_a_record_names_all_that_trained_with_it_in_order():
    """So that the very same stack can be trained again."""
    job = trained(config(3, lr=0.1), config(3, lr=0.2), config(5, lr=0.1))
    (first, *_), *_ = record.deliveries(job, MADE)
    assert first[0]["stack"]["addresses"] == [c.address for c in job.configs]
    assert first[0]["stack"]["seeds"] == [3, 5]
    assert first[0]["stack"]["networks"] == 3


def test_a_summary_holds_what_claims_ask_of_the_data():
    ((found,), _, _), = record.deliveries(trained(config()), MADE)  # fmt: skip
    summary = found["summary"]
    assert (summary["num_classes"], summary["smallest_m"], summary["steps"]) == (10, 4, 3)
    assert (summary["train_size"], summary["dropped_per_epoch"]) == (40, 0)


def test_weights_are_those_of_the_cells_own_runs(tmp_path):
    job = trained(config(0, lr=0.1), config(0, lr=0.2))
    job.weights = [{"w": torch.ones(2)}, {"w": torch.zeros(2)}]
    for (_, _, write), own in zip(record.deliveries(job, MADE), job.configs, strict=True):
        write(tmp_path / "w.pt")
        assert list(torch.load(tmp_path / "w.pt")) == [own.address]


def test_a_runs_time_is_its_share_of_the_job():
    made = record.provenance(Execution(results_dir="x"), torch.device("cpu"), 12.0, "mirrored")
    job = trained(*(config(seed) for seed in range(4)))
    ((records, _, _),) = record.deliveries(job, made)
    assert {r["provenance"]["wall_seconds"] for r in records} == {3.0}
    assert {r["provenance"]["stack_seconds"] for r in records} == {12.0}
    assert made["device"] == "cpu"
    assert made["torch"] == torch.__version__
