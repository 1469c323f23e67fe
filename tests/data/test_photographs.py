"""Photographs: parts that share nothing, patches from named streams, files as people have them."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnstudy import data
from bnstudy.config import DataConfig
from bnstudy.data.photo_files import EMBEDDED
from bnstudy.data.photographs import BLIND, degrade, load
from bnstudy.data.samplers import generator
from bnstudy.errors import UserError

pytest.importorskip("skimage")
RNG = np.random.default_rng(0)


def pixels(height=40, width=48, channels=0) -> np.ndarray:
    shape = (height, width, channels) if channels else (height, width)
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def folder(path: Path, n=10, **more: Image.Image) -> Path:
    """A folder of n grey photographs, and others by name."""
    path.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.fromarray(pixels()).save(path / f"{i}.png")
    for name, image in more.items():
        image.save(path / f"{name}.png")
    return path


def read(root, **settings) -> data.photographs.Photographs:
    settings = {"degradation": "noise", "patch_size": 16, **settings}
    return data.load(DataConfig(name="photos", root=str(root), **settings))


def embedded(**settings):
    settings = {"degradation": "noise", "patch_size": 32, **settings}
    return data.load(DataConfig(name="photos", **settings))


# --- the photographs that come along -------------------------------------------------------------


def test_no_photograph_is_in_two_parts():
    names = [name for part in EMBEDDED.values() for name in part]
    assert len(names) == len(set(names))
    paths = [path for part in EMBEDDED.values() for path in part.values()]
    assert len(paths) == len(set(paths))


def test_an_epoch_has_as_many_patches_as_tile_the_training_photographs():
    found = embedded()
    tiles = [i.shape[1] * i.shape[2] // 32**2 for i in found.images["train"]]
    assert found.size("train") == sum(tiles)
    assert torch.bincount(found.owner).tolist() == tiles
    assert found.size("test") == 4
    assert found.names["test"] == ["camera", "chelsea", "coffee", "flower"]


def test_pilots_do_not_see_the_test_photographs():
    found = embedded(test_part="validation")
    assert found.names["test"] == found.names["val"] == ["gravel", "rocket"]


def test_color_has_three_channels_and_grey_photographs_repeat_theirs():
    found = embedded(color=True)
    assert found.shape == (3, 32, 32)
    camera = dict(zip(found.names["test"], found.images["test"], strict=True))["camera"]
    assert torch.equal(camera[0], camera[2])


# --- patches -------------------------------------------------------------------------------------


def test_a_seeds_patches_do_not_depend_on_its_stack():
    found = embedded()
    index = torch.tensor([[0, 5], [7, 3], [100, 200]])
    streams = [generator(seed, "noise") for seed in (3, 4)]
    x, y = found.take("train", index, streams)
    alone_x, alone_y = found.take("train", index[:, 1:], [generator(4, "noise")])
    assert torch.equal(x[:, 1:], alone_x)
    assert torch.equal(y[:, 1:], alone_y)
    assert torch.equal(y[:, :, 1], x)  # the degraded image lies beside the clean one
    again, _ = found.take("train", index[:, 1:], [generator(5, "noise")])
    assert not torch.equal(alone_x, again)


def test_every_patch_is_a_turned_or_mirrored_part_of_its_photograph(tmp_path):
    found = read(folder(tmp_path, 6), patch_size=16)
    index = torch.arange(0, found.size("train"), 3)[:, None]
    _, y = found.take("train", index, [generator(0, "noise")])
    for i, clean in zip(found.owner[index[:, 0]].tolist(), y[:, 0, 0], strict=True):
        image = found.images["train"][i] / 255
        windows = image[0].unfold(0, 16, 1).unfold(1, 16, 1)
        turned = [torch.rot90(own, k) for own in (clean[0], clean[0].flip(1)) for k in range(4)]
        assert any((windows == t).flatten(2).all(2).any() for t in turned)


def test_only_training_photographs_are_cut():
    with pytest.raises(ValueError, match="'test'"):
        embedded().take("test", torch.zeros(1, 1, dtype=torch.long))


# --- degradations --------------------------------------------------------------------------------


def config(**settings) -> DataConfig:
    return DataConfig(name="photos", **settings)


def test_noise_has_the_sigma_that_was_asked_for():
    clean = torch.full((4, 1, 100, 100), 0.5)
    noisy = degrade(clean, config(degradation="noise", sigma=25), generator(0, "x"))
    # s.d. of an estimate from 40,000 values: sigma / sqrt(2 * 40,000); five of them
    bound = 5 * 25 / math.sqrt(2 * 40_000)
    assert float((noisy - clean).std()) * 255 == pytest.approx(25, abs=bound)
    assert (noisy - clean).abs().max() < 1  # not clipped, and no wild value


def test_blind_noise_varies_in_training_and_is_fixed_in_tests():
    clean, cfg = torch.zeros(200, 1, 16, 16), config(degradation="blind_noise", sigma=15)
    spread = 255 * degrade(clean, cfg, generator(0, "x"), training=True).flatten(1).std(1)
    assert spread.min() < 5
    assert BLIND * 0.85 < spread.max() < BLIND * 1.15  # an s.d. from 256 values: 4.4 %, three
    fixed = 255 * degrade(clean, cfg, generator(0, "x")).flatten(1).std(1)
    assert fixed.mean() == pytest.approx(15, rel=0.02)


@pytest.mark.parametrize("kind", ["downscale", "jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_details_are_lost_and_flat_areas_are_not(kind, channels):
    flat = torch.full((2, channels, 33, 31), 128 / 255)
    stripes = flat.clone()
    stripes[..., ::2] = 1.0
    cfg = config(degradation=kind, quality=5)
    # a level and a half: JPEG rounds, and so do its color transforms
    assert (degrade(flat, cfg, generator(0, "x")) - flat).abs().max() < 1.5 / 255
    assert (degrade(stripes, cfg, generator(0, "x")) - stripes).abs().mean() > 0.01


def test_whole_images_are_degraded_alike_whenever_they_are_read():
    first, second = embedded(), embedded()
    for (a, _), (b, _) in zip(first.whole("test"), second.whole("test"), strict=True):
        assert torch.equal(a, b)
    other, _ = next(embedded(split_seed=1).whole("test"))
    assert not torch.equal(other, next(first.whole("test"))[0])


# --- folders -------------------------------------------------------------------------------------


def test_any_folder_of_images_is_split(tmp_path):
    found = read(folder(tmp_path / "own", 10))
    assert found.info["sizes"] == {"train": 7, "test": 2, "val": 1}
    assert not set(found.names["train"]) & {*found.names["test"], *found.names["val"]}


def test_the_classic_layout_and_train_and_test_are_kept(tmp_path):
    for name, n in (("Train400", 10), ("Set12", 2), ("BSD68", 3)):
        folder(tmp_path / "classic" / name, n)
    found = read(tmp_path / "classic")
    assert found.info["sizes"] == {"train": 9, "val": 1, "test": 5}
    assert {n.partition("/")[0] for n in found.names["test"]} == {"Set12", "BSD68"}
    for name in ("train", "test"):
        folder(tmp_path / "plain" / name, 4)
    assert read(tmp_path / "plain").info["sizes"] == {"train": 3, "val": 1, "test": 4}


def test_a_missing_half_is_named(tmp_path):
    folder(tmp_path / "train")
    with pytest.raises(UserError, match="none in test/"):
        read(tmp_path)


def test_the_fingerprint_is_of_names_and_bytes_not_of_the_place(tmp_path):
    one, other = (DataConfig(name="photos", root=str(folder(tmp_path / n, 0))) for n in "ab")
    for place in "ab":
        Image.fromarray(np.full((20, 20), 7, np.uint8)).save(tmp_path / place / "x.png")
    assert data.resolve(one).fingerprint == data.resolve(other).fingerprint
    assert data.resolve(one).fingerprint != data.resolve(DataConfig(name="photos")).fingerprint


def test_corrupt_and_foreign_files_are_skipped_named_and_counted(tmp_path, capsys):
    root = folder(tmp_path / "own", 8)
    (root / "notes.txt").write_text("none")
    (root / "broken.png").write_bytes((root / "0.png").read_bytes()[:60])
    (root / ".hidden").write_text("")
    found = read(root)
    assert set(found.info["skipped"]) == {"notes.txt", "broken.png"}
    said = capsys.readouterr().err
    assert "2 files skipped" in said
    assert "notes.txt (no image" in said


def test_nothing_left_is_an_error_that_names_a_file(tmp_path):
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(UserError, match=r"no image that can be read \(1 file skipped, notes.txt"):
        read(tmp_path)


def test_too_few_photographs_are_refused(tmp_path):
    with pytest.raises(UserError, match="too few"):
        read(folder(tmp_path, 1))


def test_training_photographs_smaller_than_the_patch_are_skipped(tmp_path, capsys):
    for part in ("train", "val", "test"):
        folder(tmp_path / part, 2)
    Image.fromarray(pixels(20, 90)).save(tmp_path / "train" / "low.png")
    found = read(tmp_path, patch_size=24)
    assert "train/low.png" in found.info["skipped"]
    assert "90 x 20 pixels, smaller than data.patch_size=24" in capsys.readouterr().err
    with pytest.raises(UserError, match="use at most 40"):
        read(tmp_path, patch_size=64)


def image_of(root: Path, name: str, color: bool) -> torch.Tensor:
    found = read(root, color=color)
    every = {
        n: i for p in found.images for n, i in zip(found.names[p], found.images[p], strict=True)
    }
    return every[f"{name}.png"]


def test_alpha_palette_and_sixteen_bits_are_read_as_people_expect(tmp_path):
    rgb = pixels(channels=3)
    alpha = np.concatenate([rgb, pixels()[..., None]], 2)
    palette = Image.fromarray(rgb).quantize(16)
    deep = RNG.integers(0, 65536, (40, 48), dtype=np.uint16)
    root = folder(
        tmp_path, 6, alpha=Image.fromarray(alpha), palette=palette, deep=Image.fromarray(deep),
        two=Image.fromarray(np.stack([pixels(), pixels()], 2), "LA"),
    )  # fmt: skip
    assert image_of(root, "alpha", True).permute(1, 2, 0).numpy().tolist() == rgb.tolist()
    looked_up = np.asarray(palette.convert("RGB"))
    assert image_of(root, "palette", True).permute(1, 2, 0).numpy().tolist() == looked_up.tolist()
    # float32 of n / 65535 is off by 2^-25 at most
    assert np.allclose(image_of(root, "deep", False)[0], deep / 65535, rtol=0, atol=2**-24)
    assert image_of(root, "two", False).shape == (1, 40, 48)
    assert not load(data.resolve(DataConfig(name="photos", root=str(root)))).info["skipped"]


def test_pixels_without_a_known_range_are_skipped(tmp_path):
    root = folder(tmp_path, 6)
    Image.fromarray(RNG.random((40, 48), dtype=np.float32)).save(root / "float.tif")
    assert "mode 'F'" in read(root).info["skipped"]["float.tif"]


def test_tiles_lie_side_by_side_and_leave_out_a_rim(tmp_path):
    found = read(folder(tmp_path))
    tiles = found.tiles("test")
    whole = [degraded for degraded, _ in found.whole("test")]
    assert tiles.shape == (len(whole) * 2 * 3, 1, 16, 16)  # 40 x 48 pixels
    assert torch.equal(tiles[4], whole[0][0, :, 16:32, 16:32])
    assert torch.equal(tiles[6], whole[1][0, :, :16, :16])


def test_tiles_of_photographs_smaller_than_a_patch_are_none(tmp_path):
    root = folder(tmp_path / "train", 4).parent
    small = Image.fromarray(pixels(12, 40))
    folder(root / "test", 2, small=small)
    assert len(read(root).tiles("test")) == 2 * 2 * 3
    for name in ("0", "1"):
        (root / "test" / f"{name}.png").unlink()
    with pytest.raises(UserError, match="as large as a patch, 16 pixels"):
        read(root).tiles("test")
