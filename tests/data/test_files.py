"""Data on disk: packed files, folders of images, fingerprints, and what is refused."""

import hashlib
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnstudy import data
from bnstudy.config import DataConfig
from bnstudy.data import files, images

MNIST = Path(os.environ.get("BNSTUDY_DATA", Path(__file__).parents[3] / "shared/data"))
CIFAR10_JPEG = MNIST / "cifar10-jpeg.tar.xz"


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


class Forgetful(dict):
    """The memory of a process that remembers the last pool only."""

    def __contains__(self, key):
        return False

    def move_to_end(self, key):
        pass

    def popitem(self, last):
        self.clear()


def first_pixels(folder: Path) -> bytes:
    """The first channel of the first image, as it lies in decoded images."""
    with Image.open(folder / "ant" / "00.png") as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)[0].tobytes()


def test_decoded_images_are_kept_under_the_fingerprint(folder, tmp_path, monkeypatch):
    cfg = DataConfig(name="image_folder", root=str(folder))
    first = data.load(cfg, tmp_path / "cache")
    decodings = []
    real = images._decode_all
    monkeypatch.setattr(data, "_kept", Forgetful())  # as in one process after another
    monkeypatch.setattr(images, "_decode_all", lambda *a: decodings.append(1) or real(*a))
    assert torch.equal(data.load(cfg, tmp_path / "cache").train_x, first.train_x)
    assert decodings == []
    (kept,) = (tmp_path / "cache").glob("images-*.pt")
    kept.write_bytes(kept.read_bytes()[:100])
    assert torch.equal(data.load(cfg, tmp_path / "cache").train_x, first.train_x)
    torn = bytearray(kept.read_bytes())
    torn[torn.index(first_pixels(folder))] ^= 1  # torch.load would not notice
    kept.write_bytes(torn)
    assert torch.equal(data.load(cfg, tmp_path / "cache").train_x, first.train_x)
    assert decodings == [1, 1]
    (noted,) = (tmp_path / "cache").glob("fingerprint-*.txt")
    right = noted.read_text()
    noted.write_text(chr(ord(right[0]) ^ 1) + right[1:])
    assert data.resolve(cfg, tmp_path / "cache").fingerprint == right.split()[0]
    save(folder / "ant" / "00.png", (250, 10, 20))
    data.load(cfg, tmp_path / "cache")
    assert decodings == [1, 1, 1]
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


def test_photographs_that_are_not_cifar10_are_not_taken_for_it(tmp_path):
    for name in ("ant", "bee"):
        for part in ("train", "test"):
            for i in range(10):
                save(tmp_path / part / name / f"{i}.png", i)
    assert load(name="image_folder", root=str(tmp_path)).info["classes"] == ["ant", "bee"]
    with pytest.raises(ValueError, match=r"is not CIFAR-10: .*airplane.* found are train/ with 20"):
        load(name="cifar10_jpeg", root=str(tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10_JPEG.is_file(), reason="needs CIFAR-10 re-encoded as JPEG")
def test_cifar10_as_jpeg(tmp_path):
    with tarfile.open(CIFAR10_JPEG) as archive:
        archive.extractall(tmp_path, filter="data")
    d = load(name="cifar10_jpeg", root=str(tmp_path), image_size=16, train_size=2000)
    assert d.shape == (3, 16, 16)
    assert d.info["sizes"] == {"train": 2000, "val": 5000, "test": 10_000}
    assert torch.bincount(d.train_y).tolist() == [200] * 10


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
