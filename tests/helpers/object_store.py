"""An S3 server on this machine: moto's, as fsspec's clients ask of it, with faults on request."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

DROP = 0
"""A fault: the connection ends without an answer."""

_CODES = {403: "AccessDenied", 404: "NoSuchKey", 500: "InternalError", 503: "SlowDown", 507: "InsufficientStorage"}


@dataclass
class ObjectStore:
    """State of the server, which answers to the environment's `AWS_ENDPOINT_URL`.

    Attributes:
        url: of the server.
        asked: requests by method and path, such as `GET /bucket/a/00000.tar`.
        faults: what is answered instead, by pattern of method and path: a status or `DROP`, each for one request;
            a list that ends with None answers so for ever.
    """

    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    faults: dict[str, list[int | None]] = field(default_factory=dict)
    buckets: int = 0

    def new_bucket(self) -> str:
        """`s3://` and the name of a bucket that is empty."""
        self.buckets += 1
        name = f"bucket{self.buckets}"
        _client().mkdir(name)
        return f"s3://{name}"

    def put(self, path: Path, url: str) -> None:
        """Copy a file or a folder with all that lies in it to a URL, which is its name there."""
        files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
        _client().pipe({url + str(file)[len(str(path)) :]: file.read_bytes() for file in files})

    def files(self, url: str) -> dict[str, bytes]:
        """Contents of what lies under a URL, by the rest of the name."""
        store, prefix = _client(), url.removeprefix("s3://").rstrip("/")
        return {name[len(prefix) + 1 :]: store.cat_file(name) for name in store.find(prefix)}

    def remove(self, url: str) -> None:
        """Remove a file."""
        _client().rm_file(url)

    def fault(self, request: str) -> int | None:
        """Status to answer a request with instead, or `DROP`."""
        for pattern, statuses in self.faults.items():
            if statuses and re.fullmatch(pattern, request):
                return statuses[0] if statuses[1:] == [None] else statuses.pop(0)
        return None


def _client() -> Any:
    """That keeps nothing."""
    import s3fs

    return s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    """A server on a free port, and the environment that clients here and in processes started from here find it by."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    store, moto = ObjectStore(), DomainDispatcherApplication(create_backend_app)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        store.asked[request] += 1
        status = store.fault(request)
        if status is None:
            return moto(environ, start_response)
        if status == DROP:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        start_response(f"{status or 500} Fault", [("Content-Type", "application/xml")])
        code = _CODES.get(status, "Fault")
        return [f"<Error><Code>{code}</Code><Message>on request</Message></Error>".encode()]

    class Handler(WSGIRequestHandler):
        def log(self, *_: object) -> None:
            """Nothing to the terminal."""

        def log_error(self, *_: object) -> None:
            """Nor this."""

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Handler)
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        with mock.patch.dict(os.environ, environment(store)):
            yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def environment(store: ObjectStore) -> dict[str, str]:
    """Variables that lead to the server, with keys that it takes, and away from whatever the user has set up."""
    return {
        "AWS_ENDPOINT_URL": store.url,
        "AWS_ACCESS_KEY_ID": "pics",
        "AWS_SECRET_ACCESS_KEY": "pics",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",  # its client waits between tries
        "NO_PROXY": "127.0.0.1",
    }
