"""A record survives its text: every bit of every number, and what is not finite."""

import json
import math

import numpy as np
import pytest

from bnstudy.store import PROVENANCE
from bnstudy.store.schema import decode, encode


def refuse(name):
    raise AssertionError(f"{name} is not strict JSON")


def test_what_is_not_finite_comes_back():
    value = {"a": [math.nan, math.inf, -math.inf, 1.5, None], "b": {"c": np.float32("nan")}}
    text = encode(value)
    json.loads(text, parse_constant=refuse)
    back = decode(text.encode())
    assert math.isnan(back["a"][0])
    assert back["a"][1:] == [math.inf, -math.inf, 1.5, None]
    assert math.isnan(back["b"]["c"])


def test_numbers_of_numpy_and_torch_become_plain():
    import torch

    value = {
        "n": np.int64(3), "x": np.arange(2.0), "t": (1, 2), "b": np.bool_(True), 5: np.float64(0.1),
        "s": torch.tensor(2), "v": torch.tensor([0.5, math.inf]),
    }  # fmt: skip
    assert decode(encode(value).encode()) == {
        "n": 3, "x": [0.0, 1.0], "t": [1, 2], "b": True, "5": 0.1, "s": 2, "v": [0.5, math.inf]
    }  # fmt: skip


def test_what_has_no_form_in_json_is_refused_by_name():
    with pytest.raises(ValueError, match="no form for object"):
        encode({"x": object()})


def test_equal_values_give_equal_texts():
    assert encode({"b": {"d": 1, "c": 2}, "a": 2}) == encode({"a": 2, "b": {"c": 2, "d": 1}})


def test_texts_are_lines_that_people_can_read_and_grep():
    assert encode({"b": 1, "a": {"c": [0.5]}}).splitlines() == [
        "{", ' "a": {', '  "c": [', "   0.5", "  ]", " },", ' "b": 1', "}"
    ]  # fmt: skip


def test_every_double_comes_back_to_the_bit():
    bits = np.random.default_rng(0).integers(0, 2**64, 20_000, dtype=np.uint64)
    given = bits.view(np.float64)
    given = given[np.isfinite(given)]
    back = np.array(decode(encode(given).encode()))
    np.testing.assert_array_equal(back.view(np.uint64), given.view(np.uint64))


def test_records_that_pythons_own_writer_made_read_the_same():
    plain = {"x": [1e-05, 1e16, -0.0, 2**70, True, None], "t": "caf\u00e9 \u2192"}
    text = json.dumps({**plain, "n": "NaN", "i": ["-Infinity"]}, indent=1, sort_keys=True)
    back = decode(text.encode())
    assert math.isnan(back.pop("n"))
    assert back.pop("i") == [-math.inf]
    assert back == plain
    assert math.copysign(1, back["x"][2]) == -1


def test_the_columns_of_provenance_keep_their_order():
    assert PROVENANCE == (
        "stack", "results_version", "study", "wall_seconds", "stack_seconds", "created", "host",
        "device", "device_name", "threads", "torch", "python", "bnstudy", "resumed", "tracker",
        "command", "launcher", "git_commit", "git_dirty",
    )  # fmt: skip
