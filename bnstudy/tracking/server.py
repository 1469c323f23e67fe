"""Whether a W&B server takes our runs: asked once, within seconds, before W&B's own client does.

That client waits and repeats for minutes where a server is absent, broken or silent. The question
is the one that the client begins with: who owns this API key.
"""

import base64
import json
import os
import threading
from typing import Any

PATIENCE = 3.0  # seconds, for the name, the connection and the answer together
QUESTION = {"query": "query Viewer { viewer { id } }"}
NO_KEY = "no API key; `wandb login` keeps one, or set WANDB_API_KEY"


def credentials() -> tuple[str, str]:
    """The server's address and the API key, as W&B finds them; an empty key where there is none."""
    import wandb

    address = str(wandb.setup().settings.base_url).rstrip("/")
    if not wandb.login(prompt=False, verify=False):
        return address, ""
    try:
        from wandb.sdk.lib import wbauth

        found: Any = wbauth.session_credentials(host=address)
        return address, found.api_key
    except Exception:  # another version of W&B, or credentials of another kind
        return address, os.environ.get("WANDB_API_KEY", "unknown")


def trouble(address: str, key: str) -> str:
    """Why a server does not take our runs; empty when it does, or only its client can tell."""
    if not key:
        return NO_KEY
    found = [_silent(address)]
    # apart, because neither looking up a name nor an answer in drops obeys a timeout
    asked = threading.Thread(target=lambda: found.append(_asked(address, key)), daemon=True)
    asked.start()
    asked.join(PATIENCE)
    return found[-1]


def _silent(address: str) -> str:
    return f"{address} does not answer within {PATIENCE:g} s"


def _asked(address: str, key: str) -> str:
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    token = base64.b64encode(f"api:{key}".encode()).decode()
    head = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
    ask = Request(f"{address}/graphql", json.dumps(QUESTION).encode(), head)
    try:
        with urlopen(ask, timeout=PATIENCE) as answer:
            said = json.load(answer)
    except HTTPError as error:
        refused = error.code in (401, 403)
        return f"{address} refuses the API key" if refused else f"{address} answers {error.code}"
    except URLError as error:
        if "certificate" in str(error).lower():  # W&B has its own
            return ""
        return _unreached(address, error.reason)
    except ValueError:
        return f"{address} is no W&B server"
    except OSError as error:
        return _unreached(address, error)
    return "" if _known(said) else f"{address} refuses the API key"


def _unreached(address: str, reason: object) -> str:
    if isinstance(reason, TimeoutError):  # the same silence, whichever of the two clocks ends first
        return _silent(address)
    return f"{address} cannot be reached ({getattr(reason, 'strerror', None) or reason})"


def _known(said: Any) -> bool:
    """Whether an answer names the key's owner."""
    data = said.get("data") if isinstance(said, dict) else None
    return bool(isinstance(data, dict) and data.get("viewer"))
