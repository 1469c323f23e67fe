"""What is being audited: any batch normalization class or function, under one set of handles."""

import ast
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

CHANNELS = 4  # differs from every other extent below, so that a wrong axis cannot fit by accident
SHAPES = {
    2: (6, CHANNELS),
    3: (6, CHANNELS, 5),
    4: (6, CHANNELS, 3, 5),
    5: (6, CHANNELS, 2, 3, 5),
}
NAMES = {
    "gamma": ("weight", "gamma", "scale"),
    "beta": ("bias", "beta", "shift", "offset"),
    "mean": ("running_mean", "moving_mean", "mean", "moving_avg", "running_avg"),
    "var": ("running_var", "moving_var", "running_variance", "moving_variance", "var", "variance"),
}
RELATIVE = 1e-3  # float32 arithmetic on a few hundred values keeps 1e-5; every fault moves 1e-2
# argument names of the functions people write: torch.nn.functional.batch_norm's, d2l's, and kin
ARGUMENTS = {
    "x": ("x", "input", "inputs"),
    **NAMES,
    "eps": ("eps", "epsilon"),
    "momentum": ("momentum",),
    "training": ("training", "is_training", "train"),
}


class FunctionModule(nn.Module):
    """A batch norm function with the tensors it works on, as a module.

    It either updates the running statistics in place and returns the output (torch's way), or
    returns output, new mean and new variance (d2l's). Without a training argument it is
    told the mode by torch.is_grad_enabled (d2l's way).
    """

    def __init__(self, function: Callable[..., Any], ndim: int):
        super().__init__()
        self.function, self.roles = function, {}
        for name in inspect.signature(function).parameters:
            role = next((r for r, known in ARGUMENTS.items() if name.lower() in known), None)
            if role is not None:
                self.roles[name] = role
        shape = CHANNELS if "torch" in (function.__module__ or "") else _broadcast_shape(ndim)
        self.gamma = nn.Parameter(torch.ones(shape))
        self.beta = nn.Parameter(torch.zeros(shape))
        self.mean: Tensor
        self.var: Tensor
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("var", torch.ones(shape))

    def forward(self, x: Tensor) -> Tensor:
        values = {
            "x": x,
            "gamma": self.gamma,
            "beta": self.beta,
            "mean": self.mean,
            "var": self.var,
            "eps": 1e-5,
            "momentum": 0.1,
            "training": self.training,
        }
        arguments = {name: values[role] for name, role in self.roles.items()}
        output = self.function(**arguments)
        if isinstance(output, tuple):
            output, *moved = output
            self.mean, self.var = (value.detach() for value in moved)
        return output


class Subject:
    """One fresh instance for inputs of `ndim` axes, with its tensors found by name."""

    def __init__(self, build: Callable[[int], nn.Module], ndim: int):
        self.module, self.ndim, self.shape = build(ndim), ndim, SHAPES[ndim]
        self.is_function = isinstance(self.module, FunctionModule)

    def find(self, role: str) -> tuple[str, Tensor] | tuple[None, None]:
        """Qualified name and tensor of gamma, beta, mean or var; looked up again at every call,
        because a faulty forward may have bound another tensor."""
        for prefix, module in self.module.named_modules():
            own = {**vars(module), **module._parameters, **module._buffers}
            for name in NAMES[role]:
                for key in own:
                    value = own[key]
                    if (
                        key.lower().strip("_") == name
                        and isinstance(value, Tensor)
                        and value.numel() == CHANNELS
                    ):
                        return (f"{prefix}.{key}" if prefix else key), value
        return None, None

    def own(self, role: str) -> Tensor:
        """As `get`, of a tensor that an earlier check has found."""
        found = self.get(role)
        if found is None:
            raise LookupError(f"{role} is gone")
        return found

    def get(self, role: str) -> Tensor | None:
        """A copy of gamma, beta, mean or var as (C,), or None where there is none."""
        _, tensor = self.find(role)
        return None if tensor is None else tensor.detach().clone().flatten()

    def set(self, **values: Tensor | float) -> "Subject":
        for role, value in values.items():
            _, tensor = self.find(role)
            if tensor is not None:
                value = torch.as_tensor(value, dtype=tensor.dtype)
                tensor.data.copy_(value.expand(CHANNELS).reshape(tensor.shape))
        return self

    def train(self, x: Tensor) -> Tensor:
        self.module.train()
        return self.module(x)

    def evaluate(self, x: Tensor) -> Tensor:
        self.module.eval()
        with torch.no_grad():
            return self.module(x)

    def data(self, seed: int = 0) -> Tensor:
        """Channels of unlike mean and spread, so wide that no usual eps matters."""
        x = torch.randn(self.shape, generator=torch.Generator().manual_seed(seed))
        spread = self.per_channel(torch.tensor([5.0, 10.0, 20.0, 40.0]))
        return x * spread + self.per_channel(torch.tensor([-20.0, 10.0, 30.0, -50.0]))

    def per_channel(self, values: Tensor) -> Tensor:
        return values.reshape(1, CHANNELS, *[1] * (self.ndim - 2))

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        """The definition's mean and biased variance (C,), and the number of values m."""
        rows = by_channel(x)
        return rows.mean(1), rows.var(1, correction=0), rows.shape[1]


Maker = Callable[[], Subject]
Answer = Iterator[tuple[str, str]]  # (expected, seen), where the answer is wrong


def by_channel(x: Tensor) -> Tensor:
    """(N, C, *) to (C, N * positions)."""
    return x.transpose(0, 1).flatten(1)


def subjects(target: Any, init: Any = None) -> dict[int, Callable[[], Subject]]:
    """For each number of axes the target takes, how to make a fresh subject.

    Raises ValueError for what cannot be made or is no batch normalization.
    """
    name = getattr(target, "__name__", repr(target))
    if not (inspect.isclass(target) or inspect.isfunction(target) or callable(init)):
        raise ValueError(f"{name} is neither a class nor a function")
    if inspect.isclass(target) and not issubclass(target, nn.Module):
        raise ValueError(f"{name} is no torch.nn.Module, so no batch normalization layer")
    build = _builder(target, init)
    found: dict[int, Callable[[], Subject]] = {}
    reasons = []
    for ndim in SHAPES:
        try:
            subject = Subject(build, ndim)
            y = subject.train(subject.data())
            if not isinstance(y, Tensor) or y.shape != subject.shape:
                raise ValueError(f"returns {getattr(y, 'shape', type(y))} for {subject.shape}")
        except Exception as error:  # any refusal of this number of axes
            reasons.append(f"{ndim} axes: {type(error).__name__}: {error}")
            continue
        found[ndim] = partial(Subject, build, ndim)
    if not found:
        raise ValueError(
            f"{name} takes no input (N, C, *) of {CHANNELS} channels; "
            f"init='num_features=C' says how it is made.\n" + "\n".join(reasons)
        )
    some = next(iter(found.values()))()
    if some.find("mean")[1] is None and some.find("var")[1] is None:
        raise ValueError(
            f"{name} has no running mean and variance per channel (running_mean, moving_mean, "
            "...), so it is no batch normalization"
        )
    return found


def _builder(target: Any, init: Any) -> Callable[[int], nn.Module]:
    make: Any = target
    if callable(init):
        return init
    if not inspect.isclass(target):
        roles = FunctionModule(target, 2).roles.values()
        missing = {"x", "mean", "var"} - set(roles)
        if missing:
            raise ValueError(
                f"{target.__name__} has no argument for {', '.join(sorted(missing))}; known names: "
                + "; ".join(f"{role}: {', '.join(ARGUMENTS[role])}" for role in sorted(missing))
            )
        return lambda ndim: FunctionModule(target, ndim)
    if init:
        return lambda ndim: make(**_arguments(init, ndim))
    parameters = inspect.signature(target).parameters
    if "num_dims" in parameters:  # d2l: BatchNorm(num_features, num_dims)
        return lambda ndim: make(CHANNELS, num_dims=ndim)
    return lambda ndim: make(CHANNELS)


def _arguments(init: str, ndim: int) -> dict[str, object]:
    """'num_features=C, num_dims=D': C is the number of channels, D that of the input's axes."""
    try:
        call = ast.parse(f"f({init})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError
        symbols = {"C": CHANNELS, "D": ndim}
        return {
            str(word.arg): symbols[word.value.id]
            if isinstance(word.value, ast.Name)
            else ast.literal_eval(word.value)
            for word in call.keywords
        }
    except (SyntaxError, ValueError, KeyError):
        raise ValueError(
            f"init={init!r}: write arguments as name=value, where C stands for the number of "
            "channels and D for the number of axes of the input, e.g. 'num_features=C, eps=1e-5'"
        ) from None


def _broadcast_shape(ndim: int) -> tuple[int, ...]:
    return (1, CHANNELS, *[1] * (ndim - 2))


# --- what the checks compute with ---------------------------------------------------------------


def normalized(s: Subject, x: Tensor) -> Tensor:
    """The definition, gamma 1 and beta 0; eps does not matter for `Subject.data`."""
    mean, var, _ = s.moments(x)
    return (x - s.per_channel(mean)) / (s.per_channel(var) + 1e-5).sqrt()


def with_statistics(make: Maker) -> tuple[Subject, Tensor, Tensor]:
    """A subject with running statistics unlike any batch's, large enough that eps is nothing."""
    mean, var = torch.tensor([1.0, -3.0, 2.0, 0.5]), torch.tensor([4.0, 9.0, 25.0, 2.0])
    return make().set(gamma=1, beta=0, mean=mean, var=var), mean, var


def line_through(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per channel, the least-squares line y = slope * x + offset, and the scatter about it
    relative to the spread of y; each (C,)."""
    x, y = by_channel(x.detach()).double(), by_channel(y.detach()).double()
    dx, dy = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    slope = (dx * dy).sum(1) / dx.square().sum(1)
    rest = (dy - slope[:, None] * dx).square().mean(1).sqrt()
    offset = y.mean(1) - slope * x.mean(1)
    scatter = rest / dy.square().mean(1).sqrt().clamp_min(1e-12)
    return slope.float(), offset.float(), scatter.float()


def close(a: Tensor, b: Tensor, relative: float = RELATIVE) -> bool:
    """Whether a equals b, relative to the largest of b."""
    a, b = a.detach().double(), b.detach().double()
    return bool(((a - b).abs().max() <= relative * b.abs().max().clamp_min(1e-12)).item())


def show(values: Tensor) -> str:
    """A few numbers for a message."""
    return "(" + ", ".join(f"{value:.3g}" for value in values.flatten().tolist()) + ")"
