"""What is not finite survives JSON that every reader accepts."""

import json
import math

import numpy as np

from bnstudy.strict_json import decode, encode


def test_what_is_not_finite_comes_back():
    value = {"a": [math.nan, math.inf, -math.inf, 1.5, None], "b": {"c": np.float32("nan")}}
    text = encode(value)
    json.loads(text, parse_constant=lambda name: pytest_fail(name))
    back = decode(text.encode())
    assert math.isnan(back["a"][0])
    assert back["a"][1:] == [math.inf, -math.inf, 1.5, None]
    assert math.isnan(back["b"]["c"])


def pytest_fail(name):
    raise AssertionError(f"{name} is not strict JSON")


def test_numpy_and_tuples_become_plain():
    value = {"n": np.int64(3), "x": np.arange(2.0), "t": (1, 2)}
    assert decode(encode(value).encode()) == {"n": 3, "x": [0.0, 1.0], "t": [1, 2]}


def test_equal_values_give_equal_texts():
    assert encode({"b": 1, "a": 2}) == encode({"a": 2, "b": 1})
