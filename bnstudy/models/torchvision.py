"""Any classifier of torchvision, with every batch norm replaced by the chosen norm."""

from torch import Tensor, nn

from bnstudy.errors import UserError, unknown


class Repeat(nn.Module):
    """One grey channel as three equal ones, which torchvision's networks expect."""

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1)


def torchvision(config, shape, num_classes, norm) -> nn.Module:
    """`model.arch` from torchvision's register of classifiers, untrained, with `norm` for its BN.

    Input (N, 1 or 3, H, W); logits (N, num_classes). Initial gammas that the architecture sets to
    zero stay zero. Networks with dropout train one seed at a time.

    Raises:
        UserError: unknown architecture (with the nearest), or images of other than 1 or 3 channels.
    """
    from torchvision import models

    known = models.list_models(models)
    if config.arch not in known:
        raise unknown("model.arch", config.arch, known)
    if shape[0] not in (1, 3):
        raise UserError(f"model={config.arch} takes 1 or 3 channels, the images have {shape[0]}")
    extra = {"aux_logits": False} if config.arch in ("googlenet", "inception_v3") else {}
    extra |= {"init_weights": True} if extra else {}
    net = models.get_model(config.arch, weights=None, num_classes=num_classes, **extra)
    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                layer = norm(child.num_features)
                gamma = getattr(layer, "weight", None)
                # on the meta device, where shapes are checked, there are no values to look at
                if gamma is not None and not child.weight.is_meta and not child.weight.any():
                    nn.init.zeros_(gamma)
                setattr(parent, name, layer)
    return nn.Sequential(Repeat(), net) if shape[0] == 1 else net
