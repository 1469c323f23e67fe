"""Every public class and function shows an example, and every example does what it shows."""

import doctest
import importlib
import inspect

import pytest
import torch
from torch import nn

import bnstudy.norms
from bnstudy.normtools import theory


def public():
    """Classes and functions by name: those of the norms and their tools, and of the theory."""
    offered = {name: getattr(bnstudy.norms, name) for name in bnstudy.norms.__all__}
    for name, found in vars(theory).items():
        if not name.startswith("_") and getattr(found, "__module__", "") == theory.__name__:
            offered[name] = found
    return {
        name: found
        for name, found in offered.items()
        if inspect.isclass(found) or inspect.isfunction(found)
    }


@pytest.mark.parametrize("name", public())
def test_the_example_in_the_docstring_is_true(name):
    found = public()[name]
    module = importlib.import_module(inspect.unwrap(found).__module__)
    given = {"torch": torch, "nn": nn, **public(), **vars(module)}
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(verbose=False, optionflags=options)
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(found), given, name, None, 0)
    assert test.examples, f"{name} shows no example"
    said = []
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
