"""Style images: by name, from a file, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from bnstudy.config import TaskConfig
from bnstudy.data import styles
from bnstudy.errors import UserError


def config(**given) -> TaskConfig:
    return TaskConfig(name="stylization", **given)


@pytest.mark.parametrize("name", styles.STYLES)
@pytest.mark.parametrize("color", [False, True])
def test_a_style_by_name_has_the_size_that_was_asked_for(name, color):
    image = styles.load(config(style=name, style_size=48), color)
    assert len(image) == (3 if color else 1)
    assert min(image.shape[1:]) == 48
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std() > 0.05


def test_a_file_is_read_and_named_by_its_bytes_not_by_its_path(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 4), dtype=np.uint8)
    paths = tmp_path / "a.png", tmp_path / "b.png"
    for path in paths:
        Image.fromarray(pixels).save(path)  # with alpha
    first, second = (config(style="file", style_path=str(path)) for path in paths)
    assert styles.load(first, color=True).shape == (3, 128, 192)
    assert styles.fingerprint(first) == styles.fingerprint(second)
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(paths[1])
    assert styles.fingerprint(first) != styles.fingerprint(second)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"style": "tisue"}, "Did you mean 'tissue'"),
        ({"style": "file"}, "a path goes with task.style=file"),
        ({"style_path": "x.png"}, "a path goes with task.style=file"),
        ({"style": "file", "style_path": "absent.png"}, "no such file"),
    ],
)
def test_a_mistake_is_one_message(given, said):
    with pytest.raises(UserError, match=said):
        styles.fingerprint(config(**given))


def test_a_file_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    given = config(style="file", style_path=str(tmp_path / "text.png"))
    with pytest.raises(UserError, match="no image that can be read"):
        styles.load(given, color=False)
