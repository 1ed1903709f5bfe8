"""A server on this machine that answers as the Hugging Face hub does, as far as plans need it."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

TOKEN = "hf_" + "t" * 16


@dataclass
class Repository:
    """A repository, with the files of its only branch."""

    files: dict[str, bytes] = field(default_factory=dict)
    is_gated: bool = False
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass
class FakeHub:
    """The repositories by name, and the requests that were answered."""

    address: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    commits: list[list[str]] = field(default_factory=list)
    refusal: tuple[int, str] | None = None
    """The status and the reason with which commits are refused."""


class HubServer(ThreadingHTTPServer):
    """Answers for a `FakeHub`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = FakeHub(f"http://127.0.0.1:{self.server_port}")


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def answer(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        self.send_response(status)
        length = headers.pop("length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, reason: str = "") -> None:
        self.answer(status, b'{"error": ""}', X_Error_Code=code, X_Error_Message=reason)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.hub.requests.append(f"{self.command} {self.path}")
        if self.path.startswith("/api/models/"):
            name = "/".join(self.path.split("/")[3:5])
            repository = self.server.hub.repositories.get(name)
            if repository is None:
                self.refuse(401, "RepoNotFound")
                return
            siblings = [{"rfilename": file} for file in repository.files]
            found = {"id": name, "sha": repository.sha, "siblings": siblings}
            self.answer(200, json.dumps(found).encode())
            return
        name, _, rest = self.path[1:].partition("/resolve/")
        revision, _, file = rest.partition("/")
        repository = self.server.hub.repositories.get(name)
        if repository is None:
            self.refuse(404 if self.headers["Authorization"] else 401, "RepoNotFound")
        elif repository.is_gated:
            self.refuse(403, "GatedRepo")
        elif revision not in ("main", repository.sha):
            self.refuse(404, "RevisionNotFound")
        elif file not in repository.files:
            self.refuse(404, "EntryNotFound")
        else:
            content = repository.files[file]
            tag = hashlib.sha1(content).hexdigest()
            length = str(repository.sizes.get(file, len(content)))
            commit = repository.sha
            self.answer(200, content, ETag=f'"{tag}"', X_Repo_Commit=commit, length=length)

    def do_POST(self) -> None:
        self.server.hub.requests.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            self.answer(200)
            return
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.refuse(401, "", "Invalid username or password.")
            return
        if self.path == "/api/repos/create":
            given = json.loads(body)
            name = f"{given['organization'] or 'someone'}/{given['name']}"
            is_new = name not in self.server.hub.repositories
            self.server.hub.repositories.setdefault(name, Repository())
            self.answer(
                200 if is_new else 409,
                json.dumps({"url": f"{self.server.hub.address}/{name}"}).encode(),
            )
            return
        name = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            paths = [one["path"] for one in json.loads(body)["files"]]
            modes = [
                {"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths
            ]
            self.answer(200, json.dumps({"files": modes}).encode())
        elif self.server.hub.refusal is not None:
            self.refuse(self.server.hub.refusal[0], "", self.server.hub.refusal[1])
        else:
            self.commit(name, [json.loads(line) for line in body.splitlines()])

    def commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        repository = self.server.hub.repositories[name]
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header["parentCommit"] != repository.sha:
            self.refuse(412, "", "A commit has happened since.")
            return
        sent = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        repository.files.update(sent)
        self.server.hub.commits.append(sorted(sent))
        found = {
            "commitUrl": f"{self.server.hub.address}/{name}/commit/{repository.sha}",
            "commitOid": repository.sha,
            "success": True,
        }
        self.answer(200, json.dumps(found).encode())


@contextmanager
def running_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Runs a hub that huggingface_hub uses instead of the real one, with an empty cache."""
    server = HubServer()
    use_hub(server.hub.address, cache, monkeypatch)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets what HF_ENDPOINT, HF_HUB_CACHE and HF_TOKEN set when huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
