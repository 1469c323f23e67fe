"""A figure as an address that holds its data, in the smaller of two encodings.

Measured on 17 figures of 1 to 18 panels, at 850 px and two pixels each: SVG with text as paths 83
to 1,160 kB, PNG as it was saved 130 to 1,090 kB, PNG with a palette 45 to 270 kB, the same as
lossless WebP, which browsers have read since 2020, a fifth less; lossy WebP is no smaller.
"""

import base64
import io
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

WIDTH = 850  # px on the page, at most
PPI = 100  # px of the page to an inch: figures are saved at 200, and are not resampled
# pixels of the screen to one of the page, and colors: 256 keep those of curves within 14 of 255, 64
# within 32 (a median cut of 256 moves rare ones by 57); details are most of the page's bytes
SHARPNESS = {"figure": (2.0, 256), "details": (1.5, 64)}
_LITERAL = " !$()*+,/:;=?@[]^`{|}~'"  # what an address of text may hold beside letters and digits


class Picture(NamedTuple):
    """A figure that needs no file: its data address, and its size in px for the page's layout."""

    uri: str
    width: int
    height: int


def picture(folder: Path, stem: str) -> Picture | None:
    """The smaller one of `stem`.svg and `stem`.png in a folder; None where neither is there.

    Raises ValueError for a file that is no picture, OSError for one that cannot be read.
    """
    makers: dict[str, Callable[[bytes], Picture]] = {
        "png": partial(_png, *SHARPNESS[stem]),
        "svg": _svg,
    }
    paths = {suffix: folder / f"{stem}.{suffix}" for suffix in makers}
    found = [makers[s](path.read_bytes()) for s, path in paths.items() if path.is_file()]
    return min(found, key=lambda made: len(made.uri), default=None)


def text_uri(kind: str, text: str) -> str:
    """Text as a data address, uncompressed and still legible."""
    return f"data:{kind};charset=utf-8,{quote(text, safe=_LITERAL)}"


def _svg(data: bytes) -> Picture:
    text = data.decode("utf-8")  # UnicodeDecodeError is a ValueError
    head = re.search(r"<svg\b[^>]*>", text)
    if head is None:
        raise ValueError("an SVG file without <svg>")
    size = [re.search(rf'\b{side}="([\d.]+)', head[0]) for side in ("width", "height")]
    width, height = (float(found[1]) if found else WIDTH for found in size)
    if not width or not height:
        raise ValueError("an SVG file without extent")
    shown = min(WIDTH, round(width * PPI / 72))  # matplotlib gives points
    return Picture(text_uri("image/svg+xml", text), shown, round(shown * height / width))


def _png(sharpness: float, colors: int, data: bytes) -> Picture:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data)).convert("RGBA")
    except SyntaxError as error:  # what Pillow calls a broken chunk
        raise ValueError(str(error)) from None
    opaque = Image.new("RGBA", image.size, "white")
    opaque.alpha_composite(image)
    # a file that states no resolution has two pixels to one of the page
    dpi = float(image.info.get("dpi", (0, 0))[0]) or 2 * PPI
    shown = min(WIDTH, round(image.width * PPI / dpi))
    image = opaque.convert("RGB")
    most = round(sharpness * shown)
    if image.width > most:
        size = (most, round(image.height * most / image.width))
        image = image.resize(size, Image.Resampling.LANCZOS)
    image = image.quantize(colors, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    image.convert("RGB").save(packed, "WEBP", lossless=True, quality=80, method=4)
    uri = f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode('ascii')}"
    return Picture(uri, shown, round(shown * image.height / image.width))
