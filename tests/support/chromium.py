"""A real Chromium by its debugging protocol, over a pipe: no driver and no socket.

It is looked for in BNSTUDY_CHROMIUM, on the path, and where playwright puts it. To look at a page:

    python -m tests.support.chromium page.html folder [#id ...]

writes PNGs of the top and of each id at 1280 and 390 px, light and dark, and print.pdf.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLAYWRIGHT = ("chromium*/chrome-linux*/chrome", "chromium*/chrome-linux*/headless_shell",
              "chromium*/chrome-headless-shell*/chrome-headless-shell")  # fmt: skip
WIDTHS = (1280, 390)


def chromium():
    """The path of a Chromium; None where none is installed."""
    found = [os.environ.get("BNSTUDY_CHROMIUM"), *map(shutil.which, NAMES)]
    cache = Path.home() / ".cache" / "ms-playwright"
    found += [str(path) for pattern in PLAYWRIGHT for path in sorted(cache.glob(pattern))]
    return next((path for path in found if path and os.path.exists(path)), None)


class Browser:
    """One tab. `said` collects what the console, the page's errors and failed requests say."""

    def __init__(self, path):
        self.home = tempfile.TemporaryDirectory()
        ours, theirs = os.pipe(), os.pipe()  # what we read, what they read
        # Chromium reads from descriptor 3 and writes to 4
        command = f'exec "$0" "$@" 3<&{theirs[0]} 4>&{ours[1]}'
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
                 "--allow-file-access-from-files",
                 f"--user-data-dir={self.home.name}", "about:blank"]  # fmt: skip
        self.process = subprocess.Popen(
            ["bash", "-c", command, path, *flags], pass_fds=(theirs[0], ours[1]),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs[0])
        os.close(ours[1])
        self.out, self.into = os.fdopen(ours[0], "rb"), os.fdopen(theirs[1], "wb")
        self.number, self.session, self.said = 0, None, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.out.close()
        self.into.close()
        self.home.cleanup()

    def ask(self, method, **given):
        """The answer to one command."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": given}
        if self.session:
            message["sessionId"] = self.session
        self.into.write(json.dumps(message).encode() + b"\0")
        self.into.flush()
        while (answer := self.next()).get("id") != self.number:
            pass
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def next(self):
        """The next message; what a reader must not see is kept in `said`."""
        text = bytearray()
        while (letter := self.out.read(1)) != b"\0":
            assert letter, "Chromium ended"
            text += letter
        message = json.loads(text)
        loud = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded",
                "Network.loadingFailed")  # fmt: skip
        if message.get("method") in loud:
            self.said.append(message)
        elif message.get("method") == "Network.requestWillBeSent":
            address = message["params"]["request"]["url"]
            if not address.startswith(("data:", "file:", "about:")):
                self.said.append(message)
        return message

    def open(self, page, width=1280, scheme="light", medium=""):
        """Load a page at one width in CSS px, in light or dark, on screen or print."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900,
                 deviceScaleFactor=2 if width < 600 else 1, mobile=width < 600)  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.ask("Emulation.setEmulatedMedia", media=medium, features=features)
        self.ask("Page.navigate", url=Path(page).resolve().as_uri())
        self.value("new Promise(done => document.readyState === 'complete' ? done(1) : "
                   "addEventListener('load', () => done(1)))")  # fmt: skip

    def value(self, script):
        """What a script gives; promises are awaited."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True,
                          awaitPromise=True)  # fmt: skip
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self):
        """The window as PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])

    def printed(self):
        """The page on A4 as PDF, without background graphics, as printers are set."""
        answer = self.ask("Page.printToPDF", printBackground=False, paperWidth=8.27,
                          paperHeight=11.69, preferCSSPageSize=True)  # fmt: skip
        return base64.b64decode(answer["data"])


def look(page, folder, ids):
    """Pictures of the page's top and of these ids, and the printed page."""
    path = chromium()
    assert path, "no Chromium: set BNSTUDY_CHROMIUM"
    folder.mkdir(parents=True, exist_ok=True)
    with Browser(path) as browser:
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                browser.open(page, width, scheme)
                for place in ("top", *ids):
                    browser.value(
                        f"document.getElementById({json.dumps(place)}).scrollIntoView();"
                        "new Promise(done => setTimeout(done, 300))"
                    )
                    name = f"{place.replace('/', '-')}-{width}-{scheme}.png"
                    (folder / name).write_bytes(browser.picture())
        browser.open(page)
        (folder / "print.pdf").write_bytes(browser.printed())
        for message in browser.said:
            print(message)


if __name__ == "__main__":
    look(Path(sys.argv[1]), Path(sys.argv[2]), [word.lstrip("#") for word in sys.argv[3:]])
