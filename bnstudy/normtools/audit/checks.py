"""The definition of batch normalization, the checks of an audit, and the audit that asks them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bnstudy.normtools.audit import output, state
from bnstudy.normtools.audit.subject import Answer, Maker, subjects

DEFINITION = {
    1: "mean_c = average of x over all examples and positions of channel c",
    2: "var_c = average of (x - mean_c)^2 over the same values (divided by m, not m - 1)",
    3: "x_hat = (x - mean_c) / sqrt(var_c + eps), eps > 0 inside the root",
    4: "y = gamma_c * x_hat + beta_c; gamma and beta are learned, from 1 and 0",
    5: "in training running_mean = (1 - w) * running_mean + w * mean_c, from 0, w small",
    6: "in training running_var = (1 - w) * running_var + w * var_c * m / (m - 1), from 1",
    7: "in evaluation running_mean and running_var replace mean_c and var_c, and do not change",
    8: "in training the gradient flows through mean_c and var_c",
    9: "running statistics are state, not parameters: saved, moved, without gradient",
    10: "module.training alone decides which of the two happens",
}


@dataclass(frozen=True)
class Finding:
    """One departure from the definition.

    >>> class Careless(nn.BatchNorm2d):
    ...     def forward(self, x):
    ...         return super().forward(x) * (1.0 if self.training else 0.9)
    >>> findings = audit(Careless)
    >>> len(findings) > 0 and all(isinstance(finding, Finding) for finding in findings)
    True
    """

    check: str
    expected: str
    seen: str
    line: int  # of the definition
    shape: tuple[int, ...]  # of the input that showed it

    @property
    def definition(self) -> str:
        return DEFINITION[self.line]

    def __str__(self) -> str:
        return (
            f"{self.check} (input {self.shape})\n  expected: {self.expected}\n"
            f"  seen:     {self.seen}\n  breaks:   {self.line}. {self.definition}"
        )


@dataclass(frozen=True)
class Check:
    """A question to a fresh subject: yields (expected, seen) where the answer is wrong."""

    ask: Callable[[Maker], Answer]
    line: int
    needs: tuple[str, ...] = ()  # checks that must have passed for this one to mean anything
    of_functions: bool = True  # whether it makes sense for a function, which holds no state


OUTPUT = ("input_untouched", "training_statistics", "axes", "output_variance")
CHECKS = {
    "input_untouched": Check(output.input_untouched, 4),
    "training_statistics": Check(output.training_statistics, 1),
    "axes": Check(output.axes, 1, ("training_statistics",)),
    "output_variance": Check(output.output_variance, 2, ("training_statistics", "axes")),
    "eps": Check(output.eps, 3, OUTPUT),
    "precision": Check(output.precision, 3, (*OUTPUT, "eps"), False),
    "affine": Check(output.affine, 4),
    "affine_learned": Check(output.affine_learned, 4, OUTPUT, False),
    "gamma_init": Check(output.gamma_init, 4, (), False),
    "beta_init": Check(output.beta_init, 4, (), False),
    "gradient": Check(output.gradient, 8, (*OUTPUT, "eps")),
    "running_statistics": Check(state.running_statistics, 5),
    "unbiased_running_variance": Check(state.unbiased_running_variance, 6, ("running_statistics",)),
    "batch_counter": Check(state.batch_counter, 5, (), False),
    "momentum": Check(state.momentum, 5, ("running_statistics",)),
    "first_batch": Check(state.first_batch, 5, ("running_statistics",), False),
    "buffers": Check(state.buffers, 9, (), False),
    "detached": Check(state.detached, 9, (), False),
    "evaluation_leaves_state": Check(state.evaluation_leaves_state, 7),
    "evaluation_statistics": Check(
        state.evaluation_statistics, 7, (*OUTPUT, "evaluation_leaves_state")
    ),
    "modes_under_no_grad": Check(
        state.modes_under_no_grad,
        10,
        (*OUTPUT, "running_statistics", "evaluation_statistics"),
        False,
    ),
    "batch_of_one": Check(state.batch_of_one, 6),
}


def audit(
    target: type[nn.Module] | Callable[..., Any],
    init: str | Callable[[int], nn.Module] | None = None,
) -> list[Finding]:
    """Every way in which a batch normalization class or function departs from the definition.

    target: a class made like torch.nn.BatchNorm2d(C) or like d2l's BatchNorm(C, num_dims), or a
    function with the arguments of torch.nn.functional.batch_norm or of d2l's batch_norm.
    init: how else a class is made: "num_features=C, num_dims=D" (C channels, D axes of the input),
    or a function from the number of axes to a module for 4 channels.
    All numbers of axes it takes, 2 to 5, are tried; a check reports the first that shows a fault.
    Raises ValueError for what is no batch normalization.

    >>> audit(nn.BatchNorm2d)
    []
    """
    makers = subjects(target, init)
    findings: dict[str, Finding] = {}
    skipped: set[str] = set()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        for name, check in CHECKS.items():
            if any(need in findings or need in skipped for need in check.needs):
                skipped.add(name)
                continue
            for make in makers.values():
                subject = make()
                if subject.is_function and not check.of_functions:
                    continue
                torch.manual_seed(0)
                seen = _first(check, make)
                if seen is not None:
                    findings[name] = Finding(name, *seen, check.line, subject.shape)
                    break
    return list(findings.values())


def _first(check: Check, make: Maker) -> tuple[str, str] | None:
    try:
        return next(check.ask(make), None)
    except Exception as error:  # whatever the audited code raises is a finding
        return "no error", f"{type(error).__name__}: {error}"
