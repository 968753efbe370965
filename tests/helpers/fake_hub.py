"""A hub on this machine: what the Hugging Face hub's client asks of it, for models; without its storage by chunks."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, file_download, hf_api

TOKEN = "hf_" + "a" * 34


@dataclass
class FakeHub:
    """State of the hub.

    Attributes:
        repositories: files by branch, by repository.
        private: repositories that are.
        objects: large files that were uploaded, by sha256.
        uploads: sha256 of each upload, in order.
        commits: message and branch of each commit, in order.
        refusals: status and message by pattern of method and path.
    """

    url: str = ""
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    commits: list[tuple[str, str]] = field(default_factory=list)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)


def commit_of(files: dict[str, bytes]) -> str:
    """40 hex digits over names and contents."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


@contextlib.contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that answers while the block runs."""
    hub = FakeHub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def connect(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub's client ask this hub, where the user `me` is logged in, and keep what it downloads in a folder."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(hf_api.api, "endpoint", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for module in (constants, file_download):  # the latter in versions before 1.0
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        for pattern, (status, message) in self.hub.refusals.items():
            if re.search(pattern, f"{self.command} {path}"):
                return self._send(status, {"error": message}, {"X-Error-Message": message})
        writes = self.command not in ("GET", "HEAD") and not path.startswith("/objects/")
        if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._send(401, {"error": "Invalid username or password."})
        for pattern, method in _ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                return method(self, body, *found.groups())
        return self._send(404, {"error": f"no such route: {self.command} {path}"})

    def _send(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _files(self, name: str, revision: str) -> dict[str, bytes] | None:
        """Files of a branch or commit; None after the answer that there is none."""
        branches = self.hub.repositories.get(name)
        if branches is None:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})  # type: ignore[func-returns-value]
        by_commit = {commit_of(files): files for files in branches.values()}
        if (files := branches.get(revision, by_commit.get(revision))) is None:
            self._send(404, {"error": "Revision not found"}, {"X-Error-Code": "RevisionNotFound"})
        return files

    def _info(self, _body: bytes, name: str, revision: str | None = None) -> None:
        if (files := self._files(name, revision or "main")) is not None:
            siblings = [{"rfilename": file} for file in sorted(files)]
            data = {"id": name, "modelId": name, "sha": commit_of(files), "siblings": siblings, "tags": []}
            self._send(200, {**data, "private": name in self.hub.private})

    def _tree(self, _body: bytes, name: str, revision: str) -> None:
        if (files := self._files(name, revision)) is not None:
            self._send(
                200,
                [
                    {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for file, data in sorted(files.items())
                ],
            )

    def _resolve(self, _body: bytes, name: str, revision: str, file: str) -> None:
        if (files := self._files(name, revision)) is None:
            return
        if file not in files:
            return self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        etag = f'"{hashlib.sha1(files[file]).hexdigest()}"'
        self._send(200, files[file], {"ETag": etag, "X-Repo-Commit": commit_of(files)})

    def _create(self, body: bytes) -> None:
        data = json.loads(body)
        name = f"{data['organization']}/{data['name']}" if data.get("organization") else f"me/{data['name']}"
        if not name.startswith("me/"):
            return self._send(403, {"error": f"You don't have the rights to create a model under {name}"})
        self.hub.repositories.setdefault(name, {"main": {".gitattributes": b""}})
        if data.get("visibility") == "private" or data.get("private"):
            self.hub.private.add(name)
        self._send(200, {"url": f"{self.hub.url}/{name}"})

    def _branch(self, _body: bytes, name: str, branch: str) -> None:
        branches = self.hub.repositories[name]
        if branch in branches:
            return self._send(409, {"error": "Reference already exists"})
        branches[branch] = dict(branches["main"])
        self._send(200, {})

    def _yaml(self, _body: bytes) -> None:
        self._send(200, {"errors": [], "warnings": []})

    def _preupload(self, body: bytes, name: str, revision: str) -> None:
        if self._files(name, revision) is not None:
            kinds = [
                {"path": file["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            self._send(200, {"files": kinds})

    def _batch(self, body: bytes, _name: str) -> None:
        objects = []
        for entry in json.loads(body)["objects"]:
            there = entry["oid"] in self.hub.objects
            upload = {"upload": {"href": f"{self.hub.url}/objects/{entry['oid']}"}}
            objects.append({**entry, **({} if there else {"actions": upload})})
        self._send(200, {"transfer": "basic", "objects": objects})

    def _put(self, body: bytes, sha256: str) -> None:
        assert hashlib.sha256(body).hexdigest() == sha256
        self.hub.objects[sha256] = body
        self.hub.uploads.append(sha256)
        self._send(200, {})

    def _commit(self, body: bytes, name: str, revision: str) -> None:
        files = dict(self.hub.repositories[name][revision])
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.hub.commits.append((value["summary"], revision))
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert entry["key"] == "lfsFile"
                files[value["path"]] = self.hub.objects[value["oid"]]
        self.hub.repositories[name][revision] = files
        sha = commit_of(files)
        self._send(200, {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"})


_NAME, _REVISION = r"([\w.-]+/[\w.-]+)", r"([\w.-]+)"
_ROUTES: list[tuple[str, Any]] = [
    (rf"GET /api/models/{_NAME}", _Handler._info),
    (rf"GET /api/models/{_NAME}/revision/{_REVISION}", _Handler._info),
    (rf"GET /api/models/{_NAME}/tree/{_REVISION}", _Handler._tree),
    (rf"(?:GET|HEAD) /{_NAME}/resolve/{_REVISION}/(.+)", _Handler._resolve),
    (r"POST /api/repos/create", _Handler._create),
    (rf"POST /api/models/{_NAME}/branch/{_REVISION}", _Handler._branch),
    (r"POST /api/validate-yaml", _Handler._yaml),
    (rf"POST /api/models/{_NAME}/preupload/{_REVISION}", _Handler._preupload),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _Handler._batch),
    (r"PUT /objects/([0-9a-f]{64})", _Handler._put),
    (rf"POST /api/models/{_NAME}/commit/{_REVISION}", _Handler._commit),
]
