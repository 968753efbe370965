"""A page of `pics ui` without a browser: what its scripts would ask the server for."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.testclient import TestClient

from pics_cli.core.images.png_chunks import SIGNATURE, chunk
from pics_cli.core.inference.plan import InferenceJob
from pics_cli.core.inference.warm import WarmModel


def warm(model: str | Path, **options: Any) -> WarmModel:
    """A model of that name or folder, on the CPU."""
    return WarmModel(InferenceJob((), Path(), str(model), device="cpu", **options))


def png(image: Image.Image) -> bytes:
    """A PNG file."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def huge_png(width: int = 20_000, height: int = 10_000) -> bytes:
    """A whole PNG that claims so many pixels, and has next to none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return SIGNATURE + b"".join(chunk(*part) for part in parts)


class Page:
    """A session."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.at = f"/api/sessions/{client.post('/api/sessions').json()['session']}"

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """What the server answers, which must be well."""
        answer = self.client.request(method, f"{self.at}{path}", **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def error(self, method: str, path: str, **options: Any) -> str:
        """What the server refuses it with."""
        answer = self.client.request(method, f"{self.at}{path}", **options)
        assert answer.status_code == 400, answer.text
        return str(answer.json()["error"])

    def get(self, path: str) -> bytes:
        """A picture or zip."""
        answer = self.client.get(f"{self.at}{path}")
        assert answer.status_code == 200, answer.text
        return answer.content

    def background(self, data: bytes, name: str = "table.png") -> Any:
        return self.ask("PUT", "/background", params={"name": name}, content=data)

    def object(self, data: bytes, name: str = "cup.png") -> Any:
        return self.ask("POST", "/objects", params={"name": name}, content=data)

    def composite(self, boxes: Mapping[int, Sequence[int]], **drawing: Any) -> Any:
        """Ask for a composite and wait for its end."""
        self.ask("POST", "/composite", json={"boxes": boxes, **drawing})
        return self.finished()

    def finished(self) -> Any:
        """The job, once it is over."""
        for _ in range(600):
            job = self.ask("GET", "/job")
            if job["state"] not in ("queued", "running"):
                return job
            time.sleep(0.05)
        raise AssertionError(job)
