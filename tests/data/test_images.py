"""What is learned from: splits, subsets, distortions, normalization."""

import subprocess
import sys

import pytest
import torch

from bnstudy import data
from bnstudy.config import DataConfig
from bnstudy.data import draws
from bnstudy.data.samplers import generator


def load(seed=0, **kwargs):
    return data.load(DataConfig(**kwargs), seed=seed)


def pool(x):
    """A pool whose test part is the same images again."""
    y = torch.zeros(len(x), dtype=torch.int64)
    return draws.Pool(x, y, x, y, 1, validation=lambda stream: torch.arange(1))


def grey(d):
    """Images before normalization."""
    mean, std = (torch.tensor(d.info[k])[:, None, None] for k in ("mean", "std"))
    return d.with_parts(lambda _, x, y: (x * std + mean, y))


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


def raw_images(d, *parts):
    """Rows of images in grey levels, one for each example of the parts, sorted."""
    return sorted(
        row for p in parts for row in getattr(grey(d), f"{p}_x").mul(16).round().flatten(1).tolist()
    )


def test_the_test_part_depends_on_split_seed_alone():
    first, second, other = load(), load(seed=1), load(split_seed=1)
    assert torch.equal(first.test_x, second.test_x)
    assert torch.equal(first.test_y, second.test_y)
    assert raw_images(other, "test") != raw_images(first, "test")


def test_training_and_validation_are_redrawn_from_the_pool_by_each_seed():
    first, again, second = load(), load(), load(seed=1)
    assert torch.equal(first.train_x, again.train_x)
    assert raw_images(first, "train") != raw_images(second, "train")
    assert raw_images(first, "val") != raw_images(second, "val")
    assert raw_images(first, "train", "val") == raw_images(second, "train", "val")


def test_two_seeds_agree_in_their_validation_part_as_much_as_chance_has_it():
    """Hypergeometric: 200 of 1,397 twice; 28.6 in common, s.d. 4.6. Five of them."""
    first, second = (set(map(tuple, raw_images(load(seed=s), "val"))) for s in (0, 1))
    assert abs(len(first & second) - 200**2 / 1397) < 5 * 4.6


@pytest.mark.parametrize("settings", [{}, {"contrast": 0.5, "pixel_noise": 0.1}])
def test_validation_can_stand_in_for_the_test_part(settings):
    plain, pilot = load(seed=3, **settings), load(seed=3, test_part="validation", **settings)
    assert torch.equal(pilot.test_x, plain.val_x)
    assert torch.equal(pilot.test_y, plain.val_y)
    for part in ("train", "val"):
        assert torch.equal(getattr(pilot, f"{part}_x"), getattr(plain, f"{part}_x"))
    assert pilot.info["sizes"] == {"train": 1197, "val": 200, "test": 200}


def test_pilots_measure_on_as_many_unseen_examples_as_the_test_part_has():
    plain, pilot = (
        load(seed=3, train_size=600),
        load(seed=3, train_size=600, test_part="validation"),
    )
    assert pilot.info["sizes"] == {"train": 600, "val": 200, "test": 400}
    assert torch.equal(pilot.test_x[:200], plain.val_x)
    measured = raw_images(pilot, "test")
    for part in ("train", "test"):  # the test part proper is not among them either
        assert not set(map(tuple, measured)) & set(map(tuple, raw_images(plain, part)))
    counts = torch.bincount(pilot.test_y[200:], minlength=10)
    assert counts.max() - counts.min() <= 8  # of 597 unused, 15 % more of some digits than others


def test_parts_hold_their_share_of_every_class():
    labels = torch.arange(10).repeat_interleave(torch.arange(30, 130, 10))
    counts = torch.bincount(labels)
    for size in (80, 200):
        chosen = draws.stratified(labels, size, generator(0, "anything"))
        assert len(chosen.unique()) == size
        share = counts * size / len(labels)
        # interleaving evenly, each of a part's two cuts rounds a class by less than one
        assert (torch.bincount(labels[chosen], minlength=10) - share).abs().max() < 2


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
    y = torch.arange(10).repeat_interleave(5)
    chosen = {
        tuple(sorted(y[draws.subset_order(y, generator(seed, "train_size"))[:3]].tolist()))
        for seed in range(5)
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
    # s.e. over 1,797 images: mean 0.5/42 = 0.012, s.d. 0.5/60 = 0.008; five of them
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
    x = torch.ones(4, 1, 2, 2)
    cfg = DataConfig(contrast=0.5, pixel_noise=0.2, split_seed=7)
    d = draws.distort(pool(x), cfg, seed=3)
    for distorted, seed, purpose in ((d.x, 3, ""), (d.test_x, 7, " test")):
        z = torch.randn(4, 1, 1, 1, generator=generator(seed, f"contrast{purpose}"))
        noise = torch.randn(x.shape, generator=generator(seed, f"pixel_noise{purpose}"))
        assert torch.equal(distorted, torch.exp(0.5 * z) + 0.2 * noise)


def test_distortions_follow_the_seed_but_in_the_test_part():
    """Its pixels agree but for the constants of each seed's pool."""
    settings = {"contrast": 1, "pixel_noise": 0.2}
    first, second = (grey(load(seed=seed, **settings)) for seed in (0, 1))
    # float32 rounding of values up to about 20, there and back
    assert (first.test_x - second.test_x).abs().max() < 1e-4
    plain = [grey(load(seed=seed)) for seed in (0, 1)]
    noise = [d.train_x - p.train_x for d, p in zip((first, second), plain, strict=True)]
    images = [{tuple(x) for x in n.flatten(1).round(decimals=3).tolist()} for n in noise]
    assert not images[0] & images[1]


def test_noise_of_every_step_is_left_out_of_training_images_alone():
    plain = grey(load())
    noisy = grey(load(pixel_noise=0.2, noise_every_step=True))
    assert (noisy.train_x - plain.train_x).abs().max() < 1e-6
    for part in ("val", "test"):
        noise = getattr(noisy, f"{part}_x") - getattr(plain, f"{part}_x")
        # s.e. of the s.d. over 12,800 pixels: 0.2 / 160
        assert abs(noise.std() - 0.2) < 0.007


def test_normalization_constants_are_those_of_the_whole_pool():
    """The same for every subset and, of plain images, for every seed."""
    d = load(contrast=1)
    both = torch.cat([d.train_x, d.val_x]).double()
    # float32: 89,408 values rounded to 6e-8 of at most about 20
    assert abs(both.mean()) < 1e-5
    assert abs(both.std(correction=0) - 1) < 1e-5
    assert abs(d.test_x.double().mean()) > 1e-4  # the test part has a mean of its own
    constants = [(d.info["mean"], d.info["std"]) for d in (load(), load(train_size=9, seed=4))]
    assert constants[0] == constants[1]


def test_a_constant_channel_is_centred_and_not_divided():
    x = torch.rand(50, 3, 3, 3)
    x[:, 1] = 0.7
    x[:, 2] = 0
    d = draws.normalize(pool(x))
    assert d.info["std"][1:] == [1, 1]
    assert d.x[:, 1:].abs().max() < 1e-6


def test_the_same_configuration_gives_the_same_bits():
    a, b = (load(contrast=1, pixel_noise=0.1, train_size=300) for _ in range(2))
    for (_, x, y), (_, x2, y2) in zip(a.parts(), b.parts(), strict=True):
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)


def test_to_moves_every_part():
    d = load().to("meta")
    assert {x.device.type for _, *pair in d.parts() for x in pair} == {"meta"}
