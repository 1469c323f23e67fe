"""From a config to what its networks are trained for."""

import torch

from bnstudy.config import Config
from bnstudy.engine.restoration import Restoration
from bnstudy.engine.stylization import Stylization
from bnstudy.engine.tasks import CLASSIFICATION, Task

CPU = torch.device("cpu")


def task(config: Config, channels: int, where: torch.device = CPU) -> Task:
    """The task of a config.

    Args:
        config: of any of the networks of a stack.
        channels: of the images.
        where: the device of the outputs.

    Raises:
        UserError: a style or features that are not there.
    """
    own = config.task
    if own.name == "restoration":
        return Restoration(own)
    if own.name == "stylization":
        from bnstudy.data import styles
        from bnstudy.models import features

        fixed = features.FEATURES[own.features](channels).to(where)
        style = styles.load(own, color=channels == 3).to(where)
        return Stylization(own, fixed, fixed.content, style)
    return CLASSIFICATION
