"""The Transformer against torch's own blocks and itself in a stack, and what a step may see."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnstudy import data
from bnstudy.config import IGNORED, Config
from bnstudy.engine.stack import make_stack
from bnstudy.engine.tasks import CLASSIFICATION
from bnstudy.engine.widen import Widened
from bnstudy.errors import UserError
from bnstudy.models.transformer import positions
from bnstudy.norms import evaluation_mode
from bnstudy.work.build import anatomy, build, check

CPU = torch.device("cpu")
# float64 rounding (1e-16) through some ten thousand operations
EXACT = {"rtol": 1e-9, "atol": 1e-10}
NORMS = {
    "none": {"name": "none"},
    "batch": {"name": "batch"},
    "ghost": {"name": "ghost", "group_size": 4},
    "layer": {"name": "layer"},
    "group": {"name": "group", "num_groups": 2},
    "rms": {"name": "rms"},
    "dyt": {"name": "dyt"},
    "power": {"name": "power", "warmup": 1},
}


def config(norm="layer", **parts) -> Config:
    return Config.model_validate(
        {
            "data": {"name": "parity", "length": 7, "train_size": 16, **parts.pop("data", {})},
            "model": {"name": "transformer", "depth": 2, "width": 8, "heads": 2,
                      **parts.pop("model", {})},
            "norm": NORMS[norm] if isinstance(norm, str) else norm,
            "train": {"batch_size": 8, "steps": 3},
            **parts,
        }
    )  # fmt: skip


def network(norm="layer", seed=0, **parts):
    """For sequences of 3 channels (or tokens) and 5 classes, its zeros replaced."""
    net = build(config(norm, seed=seed, **parts), (4, 7), 5).double()
    rng = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        if p.dim() == 1:
            p.data += 0.3 * torch.randn(p.shape, generator=rng).double()
    return net


def tokens(n=8, steps=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 3, (n, 1, steps), generator=g)
    return x, torch.randint(0, 5, (n, steps), generator=g)


def mean_loss(net, x, y):
    return CLASSIFICATION.score(net(x)[:, None], y[:, None])[0].sum()


def test_with_layer_norm_it_is_torchs_encoder_with_a_causal_mask():
    net = network()
    own = {"norm1": "norm_attention", "norm2": "norm_mlp", "linear1": "up", "linear2": "down",
           "self_attn.out_proj": "output"}  # fmt: skip
    x, y = tokens()
    h = (net.embedding.weight[x[:, 0]] + positions(7, net.embedding.weight)).detach()
    for block in net.blocks:
        theirs = nn.TransformerEncoderLayer(8, 2, 32, 0.0, batch_first=True, norm_first=True)
        theirs = theirs.double()
        for name, mine in own.items():
            theirs.get_submodule(name).load_state_dict(getattr(block, mine).state_dict())
        theirs.self_attn.in_proj_weight.data.copy_(block.query_key_value.weight)
        theirs.self_attn.in_proj_bias.data.copy_(block.query_key_value.bias)
        h = theirs(h, src_mask=torch.ones(7, 7, dtype=torch.bool).triu(1))
    wanted = net.readout(F.layer_norm(h, (8,), net.norm.weight, net.norm.bias))
    torch.testing.assert_close(net(x), wanted, **EXACT)
    mean_loss(net, x, y).backward()
    last = net.blocks[1].query_key_value.weight.grad.clone()
    F.cross_entropy(wanted.flatten(0, 1), y.flatten()).backward()
    torch.testing.assert_close(theirs.self_attn.in_proj_weight.grad, last, **EXACT)


def test_positions_are_the_papers_sines():
    code = positions(50, torch.empty(8, dtype=torch.float64))
    for place, i in ((0, 0), (3, 1), (49, 3)):
        angle = torch.tensor(place / 10_000 ** (2 * i / 8), dtype=torch.float64)
        assert code[place, 2 * i] == pytest.approx(angle.sin().item())
        assert code[place, 2 * i + 1] == pytest.approx(angle.cos().item())


@pytest.mark.parametrize("norm", NORMS)
def test_tokens_are_one_hot_channels(norm):
    x, _ = tokens()
    valid = torch.ones(8, 1, 7).double()
    one_hot = F.one_hot(x[:, 0], 3).double().transpose(1, 2)
    both = [network(norm)(given) for given in (x, torch.cat([one_hot, valid], 1))]
    torch.testing.assert_close(*both, **EXACT)


@pytest.mark.parametrize("norm", NORMS)
def test_no_step_sees_a_later_one(norm):
    """In evaluation; in training a batch's statistics are of all steps."""
    net = network(norm)
    mean_loss(net, *tokens())  # some population statistics
    x, _ = tokens(seed=1)
    other = x.clone()
    other[:, :, 4:] = (x[:, :, 4:] + 1) % 3
    for training in (False, True)[: 1 if norm in ("batch", "ghost", "power") else 2]:
        net.train(training)
        before, after = net(x), net(other)
        torch.testing.assert_close(after[:, :4], before[:, :4], **EXACT)
        assert (after[:, 4:] - before[:, 4:]).abs().max() > 1e-3


@pytest.mark.parametrize("norm", ["none", "layer", "rms", "dyt"])
def test_how_much_padding_there_is_and_what_stands_there_changes_nothing(norm):
    x, y = tokens(steps=5)
    y[:, 3:] = IGNORED
    x[:, :, 3:] = -1
    found = []
    for given, labels in ((x, y), (F.pad(x, (0, 2), value=-1), F.pad(y, (0, 2), value=IGNORED))):
        net = network(norm)
        mean_loss(net, given, labels).backward()
        found.append([net(given)[:, :3], *[p.grad for p in net.parameters()]])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, **EXACT)
    values = torch.randn(8, 4, 5).double()
    values[:, 3] = torch.arange(5) < 3
    junk = values.clone()
    junk[:, :3, 3:] = torch.inf
    torch.testing.assert_close(net(junk)[:, :3], net(values)[:, :3], **EXACT)


def test_batch_norm_is_over_batch_and_positions_and_groups_count_examples():
    net, x = network("batch"), torch.randn(8, 7, 8).double()
    inputs = []
    hook = net.norm.register_forward_hook(lambda _, given, y: inputs.extend([given[0], y]))
    net(tokens()[0])
    hook.remove()
    given, y = (t.squeeze(-1).transpose(1, 2).reshape(-1, 8) for t in inputs)
    wanted = F.batch_norm(given, None, None, net.norm.weight, net.norm.bias, True)
    torch.testing.assert_close(y, wanted, **EXACT)
    ghost = network("ghost")
    half = network("batch")
    x, _ = tokens()
    torch.testing.assert_close(ghost(x), torch.cat([half(x[:4]), half(x[4:])]), **EXACT)
    with evaluation_mode(net.eval(), "batch", 4):
        torch.testing.assert_close(net(x), torch.cat([half(x[:4]), half(x[4:])]), **EXACT)


@pytest.mark.parametrize("norm", NORMS)
def test_a_stack_is_its_networks_apart_over_three_steps(norm):
    seeds = (3, 4, 5)
    alone = [network(norm, s) for s in seeds]
    stack = make_stack([network(norm, s) for s in seeds], CPU, norm != "rms")
    assert isinstance(stack, Widened) is (norm != "rms")
    for step in range(3):
        batch = [tokens(seed=10 * step + s) for s in seeds]
        x, y = (torch.stack(part, 1) for part in zip(*batch, strict=True))
        with stack.training(True):
            loss, _ = stack.gradient(x, y)
        blocks = stack.blocks(stack.grad)
        for i, net in enumerate(alone):
            net.train().zero_grad()
            own = mean_loss(net, *batch[i])
            own.backward()
            torch.testing.assert_close(loss[i], own.detach(), **EXACT)
            for name, p in net.named_parameters():
                torch.testing.assert_close(blocks[name][i], p.grad, **EXACT, msg=name)
            for name, b in net.named_buffers():
                torch.testing.assert_close(stack.buffers_of(i)[name], b, **EXACT, msg=name)
        with stack.training(False):
            for i, net in enumerate(alone):
                torch.testing.assert_close(stack.predict(x)[:, i], net.eval()(batch[i][0]), **EXACT)


def test_it_reads_the_text_and_its_norms_count_batch_times_positions():
    cfg = config("batch", data={"name": "text", "length": 12, "train_size": 64})
    text = data.load(cfg.data)
    check(cfg, text)
    found = anatomy(cfg, text)
    assert [(la["channels"], la["m"]) for la in found.layers] == [(8, 8 * 12)] * 5
    linear = 2 * (3 * 8 * 8 + 8 * 8 + 2 * 4 * 8 * 8) + 8 * text.num_classes
    assert found.macs == 12 * linear + 2 * 2 * 12 * 12 * 8
    rows = anatomy(config("layer", data={"name": "text", "length": 12, "train_size": 64}), text)
    assert [la["m"] for la in rows.layers] == [8] * 5


def refused(cfg, ds):
    check(cfg, ds)
    anatomy(cfg, ds)


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        (config(model={"heads": 3}), r"model\.heads=3 does not divide model\.width=8"),
        (config({"name": "continual", "num_groups": 2}), "must not see later ones"),
        (config({"name": "instance"}), "instance|one value"),
        (config("batch", data={"min_length": 3}), r"data\.min_length=3.*norm=layer"),
        (config("power", data={"min_length": 3}), r"data\.min_length=3.*norm=layer"),
        (config({"name": "power", "momentum": None}), "momentum=None"),
        (config("layer", model={"hidden": (3,)}), "transformer model has no hidden"),
    ],
)
def test_what_cannot_train_is_refused_before_it_starts(cfg, said):
    ds = data.load(cfg.data)
    with pytest.raises(UserError, match=said):
        refused(cfg, ds)


def test_images_are_no_sequences():
    with pytest.raises(UserError, match=r"data\.sequence=rows"):
        build(config(), (1, 8, 8), 10)
