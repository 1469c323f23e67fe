"""Batch normalization as people really write it: one correct class, and faults, one in each.

Every fault is a subclass of the correct class, in the style of the d2l chapter, that overrides the
one step it gets wrong. FAULTS maps the class to the name of the check that must find it.
"""

import torch
from torch import nn


class Correct(nn.Module):
    """From scratch in the d2l style, with the details right."""

    def __init__(self, num_features, num_dims):
        super().__init__()
        self.shape = (1, num_features) + (1,) * (num_dims - 2)
        self.axes = [axis for axis in range(num_dims) if axis != 1]
        self.eps, self.momentum = 1e-5, 0.1
        self.gamma = nn.Parameter(torch.ones(self.shape))
        self.beta = nn.Parameter(torch.zeros(self.shape))
        self.register_buffer("moving_mean", torch.zeros(self.shape))
        self.register_buffer("moving_var", torch.ones(self.shape))

    def is_training(self):
        return self.training

    def statistics(self, x):
        mean = x.mean(self.axes, keepdim=True)
        return mean, ((x - mean) ** 2).mean(self.axes, keepdim=True)

    def normalize(self, x, mean, var):
        return (x - mean) / torch.sqrt(var + self.eps)

    def affine(self, x_hat):
        return self.gamma * x_hat + self.beta

    def unbiased(self, x, var):
        m = x.numel() / x.shape[1]
        return var * m / (m - 1)

    def average(self, old, new):
        return (1 - self.momentum) * old + self.momentum * new

    def update(self, x, y, mean, var):
        self.moving_mean = self.average(self.moving_mean, mean.detach())
        self.moving_var = self.average(self.moving_var, self.unbiased(x, var.detach()))

    def forward(self, x):
        if not self.is_training():
            return self.affine(self.normalize(x, self.moving_mean, self.moving_var))
        if x.numel() == x.shape[1]:
            raise ValueError("one value per channel has no variance")
        mean, var = self.statistics(x)
        y = self.affine(self.normalize(x, mean, var))
        self.update(x, y, mean, var)
        return y


class PerExample(Correct):
    def statistics(self, x):
        axes = list(range(1, x.dim()))
        return x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)

    def update(self, x, y, mean, var):
        super().update(x, y, *super().statistics(x))


class PerPosition(Correct):
    """The formula for vectors, used on images."""

    def statistics(self, x):
        return x.mean(0, keepdim=True), x.var(0, correction=0, keepdim=True)

    def update(self, x, y, mean, var):
        super().update(x, y, *super().statistics(x))


class AllChannelsTogether(Correct):
    def statistics(self, x):
        return x.mean(), x.var(correction=0)

    def update(self, x, y, mean, var):
        super().update(x, y, *super().statistics(x))


class UnbiasedOutput(Correct):
    """torch.var without correction=0."""

    def statistics(self, x):
        return x.mean(self.axes, keepdim=True), x.var(self.axes, keepdim=True)

    def unbiased(self, x, var):
        return var


class MissingRoot(Correct):
    def normalize(self, x, mean, var):
        return (x - mean) / (var + self.eps)


class BiasedBuffer(Correct):
    """The d2l chapter's own."""

    def unbiased(self, x, var):
        return var


class EpsOutsideRoot(Correct):
    def normalize(self, x, mean, var):
        return (x - mean) / (torch.sqrt(var) + self.eps)


class NoEps(Correct):
    def normalize(self, x, mean, var):
        return (x - mean) / torch.sqrt(var)


class EpsInTrainingOnly(Correct):
    def normalize(self, x, mean, var):
        return (x - mean) / torch.sqrt(var + (self.eps if self.training else 0.0))


class MomentumReversed(Correct):
    def average(self, old, new):
        return self.momentum * old + (1 - self.momentum) * new


class PlainAttributes(Correct):
    """The d2l chapter's own: moved by hand, never saved."""

    def __init__(self, num_features, num_dims):
        super().__init__(num_features, num_dims)
        del self.moving_mean, self.moving_var
        self.moving_mean, self.moving_var = torch.zeros(self.shape), torch.ones(self.shape)


class StatisticsAsParameters(Correct):
    def __init__(self, num_features, num_dims):
        super().__init__(num_features, num_dims)
        del self.moving_mean, self.moving_var
        self.moving_mean = nn.Parameter(torch.zeros(self.shape))
        self.moving_var = nn.Parameter(torch.ones(self.shape))

    def update(self, x, y, mean, var):
        mean, var = mean.detach(), self.unbiased(x, var.detach())
        self.moving_mean.data = self.average(self.moving_mean.data, mean)
        self.moving_var.data = self.average(self.moving_var.data, var)


class StatisticsNotSaved(Correct):
    def __init__(self, num_features, num_dims):
        super().__init__(num_features, num_dims)
        self.register_buffer("moving_var", torch.ones(self.shape), persistent=False)


class StatisticsOfOutput(Correct):
    """Running statistics of gamma * x_hat + beta."""

    def update(self, x, y, mean, var):
        super().update(y, y, *self.statistics(y))


class MeanScaledByGamma(Correct):
    def update(self, x, y, mean, var):
        super().update(x, y, mean * self.gamma, var)


class RunningDeviation(Correct):
    """Averages the standard deviation, uses its square."""

    def update(self, x, y, mean, var):
        std = torch.sqrt(self.unbiased(x, var.detach()))
        self.moving_mean = self.average(self.moving_mean, mean.detach())
        self.moving_var = self.average(torch.sqrt(self.moving_var), std) ** 2


class NeverUpdates(Correct):
    def update(self, x, y, mean, var):
        pass


class EvaluationByBatch(Correct):
    def forward(self, x):
        if self.training:
            return super().forward(x)
        return self.affine(self.normalize(x, *self.statistics(x)))


class TrainingByRunning(Correct):
    def normalize(self, x, mean, var):
        return super().normalize(x, self.moving_mean, self.moving_var)


class EvaluationUpdates(Correct):
    def forward(self, x):
        if not self.training and len(x) > 1:
            y = self.affine(self.normalize(x, self.moving_mean, self.moving_var))
            self.update(x, y, *self.statistics(x))
            return y
        return super().forward(x)


class MeanDetached(Correct):
    def statistics(self, x):
        mean = x.mean(self.axes, keepdim=True).detach()
        return mean, ((x - mean) ** 2).mean(self.axes, keepdim=True)


class VarianceDetached(Correct):
    def statistics(self, x):
        mean, var = super().statistics(x)
        return mean, var.detach()


class ShiftBeforeScale(Correct):
    def affine(self, x_hat):
        return self.gamma * (x_hat + self.beta)


class GammaFromNormal(Correct):
    def __init__(self, num_features, num_dims):
        super().__init__(num_features, num_dims)
        nn.init.normal_(self.gamma)


class BetaOne(Correct):
    def __init__(self, num_features, num_dims):
        super().__init__(num_features, num_dims)
        nn.init.ones_(self.beta)


class AffineNotLearned(Correct):
    def __init__(self, num_features, num_dims):
        super().__init__(num_features, num_dims)
        del self.gamma, self.beta
        self.gamma, self.beta = torch.ones(self.shape), torch.zeros(self.shape)


class ModeFromGradients(Correct):
    """The d2l chapter's own: torch.is_grad_enabled instead of self.training."""

    def is_training(self):
        return self.training and torch.is_grad_enabled()


class ModeFromGradientsAlone(Correct):
    def is_training(self):
        return torch.is_grad_enabled()


class FirstBatchReplaces(Correct):
    def __init__(self, num_features, num_dims):
        super().__init__(num_features, num_dims)
        self.fresh = True

    def average(self, old, new):
        return new if self.fresh else super().average(old, new)

    def update(self, x, y, mean, var):
        super().update(x, y, mean, var)
        self.fresh = False


class VarianceStartsAtZero(Correct):
    def __init__(self, num_features, num_dims):
        super().__init__(num_features, num_dims)
        self.moving_var.zero_()


class KeepsTheGraph(Correct):
    def update(self, x, y, mean, var):
        self.moving_mean = self.average(self.moving_mean, mean)
        self.moving_var = self.average(self.moving_var, self.unbiased(x, var))


class DividesByZero(Correct):
    """No refusal of one value per channel, m / (m - 1) all the same."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        mean, var = self.statistics(x)
        y = self.affine(self.normalize(x, mean, var))
        with torch.no_grad():
            m = torch.tensor(x.numel() / x.shape[1])
            self.moving_mean = self.average(self.moving_mean, mean)
            self.moving_var = self.average(self.moving_var, var * m / (m - 1))
        return y


class ChangesInput(Correct):
    """Centres in place to save memory."""

    def normalize(self, x, mean, var):
        if not x.requires_grad:
            x -= mean
            return x / torch.sqrt(var + self.eps)
        return super().normalize(x, mean, var)


FAULTS = {
    PerExample: "axes",
    PerPosition: "axes",
    AllChannelsTogether: "axes",
    UnbiasedOutput: "output_variance",
    MissingRoot: "output_variance",
    BiasedBuffer: "unbiased_running_variance",
    EpsOutsideRoot: "eps",
    NoEps: "eps",
    EpsInTrainingOnly: "eps",
    MomentumReversed: "momentum",
    PlainAttributes: "buffers",
    StatisticsAsParameters: "buffers",
    StatisticsNotSaved: "buffers",
    StatisticsOfOutput: "running_statistics",
    MeanScaledByGamma: "running_statistics",
    RunningDeviation: "running_statistics",
    NeverUpdates: "running_statistics",
    EvaluationByBatch: "evaluation_statistics",
    TrainingByRunning: "training_statistics",
    EvaluationUpdates: "evaluation_leaves_state",
    MeanDetached: "gradient",
    VarianceDetached: "gradient",
    ShiftBeforeScale: "affine",
    GammaFromNormal: "gamma_init",
    BetaOne: "beta_init",
    AffineNotLearned: "affine_learned",
    ModeFromGradients: "modes_under_no_grad",
    ModeFromGradientsAlone: "modes_under_no_grad",
    FirstBatchReplaces: "first_batch",
    VarianceStartsAtZero: "first_batch",
    KeepsTheGraph: "detached",
    DividesByZero: "batch_of_one",
    ChangesInput: "input_untouched",
}


def correct_function(x, gamma, beta, moving_mean, moving_var, eps, momentum):
    """d2l's signature and its way of telling the mode, with the unbiased variance in the buffer."""
    if not torch.is_grad_enabled():
        return (
            gamma * (x - moving_mean) / torch.sqrt(moving_var + eps) + beta,
            moving_mean,
            moving_var,
        )
    axes = [axis for axis in range(x.dim()) if axis != 1]
    mean, var = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)
    y = gamma * (x - mean) / torch.sqrt(var + eps) + beta
    m = x.numel() // x.shape[1]
    if m == 1:
        raise ValueError("one value per channel has no variance")
    moving_mean = (1 - momentum) * moving_mean + momentum * mean
    moving_var = (1 - momentum) * moving_var + momentum * var * m / (m - 1)
    return y, moving_mean, moving_var


def faulty_function(x, gamma, beta, moving_mean, moving_var, eps, momentum):
    """Momentum applied to the wrong term."""
    return correct_function(x, gamma, beta, moving_mean, moving_var, eps, 1 - momentum)
