"""Sequences: what they contain, where their labels are, and what is refused."""

import itertools

import pytest
import torch

from bnstudy import data
from bnstudy.config import IGNORED, DataConfig
from bnstudy.data.sequences import BINS, DELAY, PAD, recut
from bnstudy.errors import UserError


def load(**cfg):
    return data.load(DataConfig(**cfg))


def lengths(ds, part="train"):
    return getattr(ds, f"{part}_x")[:, -1].sum(1).long()


def asked(y):
    """For each example the only step with a label."""
    assert ((y != IGNORED).sum(1) == 1).all()
    return (y != IGNORED).int().argmax(1)


@pytest.mark.parametrize("min_length", [None, 12])
@pytest.mark.parametrize("name", ["adding", "parity", "copy"])
def test_made_sequences_have_masks_and_their_lengths(name, min_length):
    ds = load(name=name, length=20, min_length=min_length, train_size=300)
    mask = ds.train_x[:, -1]
    assert (mask.diff(dim=1) <= 0).all(), "padding is at the end"
    own = lengths(ds)
    if min_length:
        assert (own.min(), own.max()) == (12, 20)
        assert len(own.unique()) == 9
    else:
        assert (own == 20).all()
    padded = mask == 0
    assert not ds.train_x.transpose(1, 2)[padded].any()
    assert (ds.train_y[padded] == IGNORED).all()
    assert not torch.equal(ds.train_x[:200], ds.test_x[:200])
    again = load(name=name, length=20, min_length=min_length, train_size=300)
    assert torch.equal(again.train_x, ds.train_x)


def test_adding_asks_for_the_sum_of_the_two_marked_numbers():
    ds = load(name="adding", length=15, min_length=6, train_size=500)
    value, marker = ds.train_x[:, 0], ds.train_x[:, 1]
    assert (marker.sum(1) == 2).all()
    last = asked(ds.train_y)
    assert torch.equal(last, lengths(ds) - 1)
    wanted = ((value * marker).sum(1) * BINS / 2).long().clamp(max=BINS - 1)
    assert torch.equal(ds.train_y.gather(1, last[:, None])[:, 0], wanted)
    half = lengths(ds) // 2
    first = marker.argmax(1)
    assert (first < half).all()
    assert (marker[torch.arange(500), first] == 1).all()


def test_parity_and_copy_are_right_at_every_step():
    ds = load(name="parity", length=9, train_size=50)
    ones = (ds.train_x[:, 0] > 0).long()
    assert torch.equal(ds.train_y, ones.cumsum(1) % 2)
    ds = load(name="copy", length=25, train_size=50)
    symbols = ds.train_x[:, :-1].argmax(1)
    assert (ds.train_y[:, :DELAY] == IGNORED).all()
    assert torch.equal(ds.train_y[:, DELAY:], symbols[:, :-DELAY])


def test_images_as_rows_and_pixels():
    images = load(train_size=100)
    rows = load(train_size=100, sequence="rows")
    assert rows.shape == (9, 8)  # eight pixels of a row and the mask
    assert torch.equal(rows.train_x[3, :-1, 5], images.train_x[3, 0, 5])
    pixels = load(train_size=100, sequence="pixels")
    assert pixels.shape == (2, 64)
    assert torch.equal(pixels.train_x[3, 0], images.train_x[3, 0].flatten())
    permuted = load(train_size=100, sequence="permuted")
    order = permuted.train_x[0, 0].argsort()
    assert not torch.equal(permuted.train_x[:, 0], pixels.train_x[:, 0])
    assert torch.equal(permuted.train_x[:, 0].sort(1).values, pixels.train_x[:, 0].sort(1).values)
    again = load(train_size=100, sequence="permuted", split_seed=1)
    assert not torch.equal(again.train_x[0, 0].argsort(), order)
    assert (asked(pixels.train_y) == 63).all()
    assert torch.equal(pixels.train_y[:, 63], images.train_y)


def test_images_shrink_by_averages_and_grow_bilinearly():
    images = load(train_size=50)
    small = load(train_size=50, sequence="pixels", image_size=4)
    expected = images.train_x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-2, -1)).flatten(1)
    torch.testing.assert_close(small.train_x[:, 0], expected)
    assert load(train_size=50, sequence="rows", image_size=28).shape == (29, 28)


def test_cut_images_show_their_first_pixels_only():
    whole = load(train_size=200, sequence="pixels")
    cut = load(train_size=200, sequence="pixels", min_length=10)
    own = lengths(cut)
    assert own.min() >= 10
    assert own.max() <= 64
    seen = torch.arange(64) < own[:, None]
    assert torch.equal(cut.train_x[:, 0], whole.train_x[:, 0] * seen)
    assert torch.equal(asked(cut.train_y), own - 1)


def test_text_asks_for_the_next_character(tmp_path):
    text = "".join(chr(97 + i % 23) for i in range(1000)) + "é"
    path = tmp_path / "text.txt"
    path.write_text(text, encoding="utf-8")
    ds = load(name="text", path=str(path), length=10)
    assert ds.num_classes == ds.vocabulary == 24
    assert ds.shape == (25, 10)
    windows = {text[i : i + 10]: text[i + 1 : i + 11] for i in range(0, 900, 10)}
    seen = []
    for x, y in [*zip(ds.train_x[:, 0], ds.train_y), *zip(ds.val_x[:, 0], ds.val_y)]:  # noqa: B905
        letters, asked_for = ("".join(chr(97 + i) for i in t.tolist()) for t in (x, y))
        assert windows[letters] == asked_for  # letters sort as they stand
        seen.append(letters)
    validated = [list(windows).index(w) for w in seen[80:]]
    # in one piece: 23 and 10 have no common factor, so windows repeat after 23 of them
    assert {b - a for a, b in itertools.pairwise(validated)} <= {1, 1 - 23}
    assert [len(ds.train_y), len(ds.val_y), len(ds.test_y)] == [80, 10, 9]
    wide = recut(ds, 33)
    assert wide.test_x.flatten().tolist() == ds.test_x.flatten()[:66].tolist()
    assert wide.test_y.shape == (2, 33)
    few = load(name="text", path=str(path), length=10, train_size=5)
    assert {tuple(x) for x in few.train_x[:, 0].tolist()} < set(
        map(tuple, ds.train_x[:, 0].tolist())
    )


def test_text_in_windows_of_different_lengths(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(chr(97 + i % 23) for i in range(2000)))
    ds = load(name="text", path=str(path), length=10, min_length=4)
    valid = ds.train_x[:, 0] != PAD
    assert valid.sum(1).min() == 4
    assert valid.sum(1).max() == 10
    parts = (ds.train_x, ds.val_x)
    used = sum(int((x != PAD).sum()) for x in parts)
    assert 1800 - 10 < used < 1800, "the pool's windows fill its 90 %, one after the other"
    assert torch.equal(ds.train_y != IGNORED, valid)
    assert torch.equal((ds.train_x[:, 0] + 1)[valid] % 23, ds.train_y[valid])


def test_the_text_of_the_package_is_the_same_everywhere():
    """Not what an interpreter brings along: addresses of runs on it hold this hash."""
    assert data.resolve(DataConfig(name="text")).fingerprint == "031141f9ea9a4d2a"
    ds = load(name="text")
    assert ds.vocabulary == 63
    # what the studies of lengths read: 6,400 windows of 50, and windows of 10 x 100 in the test
    assert len(ds.train_y) >= 6400
    assert ds.test_y.numel() >= 10 * 1000


def test_a_text_is_named_by_its_fingerprint(tmp_path):
    cfg = data.resolve(DataConfig(name="text"))
    assert (cfg.length, len(cfg.fingerprint)) == (50, 16)
    path = tmp_path / "text.txt"
    path.write_text("another text")
    other = data.resolve(DataConfig(name="text", path=str(path)))
    assert other.fingerprint != cfg.fingerprint
    path.rename(tmp_path / "moved.txt")
    moved = data.resolve(DataConfig(name="text", path=str(tmp_path / "moved.txt")))
    assert moved.canonical() == other.canonical(), "where a text lies is no part of the experiment"


def written(tmp_path, content: bytes):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        ("Gr\u00fc\u00dfe".encode("latin1"), r"not UTF-8: byte 2 is 0xfc.*iconv"),
        (b"too short", r"data\.length=50"),
    ],
)
def test_texts_that_cannot_be_read(content, said, tmp_path):
    with pytest.raises(UserError, match=said):
        load(name="text", path=written(tmp_path, content))


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        ({"name": "text", "path": "/no/such.txt"}, "/no/such.txt"),
        ({"name": "text", "sequence": "rows"}, r"data\.sequence=rows"),
        ({"name": "text", "train_size": 10**6}, r"train_size=1000000 .*data=text"),
        ({"name": "digits", "length": 5}, r"data\.length=5.*image_size"),
        ({"name": "digits", "min_length": 5}, r"data\.min_length=5"),
        ({"name": "digits", "path": "a.txt"}, r"data\.path=a\.txt"),
        ({"name": "copy", "length": 10}, "more than 10"),
        ({"name": "adding", "length": 1}, "2 or more"),
        ({"name": "parity", "length": 5, "min_length": 6}, r"min_length=6 .*5"),
        ({"name": "parity", "contrast": 1.0}, r"data\.contrast"),
        ({"name": "digits", "image_size": 4}, r"data\.sequence"),
    ],
)
def test_settings_that_do_not_fit_are_named(cfg, said):
    with pytest.raises(UserError, match=said):
        load(**cfg)
