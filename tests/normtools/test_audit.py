"""The audit finds each fault by the check named for it, and none where there is none."""

import importlib.util
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from bnstudy.norms import BatchNorm, Finding, audit
from bnstudy.normtools.audit import CHECKS, DEFINITION
from bnstudy.normtools.audit.subject import subjects


def beside(name):
    """A module that lies beside this file (tests are no package)."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


gallery, mutants = beside("gallery"), beside("mutants")


@pytest.mark.parametrize("fault", gallery.FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_is_found_by_the_check_named_for_it_and_no_other(fault):
    assert [finding.check for finding in audit(fault)] == [gallery.FAULTS[fault]]


def test_every_check_finds_some_fault_of_the_gallery_but_the_two_of_plain_torch_state():
    others = {"precision", "batch_counter"}  # below
    assert set(gallery.FAULTS.values()) | others == set(CHECKS)


class SinglePrecisionInside(gallery.Correct):
    def normalize(self, x, mean, var):
        return super().normalize(x.float(), mean.float(), var.float()).to(x.dtype)


class CountsEvaluation(nn.BatchNorm1d):
    def forward(self, x):
        if not self.training:
            self.num_batches_tracked.add_(1)
        return super().forward(x)


def test_single_precision_arithmetic_and_a_wrong_counter_are_found():
    assert [f.check for f in audit(SinglePrecisionInside)] == ["precision"]
    assert [f.check for f in audit(CountsEvaluation)] == ["batch_counter"]


@pytest.mark.parametrize(
    "right",
    [
        nn.BatchNorm1d,
        nn.BatchNorm2d,
        nn.BatchNorm3d,
        nn.SyncBatchNorm,
        nn.functional.batch_norm,
        BatchNorm,
        gallery.Correct,
        gallery.correct_function,
    ],
    ids=lambda right: right.__name__,
)
def test_nothing_is_found_where_nothing_is_wrong(right):
    assert audit(right) == []


@pytest.mark.parametrize(
    "init",
    [
        "num_features=C, backend='reference'",
        "num_features=C, eps=1e-3, momentum=0.01",
        "num_features=C, affine='none'",
        lambda ndim: BatchNorm(4, group_size=6),
    ],
    ids=["reference", "other eps and momentum", "no affine map", "one ghost group"],
)
def test_nothing_is_found_however_ours_is_made(init):
    assert list(subjects(BatchNorm, init)) == [2, 3, 4, 5]
    assert audit(BatchNorm, init) == []


def test_a_faulty_function_is_found():
    assert [finding.check for finding in audit(gallery.faulty_function)] == ["momentum"]


def test_a_finding_says_what_was_expected_what_was_seen_and_which_line_it_breaks():
    (finding,) = audit(gallery.BiasedBuffer)
    assert isinstance(finding, Finding)
    assert finding.definition == DEFINITION[6]
    for words in ("unbiased_running_variance", "m / (m - 1)", "divided by m", DEFINITION[6]):
        assert words in str(finding)


def test_an_audit_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    audit(gallery.MeanDetached)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("target", "init", "words"),
    [
        (nn.Linear, None, ["Linear", "init='num_features=C'"]),
        (nn.LayerNorm, None, ["LayerNorm", "no running mean"]),
        (dict, None, ["dict", "torch.nn.Module"]),
        (3, None, ["3", "neither a class nor a function"]),
        (nn.functional.layer_norm, None, ["layer_norm", "running_mean"]),
        (BatchNorm, "C", ["init='C'", "name=value"]),
        (BatchNorm, "num_features=K", ["K", "C stands for"]),
    ],
)
def test_what_is_no_batch_norm_is_refused_in_one_message(target, init, words):
    with pytest.raises(ValueError) as error:
        audit(target, init)
    for word in words:
        assert word in str(error.value)


@pytest.mark.slow
def test_of_the_single_edit_mutants_of_our_batch_norm_95_percent_are_found():
    inits = ("num_features=C", "num_features=C, backend='reference'")
    lines = mutants.executed(lambda: [audit(BatchNorm, init) for init in inits])
    total, survivors = 0, []
    for name, text, tree in mutants.mutants(lines):
        total += 1
        try:
            with warnings.catch_warnings(), mutants.planted(name, tree) as mutant:
                warnings.simplefilter("ignore")
                found = any(
                    list(subjects(mutant, init)) != [2, 3, 4, 5] or audit(mutant, init)
                    for init in inits
                )
        except Exception:  # it cannot even be made
            found = True
        if not found:
            survivors.append(text)
    print(f"{total} mutants, {len(survivors)} survive:", *survivors, sep="\n")
    assert total >= 40
    assert len(survivors) <= 0.05 * total, survivors
