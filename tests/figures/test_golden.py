"""The grammar as bytes: fixed panels give the committed pictures.

After a wanted change, look at the new pictures and commit them:
`python tests/figures/test_golden.py`.
"""

import sys
from pathlib import Path

import matplotlib
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import gallery

from bnstudy import figures

HERE = Path(__file__).parent
VERDICTS = {"more": "supported: +5.1 pp [2.4, 7.8]"}
PICTURES = {
    "headline": lambda: figures.draw(gallery.headline(), "page", "A heading: +5.1 pp", VERDICTS),
    "details": lambda: figures.draw(gallery.details(), "column"),
}


def content(name: str) -> bytes:
    """The picture, and at its end the version that drew it: others set type differently."""
    return figures.content(PICTURES[name](), "svg") + noted()


def noted() -> bytes:
    return f"<!-- matplotlib {matplotlib.__version__} -->\n".encode()


@pytest.mark.parametrize("name", PICTURES)
def test_fixed_panels_give_the_committed_picture(name):
    golden = (HERE / f"golden_{name}.svg").read_bytes()
    if not golden.endswith(noted()):
        by = golden.splitlines()[-1].decode()
        pytest.skip(
            f"the committed picture is of {by}, this is matplotlib {matplotlib.__version__}"
        )
    assert content(name) == golden, "wanted? look at it and run python tests/figures/test_golden.py"


if __name__ == "__main__":
    for name in PICTURES:
        (HERE / f"golden_{name}.svg").write_bytes(content(name))
