"""Result folders as a study leaves them, for tests of what reads them."""

import io
import json
import math

from PIL import Image, ImageDraw

from bnstudy.stats import Claim, judge

SVG = (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="510pt" '
       b'height="200pt"><path d="M 1 2 \nL 3 4 # 100% &amp;"/></svg>')  # fmt: skip
STUDY = {
    "name": "batch_size",
    "group": "batches",
    "title": "Error against batch size",
    "claim": "BN degrades at batch 2 & GN does not <script>alert(1)</script>",
    "source": "Wu & He 2018, figure 1",
    "papers": {"Wu & He 2018": "https://arxiv.org/abs/1803.08494"},
    "rule": "equal epochs, lr proportional to batch",
    "cost": "4 minutes on 2 cores",
    "expected": "BN's curve crosses GN's on contrast digits",
    "notes": ["contrast digits were chosen because pilots on plain digits showed no effect"],
    "scale": "quick",
    "seeds": [0, 1, 2, 3, 4],
    "n_runs": 100,
    "command": "bnstudy study batch_size scale=quick",
    "caption": "Mean over 5 paired seeds",
    "alt": {"figure": "BN's error rises from 15 to 21 %", "details": "every arm"},
    "created_with": {"torch": "2.11"},
    "published": {"difference in differences": "+11.1 pp"},
    "status": "confirmatory",
    "status_reason": "all records follow the registration",
}


def verdicts(mean=9.0):
    """Three verdicts: a primary of this mean over 7 seeds, a lost cell, and a weak one."""
    values = {seed: mean + 0.5 * (seed - 3) for seed in range(7)}
    return judge(
        [
            Claim("did", "BN loses more than GN", "greater", values, primary=True,
                  published="+11.1 pp (ImageNet)", published_effect=11.1,
                  source="Wu & He 2018, table 2"),
            Claim("gn", "GN is flat", "equivalent", {**values, 7: float("nan")}, 1.0),
            Claim("weak", "PreciseBN helps", "greater", {s: s - 3.0 for s in range(7)},
                  published_effect=0.5),
        ]
    )  # fmt: skip


def put(folder, claims=None, figure=SVG, **changes):
    """Write one result folder."""
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps({**STUDY, **changes}))
    told = {key: changes.get(key, STUDY[key]) for key in ("status", "status_reason")}
    rows = [{**v.to_dict(), **told} for v in (verdicts() if claims is None else claims)]
    (folder / "claims.json").write_text(json.dumps(rows))
    (folder / "table.csv").write_text(
        "data.name,model.name,train_size,test_error\ndigits,lenet,800,0.25\n<b>,mlp,800,0.5\n"
    )
    (folder / "points.csv").write_text("figure,x,mean\nheadline,2,20.5\n<b>,16,15\n")
    (folder / "figure.svg").write_bytes(figure)


COLORS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255",
          "#332288", "#117733", "#999933", "#AA4499", "#44AA99", "#555555")  # fmt: skip


def png(width, height):
    """A drawing as PNG: a thousand circles in the colors of figures, and a bar of each color."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for i in range(1000):
        x, y = width * (i % 50) / 50, height * (i // 50) / 20
        draw.ellipse((x, y, x + width / 60, y + height / 25), fill=COLORS[i % len(COLORS)])
    for i, color in enumerate(COLORS):
        draw.rectangle((i * width / 14, 0, (i + 1) * width / 14, height / 50), fill=color)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def svg(circles):
    """A drawing of this many circles as SVG."""
    marks = "".join(
        f'<circle cx="{100 + 90 * math.sin(i):.6f}" cy="{100 + 90 * math.cos(i):.6f}" r="2"/>\n'
        for i in range(circles)
    )
    head = '<svg xmlns="http://www.w3.org/2000/svg" width="510pt" height="200pt">'
    return f"{head}{marks}</svg>".encode()
