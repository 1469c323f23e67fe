"""Images whose style others are given: some that come with scikit-image, or a file."""

from pathlib import Path

import torch
import torch.nn.functional as F

from bnstudy.config import TaskConfig
from bnstudy.data import files, photo_files, photographs
from bnstudy.errors import UserError, unknown

FILE = "file"  # the style that task.style_path names
# no photograph of data=photos is among them; attribution in patches.md
STYLES = {
    "tissue": ("skimage", "data/ihc.png"),
    "stars": ("skimage", "data/hubble_deep_field.jpg"),
}


def path_of(cfg: TaskConfig) -> Path:
    """The file of a style.

    Raises UserError for an unknown name, a path without style=file or the reverse, and a file that
    is not there.
    """
    if (cfg.style == FILE) != (cfg.style_path is not None):
        raise UserError(
            f"task.style={cfg.style} with task.style_path={cfg.style_path or 'null'}: a path goes "
            f"with task.style={FILE}, and only with it"
        )
    if cfg.style_path is not None:
        path = Path(cfg.style_path).expanduser()
        if not path.is_file():
            raise UserError(f"task.style_path={cfg.style_path}: there is no such file")
        return path
    if cfg.style not in STYLES:
        raise unknown("style", cfg.style, [*STYLES, FILE])
    return files.packaged({cfg.style: STYLES[cfg.style]}, "photos")[cfg.style]


def fingerprint(cfg: TaskConfig) -> str:
    """The hash of the style's file. Raises UserError as `path_of` does."""
    return files.content_hash([path_of(cfg)])


def load(cfg: TaskConfig, color: bool) -> torch.Tensor:
    """The style image (C, H, W), levels in [0, 1]; its shorter side has `style_size` pixels.

    Raises UserError as `path_of` does, and for a file that is no image.
    """
    path = path_of(cfg)
    try:
        image = photographs.unit(photo_files.read_pixels(path, color))
    except (ValueError, OSError) as error:  # PIL's own are among them
        raise UserError(f"task.style_path={path}: no image that can be read ({error})") from None
    factor = cfg.style_size / min(image.shape[1:])
    size = [max(round(factor * length), cfg.style_size) for length in image.shape[1:]]
    return F.interpolate(image[None], size, mode="bicubic", antialias=True)[0].clamp(0, 1)
