"""bnstudy from Python: the examples of the docs, and what they promise."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from shell import TINY, bnstudy_, own_folder, said

import bnstudy
from bnstudy import data
from bnstudy.config import Config
from bnstudy.errors import UserError
from bnstudy.store import Store

__all__ = ["own_folder"]

DOCS = Path(bnstudy.__file__).parents[1] / "docs"
SMALL = ["scale=smoke", "data.train_size=40", "train.steps=4", "tracker.mode=disabled", "workers=1"]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("api") / "results"
    said(bnstudy_("train", "-m", "norm=batch,group", *TINY, f"results_dir={results}"))
    return results


def test_the_examples_of_the_page_run(capsys):
    names: dict = {}
    for block in blocks("python.md", "python"):
        exec(block, names)
    study = names["study"]
    assert study.figure.is_file()
    assert len(study.table) == len(names["runs"])
    assert {v["verdict"] for v in study.verdicts} <= {
        "supported", "refuted", "inconclusive", "invalid"
    }  # fmt: skip
    assert sum(v["primary"] for v in study.verdicts) == 1
    assert list(names["table"]["norm.name"]) == ["batch", "group"]
    assert len(names["both"]) == 4
    out = capsys.readouterr().out
    assert f"trained  {len(study.table)} models" in out
    assert "parameters" in out


PLANNED = ("compare", "study", "tune", "power")  # of the page's commands, not trained here


def test_the_commands_of_the_page_are_commands(tmp_path):
    (tmp_path / "conf" / "norm").mkdir(parents=True)
    yaml = blocks("commands.md", "yaml")[0]
    (tmp_path / "conf" / "norm" / "coarse.yaml").write_text(yaml)
    said(bnstudy_("train", "norm=group", "train.batch_size=4",
                  *(w for w in TINY if "batch_size" not in w)))  # fmt: skip
    for line in "".join(blocks("commands.md", "bash")).splitlines():
        program, *words = shlex.split(line)
        assert program == "bnstudy"
        said(bnstudy_(*words, *(["--dry-run"] if words[0] in PLANNED else [])))


def test_import_is_light_and_names_are_there():
    code = (
        "import bnstudy, sys\n"
        "assert {'table', 'load', 'run_study', 'compare'} <= set(dir(bnstudy))\n"
        "assert not {'torch', 'pandas', 'numpy', 'hydra'} & set(sys.modules)\n"
        "bnstudy.table; assert not {'torch', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError, match="no attribute 'tabel'"):
        bnstudy.tabel  # noqa: B018


def test_a_loaded_network_has_the_error_of_its_record(trained):
    """On all test examples, by the population statistics: what evaluation measured."""
    for record in Store(trained / "runs"):
        network = bnstudy.load(record["address"][:10], trained)
        assert not network.training
        dataset = data.load(
            Config.model_validate(record["config"]).data, trained / "runs" / "cache"
        )
        with torch.no_grad():
            wrong = network(dataset.test_x).argmax(1) != dataset.test_y
        assert wrong.float().mean().item() == pytest.approx(
            record["summary"]["test_error"], abs=1e-6
        )


def test_of_a_cell_it_is_the_first_seed(trained):
    runs = bnstudy.table(trained, norm="batch")
    first = runs.set_index("seed")["address"][0]
    for one, other in zip(
        bnstudy.load(runs["cell"][0], trained).parameters(),
        bnstudy.load(first, trained).parameters(),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_weights_that_were_not_kept_are_a_message(tmp_path):
    said(bnstudy_("train", *TINY, "save_weights=false"))
    with pytest.raises(UserError, match=r"not kept; save_weights=true"):
        bnstudy.load(bnstudy.table()["cell"][0])


def test_table_takes_filters(trained):
    assert len(bnstudy.table(trained)) == 4
    assert set(bnstudy.table(trained, norm="group")["norm.name"]) == {"group"}
    assert len(bnstudy.table(trained, **{"norm.name": ["batch", "group"]}, seed=1)) == 2
    assert len(bnstudy.table(trained, num_groups=None)) == 4
    with pytest.raises(UserError, match="unknown column 'nrom'"):
        bnstudy.table(trained, nrom="group")
    with pytest.raises(UserError, match="no such folder"):
        bnstudy.table("typo")


def test_compare_is_paired_by_seed(trained):
    runs = bnstudy.table(trained)
    found = bnstudy.compare(runs, arms={"norm.name": ["group", "batch"]}).set_index("norm.name")
    errors = runs.pivot(index="seed", columns="norm.name", values="test_error")
    assert np.isnan(found["difference"]["group"])
    # 1e-12: the same two numbers, added in another order
    assert found["difference"]["batch"] == pytest.approx(
        (errors["batch"] - errors["group"]).mean(), abs=1e-12
    )
    with pytest.raises(UserError, match=r"unknown axis 'norm\.nam'"):
        bnstudy.compare(runs, arms="norm.nam")
    with pytest.raises(UserError, match="unknown metric 'tst_error'"):
        bnstudy.compare(runs, metric="tst_error")


def test_a_study_leaves_the_callers_settings_alone_and_records_what_was_asked(tmp_path, capsys):
    threads, environment = torch.get_num_threads(), dict(os.environ)
    torch.set_deterministic_debug_mode(0)
    torch.set_num_threads(2)
    try:
        study = bnstudy.run_study("batch_size", *SMALL, "data=digits", results_dir=tmp_path / "out")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.get_deterministic_debug_mode() == 0
    assert dict(os.environ) == environment
    assert study.folder.is_relative_to(tmp_path / "out")
    (command,) = set(study.table["command"])
    assert command.startswith("bnstudy study batch_size scale=smoke")
    assert "nothing is missing" not in capsys.readouterr().out
    bnstudy.run_study("batch_size", *SMALL, "data=digits", results_dir=tmp_path / "out")
    assert "nothing is missing" in capsys.readouterr().out


def test_a_mistake_is_an_exception_not_an_exit(tmp_path):
    with pytest.raises(UserError, match="Did you mean 'batch_size'"):
        bnstudy.run_study("batch_sise")
    with pytest.raises(UserError, match="unknown norm 'bath'"):
        bnstudy.run_study("batch_size", "norm=bath")
    assert list(tmp_path.iterdir()) == []
