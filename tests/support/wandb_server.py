"""A W&B server on loopback that keeps what arrives: enough of its protocol for runs and sync.

No accounts, no artifacts (of a logged table the file arrives, its artifact is refused).
"""

import gzip
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer:
    """A context manager. `env` points W&B's client at it; `runs` are by entity/project/id."""

    def __init__(self, fail_after: int | None = None, trouble: str = "503") -> None:
        """From request `fail_after` on (default: none) there is trouble.

        "503" is answered; "hang" means no answer; "401" refuses the API key.
        """
        self.trouble = trouble
        self.runs: dict[str, dict[str, Any]] = {}
        self.fail_after, self.requests, self.lock = fail_after, 0, threading.Lock()
        handler = type("Handler", (Handler,), {"owner": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *a: None  # clients drop kept connections
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.env = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "x" * 40, "WANDB_ENTITY": "me"}

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        with self.lock:
            self.requests += 1
        if self.fail_after is not None and self.requests > self.fail_after:
            if self.trouble == "hang":
                time.sleep(3600)
            return int(self.trouble), {"error": "down"}
        if path.startswith("/graphql"):
            asked = json.loads(body)
            name = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            return 200, self.graphql(name[1] if name else "", asked.get("variables") or {})
        if stream := re.match(r"/files/([^/]+/[^/]+/[^/]+)/file_stream", path):
            self.stream(self.run(stream[1]), json.loads(body or b"{}"))
        elif upload := re.match(r"/upload/([^/]+/[^/]+/[^/]+)/(.+)", path):
            self.run(upload[1])["files"][upload[2]] = body
        return 200, {}

    def run(self, name: str) -> dict[str, Any]:
        empty = {"config": {}, "history": [], "summary": {}, "files": {}, "complete": False}
        return self.runs.setdefault(name, empty)

    def graphql(self, operation: str, told: dict[str, Any]) -> dict[str, Any]:
        entity = {"id": "E1", "name": "me", "username": "me"}
        if operation == "Viewer":
            viewer = {"id": "U1", "entity": "me", "username": "me", "email": "", "flags": "{}"}
            return {"data": {"viewer": {**viewer, "teams": {"edges": []}}}}
        if operation == "ServerFeaturesQuery":
            return {"data": {"serverInfo": {"features": []}}}
        if operation == "UpsertBucket":
            run = self.run(f"{told.get('entity') or 'me'}/{told['project']}/{told['name']}")
            config = json.loads(told.get("config") or "{}")
            run["config"] |= {key: entry.get("value") for key, entry in config.items()}
            run |= {k: told[k] for k in ("groupName", "jobType", "tags", "displayName", "notes")
                    if told.get(k) is not None}  # fmt: skip
            project = {"id": "P1", "name": told["project"], "entity": entity}
            bucket = {"id": f"B-{told['name']}", "name": told["name"], "displayName": told["name"],
                      "description": "", "config": "{}", "sweepName": None,
                      "historyLineCount": len(run["history"]), "project": project}  # fmt: skip
            return {"data": {"upsertBucket": {"inserted": True, "bucket": bucket}}}
        if operation == "CreateRunFiles":
            where = f"{self.url}/upload/{told['entity']}/{told['project']}/{told['run']}"
            files = [{"name": f, "uploadUrl": f"{where}/{f}"} for f in told["files"]]
            made = {"runID": f"B-{told['run']}", "uploadHeaders": [], "files": files}
            return {"data": {"createRunFiles": made}}
        if operation == "RunResumeStatus":  # of a run that is new here
            project = {"id": "P1", "name": told.get("project"), "entity": entity, "bucket": None}
            return {"data": {"model": project}}
        return {"data": {}, "errors": [{"message": f"{operation} is not supported"}]}

    def stream(self, run: dict[str, Any], body: dict[str, Any]) -> None:
        files = body.get("files") or {}
        if history := files.get("wandb-history.jsonl"):
            run["history"][history["offset"] :] = map(json.loads, history["content"])
        if summary := files.get("wandb-summary.json"):
            run["summary"] = json.loads(summary["content"][-1])
        run["complete"] |= bool(body.get("complete"))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: WandbServer

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        code, told = self.owner.answer(self.path, body)
        content = json.dumps(told).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = handle_any
