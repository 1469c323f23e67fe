"""What is learned from: splits, subsets, distortions, normalization, loaders."""

import hashlib
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnstudy import data
from bnstudy.config import DataConfig
from bnstudy.data import files, images
from bnstudy.data.samplers import generator

MNIST = Path(os.environ.get("BNSTUDY_DATA", Path(__file__).parents[3] / "shared/data"))


def load(**kwargs):
    return data.load(DataConfig(**kwargs))


def grey(d):
    """Images before normalization."""
    mean, std = (torch.tensor(d.info[k])[:, None, None] for k in ("mean", "std"))
    return d.with_parts(lambda _, x, y: (x * std + mean, y))


def save(path, value, size=(6, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes of 20 images; the red channel of an image is its own number."""
    for label, name in enumerate(("ant", "bee")):
        for i in range(20):
            save(tmp_path / "all" / name / f"{i:02d}.png", (label * 100 + i, 10, 20))
    return tmp_path / "all"


# ---- digits, splits, subsets


def test_importing_the_room_does_not_import_torch():
    code = "import sys, bnstudy.data; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_digits_have_the_documented_parts():
    d = load()
    assert d.shape == (1, 8, 8)
    assert d.num_classes == 10
    assert d.info["sizes"] == {"train": 1197, "val": 200, "test": 400}
    assert d.train_x.dtype == torch.float32
    assert d.train_y.dtype == torch.int64


def test_every_digit_is_in_exactly_one_part():
    from sklearn.datasets import load_digits

    d = grey(load(split_seed=3))
    ours = torch.cat([x for _, x, _ in d.parts()]).mul(16).round().flatten(1)
    theirs = torch.from_numpy(load_digits().images).float().flatten(1)
    assert sorted(ours.tolist()) == sorted(theirs.tolist())


def test_labels_stay_with_their_images():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    known = {tuple(image): int(label) for image, label in zip(x, y, strict=True)}
    d = grey(load(train_size=50))
    for _, part_x, part_y in d.parts():
        keys = part_x.mul(16).round().flatten(1).tolist()
        assert [known[tuple(k)] for k in keys] == part_y.tolist()


def test_the_split_depends_on_split_seed():
    assert torch.equal(load(split_seed=1).test_y, load(split_seed=1).test_y)
    assert not torch.equal(load(split_seed=1).test_y, load(split_seed=2).test_y)


def test_parts_hold_their_share_of_every_class():
    labels = torch.arange(10).repeat_interleave(torch.arange(30, 130, 10))
    parts = images.split(labels, {"val": 80, "test": 200}, split_seed=0)
    assert [len(parts[k]) for k in ("val", "test", "train")] == [80, 200, len(labels) - 280]
    counts = torch.bincount(labels)
    for size, part in ((80, "val"), (200, "test")):
        share = counts * size / len(labels)
        # interleaving evenly, each of a part's two cuts rounds a class by less than one
        assert (torch.bincount(labels[parts[part]], minlength=10) - share).abs().max() < 2


def test_subsets_are_class_balanced_and_nested():
    small, large, whole = (grey(load(train_size=k)) for k in (25, 603, 1197))
    for d in (small, large):
        counts = torch.bincount(d.train_y, minlength=10)
        assert counts.max() - counts.min() <= 1
    keys = [set(map(tuple, d.train_x.mul(16).round().flatten(1).tolist())) for d in (small, large)]
    assert keys[0] < keys[1]
    assert torch.equal(whole.train_x, grey(load()).train_x)
    assert small.info["available"] == 1197


def test_the_remainder_of_a_subset_is_not_always_the_first_classes():
    x, y = torch.rand(50, 1, 2, 2), torch.arange(10).repeat_interleave(5)
    whole = data.Dataset(x, y, x, y, x, y, 10)
    chosen = {
        tuple(images.subset(whole, DataConfig(train_size=3, split_seed=s)).train_y.tolist())
        for s in range(5)
    }
    assert len(chosen) == 5  # by chance two agree with probability 10 / 120 at most


def test_a_subset_larger_than_the_training_part_names_both_sizes():
    with pytest.raises(ValueError, match=r"train_size=1198 .* has 1197 examples"):
        load(train_size=1198)


# ---- distortions, normalization


def test_contrast_is_one_lognormal_factor_for_each_image():
    plain, loud = grey(load()), grey(load(contrast=0.5))
    logs = []
    for (_, x, _), (_, distorted, _) in zip(plain.parts(), loud.parts(), strict=True):
        inside = x > 0.2
        # float32 rounding of (x - mean) / std and back is some 1e-6 of images up to 5
        factor = (distorted.double() / x.double().clamp(min=1e-3)).masked_fill(~inside, torch.nan)
        low, high = (torch.nan_to_num(factor, v).flatten(1) for v in (torch.inf, -torch.inf))
        assert ((high.amax(1) - low.amin(1)) / low.amin(1)).max() < 1e-3
        logs.append(low.amin(1).log())
    logs = torch.cat(logs)
    # s.e. over 1797 images: mean 0.5/42 = 0.012, s.d. 0.5/60 = 0.008; five of them
    assert abs(logs.mean()) < 0.06
    assert abs(logs.std() - 0.5) < 0.04


def test_pixel_noise_is_added_after_the_contrast_in_units_of_the_grey_range():
    quiet, noisy = grey(load(contrast=1)), grey(load(contrast=1, pixel_noise=0.2))
    for (_, x, _), (_, distorted, _) in zip(quiet.parts(), noisy.parts(), strict=True):
        noise = distorted - x
        # s.e. of the s.d. over at least 12,800 pixels: 0.2 / 160
        assert abs(noise.std() - 0.2) < 0.007
        assert abs(noise.mean()) < 0.01
    assert not torch.equal(noise[0], noise[1])


def test_distortions_do_not_depend_on_train_size():
    settings = {"name": "contrast_digits", "contrast": 1, "pixel_noise": 0.2}
    whole, small = grey(load(**settings)), grey(load(**settings, train_size=100))
    # other constants of normalization: equal up to float32 rounding of values up to about 20
    assert (whole.test_x - small.test_x).abs().max() < 1e-4
    difference = small.train_x.flatten(1)[:, None] - whole.train_x.flatten(1)
    assert difference.abs().amax(2).amin(1).max() < 1e-4


def test_distortions_are_those_of_the_named_streams():
    x, y = torch.ones(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64)
    d = images.distort(
        data.Dataset(x, y, x, y, x, y, 1), DataConfig(contrast=0.5, pixel_noise=0.2, split_seed=7)
    )
    z, noise = generator(7, "contrast"), generator(7, "pixel_noise")
    for _, distorted, _ in d.parts():  # drawn one part after the other
        factor = torch.exp(0.5 * torch.randn(4, 1, 1, 1, generator=z))
        assert torch.equal(distorted, factor + 0.2 * torch.randn(x.shape, generator=noise))


def test_normalization_constants_are_those_of_the_used_training_examples():
    d = load(train_size=100, contrast=1)
    # float32: 6,400 values rounded to 6e-8 of at most about 20
    assert abs(d.train_x.double().mean()) < 1e-5
    assert abs(d.train_x.double().std(correction=0) - 1) < 1e-5
    assert abs(d.test_x.double().mean()) > 1e-4  # the test part has a mean of its own


def test_a_constant_channel_is_centred_and_not_divided():
    x = torch.rand(50, 3, 3, 3)
    x[:, 1] = 0.7
    x[:, 2] = 0
    y = torch.arange(50) % 2
    d = images.normalize(data.Dataset(x, y, x, y, x, y, 2), available=50)
    assert d.info["std"][1:] == [1, 1]
    assert d.train_x[:, 1:].abs().max() < 1e-6


def test_the_same_configuration_gives_the_same_bits():
    a, b = (load(contrast=1, pixel_noise=0.1, train_size=300) for _ in range(2))
    for (_, x, y), (_, x2, y2) in zip(a.parts(), b.parts(), strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


def test_to_moves_every_part():
    d = load().to("meta")
    assert {x.device.type for _, *pair in d.parts() for x in pair} == {"meta"}


# ---- torchvision's packed data


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(root, folder, train=40, test=10):
    rng = np.random.default_rng(0)
    for part, n in (("train", train), ("t10k", test)):
        write_idx(root / folder / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (n, 28, 28)))
        write_idx(root / folder / f"{part}-labels-idx1-ubyte", np.arange(n) % 10)


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw")]
)
def test_idx_files_keep_their_test_part_and_give_a_tenth_for_validation(tmp_path, name, folder):
    write_mnist(tmp_path, folder)
    d = load(name=name, root=str(tmp_path))
    assert d.info["sizes"] == {"train": 36, "val": 4, "test": 10}
    assert d.test_y.tolist() == list(range(10))
    raw = (tmp_path / folder / "t10k-images-idx3-ubyte").read_bytes()[16:]
    theirs = np.frombuffer(raw, np.uint8).reshape(10, 1, 28, 28) / 255
    np.testing.assert_allclose(grey(d).test_x, theirs, atol=1e-6)


def test_cifar10_is_read_as_channels_rows_columns(tmp_path, monkeypatch):
    import torchvision

    rng = np.random.default_rng(0)
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    batches = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    pixels = {}
    for name in batches:
        pixels[name] = rng.integers(0, 256, (10, 3072), dtype=np.uint8)
        content = {"data": pixels[name], "labels": list(range(10))}
        (base / name).write_bytes(pickle.dumps(content))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))

    def sums(names):
        return [[n, hashlib.md5((base / n).read_bytes()).hexdigest()] for n in names]

    cifar = torchvision.datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", sums(batches[:5]))
    monkeypatch.setattr(cifar, "test_list", sums(batches[5:]))
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums(["batches.meta"])[0][1]}
    monkeypatch.setattr(cifar, "meta", meta)
    d = load(name="cifar10", root=str(tmp_path))
    assert d.shape == (3, 32, 32)
    assert d.info["sizes"] == {"train": 45, "val": 5, "test": 10}
    theirs = pixels["test_batch"].reshape(10, 3, 32, 32) / 255
    np.testing.assert_allclose(grey(d).test_x, theirs, atol=1e-6)


def test_absent_data_without_permission_print_the_overrides(tmp_path, monkeypatch):
    monkeypatch.delenv("BNSTUDY_DATA", raising=False)
    for cfg in (
        DataConfig(name="mnist"),
        DataConfig(name="mnist", root=str(tmp_path)),
        DataConfig(name="cifar10", root=str(tmp_path / "absent")),
    ):
        with pytest.raises(ValueError, match=r"MNIST|cifar10|mnist|absent") as e:
            data.resolve(cfg)
        assert "data.download=true" in str(e.value)
        assert "data.root=" in str(e.value)
    assert not list(tmp_path.iterdir())  # nothing was made


def test_permission_to_download_calls_torchvision(tmp_path, monkeypatch):
    import torchvision

    asked = []

    def offline(root, train, download):
        asked.append(download)
        raise RuntimeError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "MNIST", offline)
    with pytest.raises(ValueError, match=r"downloading MNIST .* no route to host"):
        data.resolve(DataConfig(name="mnist", root=str(tmp_path / "new"), download=True))
    assert asked == [True]


def test_damaged_data_are_a_message(tmp_path):
    write_mnist(tmp_path, "MNIST/raw")
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="reading MNIST"):
        load(name="mnist", root=str(tmp_path))


def test_the_root_may_come_from_the_environment(tmp_path, monkeypatch):
    write_mnist(tmp_path, "MNIST/raw")
    monkeypatch.setenv("BNSTUDY_DATA", str(tmp_path))
    assert data.resolve(DataConfig(name="mnist")).fingerprint


@pytest.mark.slow
@pytest.mark.skipif(not (MNIST / "MNIST/raw").is_dir(), reason="real MNIST is not here")
def test_real_mnist():
    d = load(name="mnist", root=str(MNIST), train_size=4000)
    assert d.info["sizes"] == {"train": 4000, "val": 5000, "test": 10000}
    assert torch.bincount(d.train_y).tolist() == [400] * 10
    # the well-known constants of the whole training part, 0.1307 and 0.3081; s.e. of the mean of
    # 4,000 images with an s.d. between images of 0.04: 0.0006
    assert abs(d.info["mean"][0] - 0.1307) < 0.003
    assert abs(d.info["std"][0] - 0.3081) < 0.003


# ---- folders of images


def test_a_folder_is_split_70_10_20_by_class(folder):
    d = load(name="image_folder", root=str(folder))
    assert d.info["sizes"] == {"train": 28, "val": 4, "test": 8}
    assert torch.bincount(d.test_y).tolist() == [4, 4]
    assert d.info["classes"] == ["ant", "bee"]
    red = grey(d).train_x[:, 0, 0, 0].mul(255).round().long()
    assert torch.equal(red // 100, d.train_y)


def test_a_folder_with_train_and_test_keeps_them(tmp_path):
    for name in ("ant", "bee"):
        for i in range(10):
            save(tmp_path / "train" / name / f"{i}.png", i)
        save(tmp_path / "test" / name / "x.png", 200)
        save(tmp_path / "unused" / name / "x.png", 200)
    d = load(name="image_folder", root=str(tmp_path))
    assert d.info["sizes"] == {"train": 18, "val": 2, "test": 2}
    assert grey(d).test_x[:, 0].mul(255).round().unique().tolist() == [200]
    before = data.fingerprint(DataConfig(name="image_folder", root=str(tmp_path)))
    save(tmp_path / "unused" / "ant" / "y.png", 9)  # what is not read does not count
    assert data.fingerprint(DataConfig(name="image_folder", root=str(tmp_path))) == before


def test_the_listing_is_that_of_torchvision(folder):
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS

    save(folder / "ant" / "deeper" / "z.PNG", 0)
    save(folder / "ant" / "Upper.jpg", 0)
    (folder / "ant" / "notes.txt").write_text("not an image")
    oracle = ImageFolder(folder)
    ours = files.list_images(folder)
    assert list(ours.classes) == oracle.classes
    assert [(str(folder / n), y) for n, y in ours.parts["all"]] == oracle.samples
    assert set(files.EXTENSIONS) == set(IMG_EXTENSIONS)


def test_decoded_images_are_kept_under_the_fingerprint(folder, tmp_path, monkeypatch):
    cfg = DataConfig(name="image_folder", root=str(folder))
    first = data.load(cfg, tmp_path / "cache")
    decodings = []
    real = images._decode_all
    monkeypatch.setattr(images, "_decode_all", lambda *a: decodings.append(1) or real(*a))
    assert torch.equal(data.load(cfg, tmp_path / "cache").train_x, first.train_x)
    assert decodings == []
    (kept,) = (tmp_path / "cache").glob("images-*.pt")
    kept.write_bytes(kept.read_bytes()[:100])
    assert torch.equal(data.load(cfg, tmp_path / "cache").train_x, first.train_x)
    save(folder / "ant" / "00.png", (250, 10, 20))
    data.load(cfg, tmp_path / "cache")
    assert decodings == [1, 1]
    assert not list((tmp_path / "cache").glob("*.pt.*"))  # nothing half-written stays


def test_grey_images_have_one_channel_and_mixed_ones_three(tmp_path):
    for name in ("ant", "bee"):
        for i in range(10):
            save(tmp_path / name / f"{i}.png", i, mode="L")
    assert load(name="image_folder", root=str(tmp_path)).shape == (1, 6, 6)
    save(tmp_path / "ant" / "0.png", (9, 9, 9))
    assert load(name="image_folder", root=str(tmp_path)).shape == (3, 6, 6)


def test_image_size_resizes_the_short_side_and_crops_the_middle(tmp_path):
    # left third black, middle white, right black: the middle square of a 12 x 4 image is white
    stripes = np.zeros((4, 12, 3), np.uint8)
    stripes[:, 4:8] = 255
    for name in ("ant", "bee"):
        for i in range(9):
            save(tmp_path / name / f"{i}.png", (0, 0, 0), size=(8, 8))
        Image.fromarray(stripes).save(tmp_path / name / "wide.png")
    cfg, cache = DataConfig(name="image_folder", root=str(tmp_path)), tmp_path.parent / "cache"
    with pytest.raises(ValueError, match=r"differ in size: .* 8x8, .*wide.png is 12x4 .*size=4"):
        data.load(cfg, cache)
    data.load(cfg.model_copy(update={"image_size": 6}), cache)
    d = grey(data.load(cfg.model_copy(update={"image_size": 4}), cache))
    values = torch.cat([x for _, x, _ in d.parts()]).mul(255).round().amin((1, 2, 3))
    assert d.shape == (3, 4, 4)
    assert sorted(values.tolist()) == [0] * 18 + [255] * 2


@pytest.mark.parametrize(
    "what", ["missing", "file", "empty", "half", "classes", "corrupt", "dangling"]
)
def test_a_folder_that_cannot_be_read_is_one_message(folder, tmp_path, what):
    root, message = folder, ""
    if what == "missing":
        root, message = tmp_path / "nowhere", "does not exist"
    elif what == "file":
        root, message = folder / "ant" / "00.png", "is a file"
    elif what == "empty":
        (folder / "cat").mkdir()
        message = "cat has no images"
    elif what == "half":
        save(folder / "train" / "ant" / "1.png", 0)
        message = "no test/ with class"
    elif what == "classes":
        save(folder / "train" / "ant" / "1.png", 0)
        save(folder / "test" / "elk" / "1.png", 0)
        message = "different classes: ant, elk"
    elif what == "corrupt":
        (folder / "bee" / "07.png").write_bytes(b"not a picture")
        message = "07.png cannot be read"
    elif what == "dangling":
        (folder / "bee" / "link.png").symlink_to(folder / "nothing")
        message = "link.png cannot be read: No such file"
    with pytest.raises(ValueError, match=message):
        load(name="image_folder", root=str(root))


# ---- fingerprints, resolve


def test_a_fingerprint_names_content_and_file_names_but_not_places(tmp_path):
    def make(root, name="a.png", value=1):
        for i in range(3):
            save(root / "ant" / f"{i}.png", i)
        save(root / "bee" / name, value)
        return data.fingerprint(DataConfig(name="image_folder", root=str(root)))

    first = make(tmp_path / "one")
    assert make(tmp_path / "two") == first
    assert make(tmp_path / "three", name="b.png") != first
    assert make(tmp_path / "four", value=2) != first


def test_a_remembered_fingerprint_is_read_until_a_file_changes(folder, tmp_path, monkeypatch):
    cfg, cache = DataConfig(name="image_folder", root=str(folder)), tmp_path / "cache"
    first = data.fingerprint(cfg, cache)
    assert first == data.fingerprint(cfg)
    hashed = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: hashed.append(1) or real(*a))
    assert data.fingerprint(cfg, cache) == first
    assert hashed == []
    os.utime(folder / "ant" / "00.png", ns=(1, 1))  # touched: looked at again, same content
    assert data.fingerprint(cfg, cache) == first
    assert len(hashed) == 40


def test_a_cache_that_cannot_be_written_is_no_obstacle(folder, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    cfg = DataConfig(name="image_folder", root=str(folder))
    assert data.load(cfg, tmp_path / "cache").num_classes == 2


def test_resolve_fills_in_hashes_and_leaves_embedded_data_alone(folder):
    assert data.resolve(DataConfig()) == DataConfig()
    cfg = data.resolve(DataConfig(name="image_folder", root=str(folder)))
    assert len(cfg.fingerprint) == 16
    assert data.resolve(cfg) == cfg
    save(folder / "ant" / "00.png", (250, 1, 1))
    with pytest.raises(ValueError, match="does not fit what is there now"):
        data.load(cfg)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "mnst"}, "unknown data set 'mnst'. Did you mean 'mnist'"),
        ({"image_size": 32}, "the size of data=digits is fixed"),
        ({"entry": "a:b"}, "data.entry=a:b is for data=custom"),
        ({"name": "image_folder"}, "data.root=FOLDER"),
        ({"name": "custom"}, "must look like package.module:function"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message, monkeypatch):
    monkeypatch.delenv("BNSTUDY_DATA", raising=False)
    with pytest.raises(ValueError, match=message):
        data.resolve(DataConfig(**settings))
