"""The notebook benchmark compares networks of one size, and says whose numbers are published."""

import json

import torch

from bnstudy.bench import notebook


def test_every_way_is_timed_and_the_chapters_numbers_stand_beside(tmp_path):
    threads = torch.get_num_threads()
    try:
        lines = notebook.run(tmp_path, 2, "bnstudy bench notebook --rounds 2", lambda text: None)
    finally:
        torch.set_num_threads(threads)
    rows = {r["way"]: r for r in json.loads((tmp_path / "notebook.json").read_text())["rows"]}
    assert len(lines) == len(rows) == 6
    assert rows["torch.nn"]["ratio"] == [1, 1, 1]
    assert rows["torch.nn"]["chapter"] == 50597.3
    assert rows["fused"]["chapter"] is None


def test_the_chapters_layer_normalizes_as_torchs_does():
    for shape in ((8, 6, 5, 5), (8, 6)):
        x = 3 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
        theirs, own = notebook.torchs(6)(x[..., None, None] if x.dim() == 2 else x), None
        own = notebook.Chapters(6)(x)
        torch.testing.assert_close(own, theirs.view(shape))
