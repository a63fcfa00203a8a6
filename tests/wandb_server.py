"""A stand-in for the server of W&B, as far as its client needs one: it keeps what is streamed of each run."""

from __future__ import annotations

import gzip
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """Runs in this process until it is stopped.

    Attributes:
        history: id of a run -> the rows of its history, where a line that is sent again takes the place of the first.
        groups: id of a run -> its group.
    """

    def __init__(self) -> None:
        self.history: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
        self.groups: dict[str, str] = {}
        handler = type("Handler", (_Handler,), {"kept": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def rows(self, run: str) -> list[dict[str, Any]]:
        """Those of a run, in turn."""
        return [self.history[run][line] for line in sorted(self.history[run])]

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def streamed(self, run: str, files: dict[str, Any]) -> None:
        """Keep lines of a run's history."""
        lines = files.get("wandb-history.jsonl", {"offset": 0, "content": []})
        for place, line in enumerate(lines["content"], lines["offset"]):
            self.history[run][place] = json.loads(line)

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What a client asks of runs and artifacts; each run is new, as to one that does not ask to resume it."""
        given = asked.get("variables") or {}
        if given.get("groupName"):
            self.groups[given["name"]] = given["groupName"]
        project = {"name": given.get("project"), "entity": {"name": "us"}}
        bucket = {"id": "b", "name": given.get("name"), "displayName": given.get("name"), "project": project}
        artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"id": "s", "latestArtifact": None}}
        files = [{"name": name, "uploadUrl": f"{self.url}/{name}"} for name in given.get("files") or []]
        return {
            "viewer": {"id": "u", "entity": "us", "username": "us", "flags": "{}", "teams": {"edges": []}},
            "serverInfo": {"features": []},
            "project": None,  # which has no types of artifacts yet
            "upsertBucket": {"bucket": bucket, "inserted": True},
            "createArtifact": {"artifact": artifact},
            "createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files},
        }


class _Handler(BaseHTTPRequestHandler):
    kept: Server

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _send(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._send({})

    def do_PUT(self) -> None:
        self._body()
        self._send({})

    def do_POST(self) -> None:
        body = self._body()
        if self.path == "/graphql":
            self._send({"data": self.kept.answer(json.loads(body))})
            return
        if self.path.endswith("/file_stream"):
            self.kept.streamed(self.path.split("/")[-2], json.loads(body).get("files") or {})
        self._send({})

    def log_message(self, *args: object) -> None:
        """Say nothing."""
