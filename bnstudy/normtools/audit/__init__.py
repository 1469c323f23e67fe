"""Audit any implementation of batch normalization against the definition, check by named check.

    for finding in audit(TheirBatchNorm):
        print(finding)

checks.py     the definition line by line, the table of checks, and `audit`, which asks them
subject.py    what is audited: any class or function, its tensors found by name
output.py     checks of the output in training, its affine map and its gradient
state.py      checks of running statistics, evaluation, and what decides between the modes
"""

from bnstudy.normtools.audit.checks import CHECKS, DEFINITION, Finding, audit

__all__ = ["CHECKS", "DEFINITION", "Finding", "audit"]
