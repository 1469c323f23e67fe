"""Probes against what they claim to measure, computed another way."""

import math
from dataclasses import replace

import pytest
import torch

from bnstudy import data, norms, probes
from bnstudy.config import Config
from bnstudy.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from bnstudy.data.samplers import evaluation_order
from bnstudy.engine.evaluate import View
from bnstudy.engine.stack import make_stack
from bnstudy.engine.train import train
from bnstudy.errors import UserError
from bnstudy.probes import shift, statistics
from bnstudy.work import build as run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    return data.load(Config.model_validate({"data": {"train_size": 200}}).data)


def config(model="mlp", norm="batch", batch_size=20, **train):
    return Config.model_validate(
        {
            "data": {"train_size": 200},
            "model": {"name": model, "hidden": (16,), "width": 4},
            "norm": {"name": norm},
            "optimizer": {"lr": 0.05, "lr_rule": "none"},
            "train": {"batch_size": batch_size, "epochs": 3, **train},
            "evaluate": {"stream": 20},
        }
    )


def trained(cfg, dataset, names, seeds=(0, 1), dtype=None):
    configs = [cfg.model_copy(update={"seed": s}) for s in seeds]
    nets = [run.build(c, tuple(dataset.shape), dataset.num_classes) for c in configs]
    stack = make_stack(nets, CPU, known=True)
    before = None
    for rows in train(stack, dataset, configs, probes.find(names)):
        before = rows
    return stack, before


ALL = tuple(name for name, probe in probes.PROBES.items() if "images" in probe.of)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("model", ["mlp", "resnet"])
def test_probes_leave_the_training_as_it_is(digits, model, norm):
    """With and without all probes: the same weights, buffers and metrics to the bit."""
    plain, rows = trained(config(model, norm), digits, ())
    probed, more = trained(config(model, norm), digits, ALL)
    assert torch.equal(plain.flat, probed.flat)
    for name, buffer in plain.buffers.items():
        assert torch.equal(buffer, probed.buffers[name]), name
    for row, other in zip(rows, more, strict=True):
        assert {k: other[k] for k in row} == row
        added = other.keys() - row.keys()
        assert added
        assert all(isinstance(other[k], float) for k in added)
        if norm == "layer":
            assert all("batch" not in k and "precise" not in k for k in added)


def test_an_unknown_probe_is_named():
    with pytest.raises(UserError, match=r"unknown probe 'corruption'\. Did you mean 'corruptions'"):
        probes.find(["corruption"])


@pytest.mark.parametrize("norm", ["batch", "torch_batch", "layer", "none"])
def test_the_affine_maps_are_those_of_the_trained_networks(digits, norm):
    stack, rows = trained(config("lenet", norm), digits, ("affine",))
    for index, row in enumerate(rows):
        state = stack.state(index)
        names = [k.removesuffix(".running_mean") for k in state if k.endswith("running_mean")]
        if norm == "layer":
            names = ["1", "5", "9", "12"]
        found = sorted(k for k in row if k.startswith("gamma_mean/"))
        assert len(found) == (0 if norm == "none" else 4)
        for key, name in zip(found, names, strict=False):
            number = key[-2:]
            assert row[key] == pytest.approx(state[f"{name}.weight"].mean().item(), abs=1e-6)
            assert row[f"beta_sd/{number}"] == pytest.approx(
                state[f"{name}.bias"].std(unbiased=False).item(), abs=1e-6
            )
        if norm != "none":
            first = [row[f"first_gamma/{c:02d}"] for c in range(1, 7)]
            assert first == sorted(state[f"{names[0]}.weight"].tolist())


def test_effective_m_of_independent_values_is_m():
    """White noise: every value behind a first-layer mean is independent, m = B * H * W."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 1, 8, 8, generator=g)
    y = torch.randint(0, 10, (2000,), generator=g)
    d = data.Dataset(x, y, x[:50], y[:50], x[:50], y[:50], 10)
    _, (row, _) = trained(config("mlp", batch_size=20, epochs=None, steps=0), d, ("effective_m",))
    # a variance from 32 means over 16 channels has a relative s.d. of sqrt(2 / (31 * 16)) = 6 %
    assert row["effective_m/00"] == pytest.approx(20, rel=0.25)
    # the same image everywhere in pairs: half as many independent examples
    d = replace(d, train_x=x[:1000].repeat(2, 1, 1, 1))
    assert row["effective_m"] == min(v for k, v in row.items() if k.startswith("effective_m/"))


def test_r_and_d_are_one_and_zero_where_the_running_statistics_are_the_batch_s_own(digits):
    """One batch holds all examples: its moments are the population's, r = 1 and d = 0.

    Up to Bessel's correction of the running variance, n / (n - 1) with n = 200: log2 of its root
    is 0.0036; zero steps of averaging remain because momentum is 1.
    """
    cfg = config("mlp", batch_size=200, epochs=None, steps=1)
    cfg = cfg.model_copy(
        update={
            "norm": cfg.norm.model_copy(update={"momentum": 1.0}),
            "optimizer": cfg.optimizer.model_copy(update={"lr": 1e-12}),
        }
    )
    _, rows = trained(cfg, digits, ("renorm",))
    for row in rows:
        assert row["log_r/01"] == pytest.approx(0.5 * math.log2(200 / 199), rel=0.05)
        assert row["d/01"] < 1e-4


def test_checkpoints_add_up_what_the_rows_say(digits):
    cfg = config("mlp")
    configs = [cfg.model_copy(update={"seed": s}) for s in (0, 1)]
    nets = [run.build(c, tuple(digits.shape), 10) for c in configs]
    stack = make_stack(nets, CPU, known=True)
    history = list(train(stack, digits, configs, probes.find(["checkpoints"])))
    for i in (0, 1):
        rows = [r[i] for r in history]
        gaps = [r["test_error"] - r["test_error_precise"] for r in rows]
        assert rows[-1]["ema_gap_error"] == pytest.approx(sum(gaps) / len(gaps), abs=1e-6)
        assert rows[-1]["least_train_loss"] == min(r["train_loss"] for r in rows)
        assert [rows[-1][f"ema_error/{k:02d}"] for k in (1, 2, 3)] == [
            r["test_error"] for r in rows
        ]
        assert "ema_error/01" not in rows[0]


@pytest.mark.parametrize("model", ["mlp", "resnet"])
@pytest.mark.parametrize("known", [True, False])  # side by side, mapped
def test_averages_lose_their_initial_values(digits, model, known):
    """Averages that start at 0 and 1 and meet the same moments t times: those moments are found.

    Their part is 1 - 0.9^30 = 0.96 of the average; float32 rounds to 6e-8 of it.
    """
    cfg = config(model)
    nets = [run.build(cfg, tuple(digits.shape), 10) for _ in range(2)]
    stack = make_stack(nets, CPU, known=known)
    view = View(stack, digits, cfg, (0, 1), None)
    left, wanted = 0.9**30, {}
    for i, (name, buffer) in enumerate(stack.buffers.items()):
        if name.endswith("num_batches_tracked"):
            buffer.fill_(30)
            continue
        moments = torch.rand(buffer.shape, generator=torch.Generator().manual_seed(i)) + 0.5
        initial = 1.0 if name.endswith("running_var") else 0.0
        wanted[name] = moments
        buffer.copy_((1 - left) * moments + left * initial)
    found = statistics.corrected_statistics(view)
    assert found.keys() == wanted.keys()
    for name, moments in wanted.items():
        assert torch.allclose(found[name], moments, rtol=1e-6, atol=0), name


def test_averages_before_the_first_update_and_cumulative_ones_stay(digits):
    cfg = config("mlp")
    stack = make_stack([run.build(cfg, tuple(digits.shape), 10)], CPU, known=True)
    view = View(stack, digits, cfg, (0,), None)
    for name, value in statistics.corrected_statistics(view).items():
        assert torch.equal(value, stack.buffers[name])
    cumulative = cfg.model_copy(update={"norm": cfg.norm.model_copy(update={"momentum": None})})
    stack = make_stack([run.build(cumulative, tuple(digits.shape), 10)], CPU, known=True)
    assert statistics.corrected_statistics(View(stack, digits, cumulative, (0,), None)) == {}


def test_precise_from_all_examples_is_the_engine_s(digits):
    cfg = config("mlp", batch_size=100)
    cfg = cfg.model_copy(update={"evaluate": cfg.evaluate.model_copy(update={"large_batch": 100})})
    _, rows = trained(cfg, digits, ("precise_samples",))
    for row in rows:
        assert row["precise_small_error"] == row["test_error_precise"]


@pytest.mark.parametrize("name", ["contrast", "brightness"])
def test_batch_statistics_undo_contrast_and_brightness_exactly(name, digits):
    """A linear layer without padding, then BN: a * x + b changes nothing, at any severity.

    Float32 through two layers; one example at a decision boundary may turn: 1 / 400.
    """
    d = digits
    _, rows = trained(config("mlp"), d, ("corruptions",))
    for row in rows:
        for severity in SEVERITIES:
            # eps = 1e-5 beside variances that contrast lowers to 0.15^2 of about 1
            shifted = row[f"{name}_{severity}_error_batch256"]
            assert shifted == pytest.approx(row["test_error_large_batch"], abs=1.5 / 400)
            if name == "brightness" and severity == 5:
                assert row[f"{name}_{severity}_error"] > shifted + 0.1


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions_grow_with_severity_and_repeat(name):
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    distances = [(corrupt(x, name, s) - x).square().mean().item() for s in SEVERITIES]
    assert distances == sorted(distances)
    assert distances[0] > 0
    assert torch.equal(corrupt(x, name, 3), corrupt(x, name, 3))
    assert corrupt(x.expand(-1, 3, -1, -1), name, 2).shape == (64, 3, 8, 8)


def test_calibration_error_by_hand():
    """Two bins: confidence 0.9 right half the time, confidence 0.6 always right."""
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    labels = torch.tensor([0, 1, 0, 0])
    logits = p.log()[:, None].repeat(1, 2, 1)
    found = shift.calibration_error(logits, labels[:, None].repeat(1, 2))
    assert found.tolist() == pytest.approx([0.5 * 0.4 + 0.5 * 0.4] * 2, abs=1e-6)


def test_mixtures_end_in_their_limits(digits):
    """A prior of very many examples is the population; alpha and batches are what they say."""
    stack, _ = trained(config("resnet"), digits, ())
    view = View(stack, digits, config("resnet"), (0, 1), None)
    with stack.training(False):
        population = view.score("test")
        with shift.reading(view, "mixture", prior_examples=1e9, evaluation_group_size=4):
            mixed = view.score("test", 4)
    assert torch.allclose(mixed[0], population[0], rtol=1e-3)
    found = shift.evaluation_batch(view)
    assert {k for k in found if k.startswith("alpha")} == {f"alpha_{a}_error" for a in shift.ALPHAS}


def test_composition_is_fair_batches_without_a_skew(digits):
    cfg = config("mlp", batch_size=20, classes_per_batch=2)
    _, rows = trained(cfg, digits, ("composition",))
    for row in rows:
        assert 0 <= row["composition_error"] <= 1
        assert 0 <= row["composition_left_out"] < 0.2


def test_composition_of_a_seed_is_the_same_alone_and_beside_others_with_fewer_full_batches():
    """On the validation part each seed has other examples, and another number of full batches."""
    settings = Config.model_validate({"data": {"train_size": 200, "test_part": "validation"}}).data
    cfg = config("mlp", batch_size=20, classes_per_batch=1)
    cfg = cfg.model_copy(update={"data": settings})

    def composed(*seeds):
        dataset = data.load_many([(settings, seed) for seed in seeds])
        _, rows = trained(cfg, dataset, ("composition",), seeds)
        return [(row["composition_error"], row["composition_left_out"]) for row in rows]

    together = composed(0, 1, 2)
    assert len({left for _, left in together}) > 1
    # beside others sums of float32 may come in another order: one answer of at least 180 may change
    for seed, found in enumerate(together):
        (alone,) = composed(seed)
        assert found == pytest.approx(alone, abs=1 / 180)


def test_forgetting_of_a_stream(digits):
    cfg = config("mlp", batch_size=10, classes_per_task=2, epochs=1)
    cfg = cfg.model_copy(
        update={
            "evaluate": cfg.evaluate.model_copy(update={"steps": 4}),
            "optimizer": cfg.optimizer.model_copy(update={"lr": 0.2, "schedule": "constant"}),
        }
    )
    _, rows = trained(cfg, digits, ("forgetting",))
    for row in rows:
        # five tasks one after another: earlier ones are lost to a good part
        assert row["forgetting"] > 0.2
        assert -1 <= row["statistics_loss"] <= 1
        # among two classes more answers are right than among ten, and what is right stays so
        for name in ("old_tasks_error", "old_tasks_error_precise", "learned_error"):
            assert row[f"{name}_within"] <= row[name]
        assert row["learned_error_within"] < 0.25  # half of chance between two classes


def test_probe_batches_have_their_own_stream(digits):
    stack, _ = trained(config("mlp"), digits, ())
    view = View(stack, digits, config("mlp"), (0, 1), None)
    one, other = statistics.batch_moments(view, 10), statistics.batch_moments(view, 10)
    for name, (mean, var) in one.items():
        assert mean.shape == (32, 2, 16)
        assert torch.equal(mean, other[name][0])
        assert (var >= 0).all()


def last_rows(cfg, datasets, member, names, lost=None):
    """Of three networks side by side; the lost one has NaN for weights from the start."""
    configs = [cfg.model_copy(update={"seed": s}) for s in (0, 1, 2)]
    joined = data.join(datasets, member)
    nets = [run.build(c, tuple(joined.shape), joined.num_classes) for c in configs]
    stack = make_stack(nets, CPU, known=True)
    for block in stack.blocks(stack.flat).values():
        if lost is not None:
            block[lost] = math.nan
    *_, rows = train(stack, joined, configs, probes.find(names))
    return rows


@pytest.mark.parametrize(
    ("model", "norm", "order"),
    [
        ("mlp", "none", {}),
        ("mlp", "layer", {}),
        ("mlp", "batch", {}),
        ("mlp", "batch", {"classes_per_batch": 2}),
        ("mlp", "batch", {"classes_per_task": 2}),
        pytest.param("resnet", "batch", {}, marks=pytest.mark.slow),
    ],
)
def test_a_network_of_nans_changes_nothing_that_probes_say_of_the_others(
    digits, model, norm, order
):
    cfg = config(model, norm, **order)
    names = [name for name in ALL if name != "step_time"]  # a clock never says the same twice
    few = digits.with_parts(lambda part, x, y: (x[:200], y[:200]))
    healthy = last_rows(cfg, [few], [0, 0, 0], names)
    with_it = last_rows(cfg, [few], [0, 0, 0], names, lost=1)
    assert with_it[1]["diverged_at"] == 0
    for i in (0, 2):
        assert repr(with_it[i]) == repr(healthy[i])  # to the bit; NaN is NaN, too


def of_contrast(contrast):
    given = {"data": {"train_size": 200, "contrast": contrast}}
    return data.load(Config.model_validate(given).data)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_joined_data_are_corrupted_each_with_its_own_constants(name):
    """To the bit what each is corrupted to alone: mean, spread and noise of a cell are its own."""
    apart = [of_contrast(0.0), of_contrast(1.5)]
    assert apart[0].info["std"] != apart[1].info["std"]
    joined = data.join(apart, [0, 1, 1])
    change = lambda raw: corrupt(raw, name, 3)  # noqa: E731
    for own, found in zip(apart, joined.with_raw("test", change).test_x.chunk(2), strict=True):
        assert torch.equal(found, own.with_raw("test", change).test_x)


def test_corruptions_of_a_network_do_not_depend_on_its_stack_mates_data():
    """Float32 in stacks of other sizes: an example at a decision boundary may turn, 1 / 400."""
    apart = [of_contrast(0.0), of_contrast(1.5)]
    together = last_rows(config("mlp"), apart, [0, 1, 1], ["corruptions"])
    alone = last_rows(config("mlp"), apart[1:], [0, 0, 0], ["corruptions"])
    for key in (k for k in alone[1] if "_error" in k or "_ece" in k):
        assert together[1][key] == pytest.approx(alone[1][key], abs=1.5 / 400), key


def test_relative_gaps_are_distances_over_channels_and_means_over_batches():
    """Two batches, one network, two channels of variances 4 and 1."""
    mean, var = (
        torch.tensor([[[3.0, 0.0]], [[0.0, 4.0]]]),
        torch.tensor([[[4.0, 1.0]], [[7.0, 5.0]]]),
    )
    found = statistics.relative_gaps(mean, var, torch.zeros(1, 2), torch.tensor([[4.0, 1.0]]))
    assert found[0].tolist() == pytest.approx([3.5 / 5**0.5])  # |sd| = sqrt(4 + 1)
    assert found[1].tolist() == pytest.approx([2.5 / 17**0.5])  # 0 and |(3, 4)|, |var| = |(4, 1)|


def test_there_is_no_gap_where_the_running_statistics_are_the_batch_s_own(digits):
    """As of r and d above: Bessel's correction of the variance, 1 / 200 of it, is left."""
    cfg = config("mlp", batch_size=200, epochs=None, steps=1)
    cfg = cfg.model_copy(
        update={
            "norm": cfg.norm.model_copy(update={"momentum": 1.0}),
            "optimizer": cfg.optimizer.model_copy(update={"lr": 1e-12}),
        }
    )
    _, rows = trained(cfg, digits, ("statistics_gap",))
    for row in rows:
        assert row["variance_gap"] == pytest.approx(1 / 200, rel=0.05)
        assert row["mean_gap"] < 1e-4


def test_the_gap_is_a_mean_over_layers_and_shrinks_with_the_batch(digits):
    found = {}
    for size in (10, 50):
        # so many steps that nothing is left of the running statistics' initial values
        cfg = config("mlp", batch_size=size, epochs=None, steps=80)
        once = cfg.evaluate.model_copy(update={"steps": 80})
        cfg = cfg.model_copy(update={"evaluate": once})
        _, (row, _) = trained(cfg, digits, ("statistics_gap",))
        layers = [v for k, v in row.items() if k.startswith("variance_gap/")]
        assert row["variance_gap"] == pytest.approx(sum(layers) / len(layers))
        found[size] = row
    assert found[10]["mean_gap"] > found[50]["mean_gap"] > 0


def averaging(model="resnet", norm="batch", **optimizer):
    cfg = config(model, norm)
    own = {"weight_average": 1e9, "average_from": 0.5, **optimizer}
    return cfg.model_copy(update={"optimizer": cfg.optimizer.model_copy(update=own)})


def test_updated_statistics_are_those_of_torch(digits):
    """torch's update_bn on the same weights with torch's own layers: the same test error.

    Float32 sums in another order: one of 400 examples may turn.
    """
    cfg = averaging()
    configs = [cfg.model_copy(update={"seed": s}) for s in (0, 1)]
    stack = make_stack([run.build(c, (1, 8, 8), 10) for c in configs], CPU, known=True)
    kept = {}

    class Kept:
        always = False

        def measure(self, view):
            with view.update.averaged_weights():
                kept["nets"] = [stack.alone(i) for i in (0, 1)]
            return {}

    *_, rows = train(stack, digits, configs, [*probes.find(["averaged_weights"]), Kept()])
    for seed, (net, row) in enumerate(zip(kept["nets"], rows, strict=True)):
        for name, layer in list(norms.batch_norms(net).items()):
            theirs = torch.nn.BatchNorm2d(layer.num_features)
            theirs.load_state_dict(layer.state_dict())
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, theirs)
        order, _ = evaluation_order(200, seed, 1)
        torch.optim.swa_utils.update_bn(digits.train_x[order].split(20), net)
        with torch.no_grad():
            answers = net.eval()(digits.test_x).argmax(-1)
        wrong = (answers != digits.test_y).float().mean().item()
        assert row["update_bn_error"] == pytest.approx(wrong, abs=1.5 / 400)


def test_averages_over_the_last_step_alone_are_the_last_weights(digits):
    """A horizon within a batch: stale and averaged statistics are the running ones themselves."""
    _, rows = trained(averaging(weight_average=1.0), digits, ("averaged_weights",))
    for row in rows:
        assert row["averaged_statistics_error"] == row["test_error"] == row["test_error_averaged"]


def test_without_an_average_or_batch_norm_there_is_nothing_to_say(digits):
    plain = config("resnet")
    for cfg in (plain, averaging(norm="layer")):
        _, rows = trained(cfg, digits, ("averaged_weights",))
        assert "update_bn_error" not in rows[0]
