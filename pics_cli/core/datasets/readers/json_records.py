"""Read arrays of records out of a JSON file of any size in bounded memory.

The file's top level is an object (or, where the caller allows it, one list); the arrays asked for are decoded block by
block into typed records, everything else is passed over. A block is cut at its last `},{`: a cut in the wrong place
(inside a nested object or a string) leaves an unbalanced slice that cannot decode, so a slice that decodes was cut
between records. Only where that fails is the block scanned token by token.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
import numpy as np

from pics_cli.errors import PicsError, read_error

BLOCK_BYTES = 8 << 20
# What decoding raises on text that is no JSON of the wanted shape, or nested beyond measure.
JSON_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
# A lone quote is a string that goes on past the end of the buffer.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}"]', re.DOTALL)
_SCALAR_END = re.compile(rb"[,}\]]")
_ARRAY_END = re.compile(rb"\}[ \t\r\n]*\]")
_END_TRIES = 3


class Batch(NamedTuple):
    """Records of one array that stand together in the file."""

    section: str
    records: list[Any]
    data: bytes
    """What was decoded: the records' bytes between brackets."""
    offset: int
    """Where `data[1]` stands in the file."""
    bad: list[str]
    """Why single records could not be decoded, one line each."""


def read_arrays(
    path: Path,
    sections: Mapping[str, type],
    block_bytes: int = BLOCK_BYTES,
    optional: Collection[str] = (),
    bare: str | None = None,
) -> Iterator[Batch]:
    """Yield the records of the named top-level arrays in file order.

    Args:
        path: a JSON file.
        sections: array name to record type (a `msgspec.Struct`, or `msgspec.Raw`).
        block_bytes: how much is read at a time.
        optional: names among `sections` that the file may lack.
        bare: the section that the whole file is, where its top level is a list; None: a list is refused.

    Raises:
        PicsError: the file is missing, truncated, not JSON, or not an object with those arrays.
    """
    try:
        with path.open("rb") as file:
            yield from _Reader(path, file, block_bytes).arrays(sections, optional, bare)
    except OSError as error:
        raise read_error(path, error) from None


class _Reader:
    def __init__(self, path: Path, file: IO[bytes], block_bytes: int) -> None:
        self.path, self.file, self.block_bytes = path, file, block_bytes
        self.buffer, self.at, self.base, self.ended = b"", 0, 0, False

    def arrays(
        self, sections: Mapping[str, type], optional: Collection[str], bare: str | None = None
    ) -> Iterator[Batch]:
        first = self.peek()
        if first == b"[" and bare is not None:
            self.at += 1
            yield from self.records(bare, sections[bare])
            return
        if first != b"{":
            got = {b"[": "a list", b'"': "a string"}.get(first, "no JSON")
            raise PicsError(
                f"{self.path}: top level is {got}, expected an object with {' and '.join(map(repr, sections))}",
                "is this another dataset's file?",
            )
        self.at += 1
        seen = set()
        while self.peek() != b"}":
            self.accept(b",")
            name = self.key()
            if name in sections and self.peek() == b"[":
                seen.add(name)
                self.at += 1
                yield from self.records(name, sections[name])
            elif name in sections:
                raise PicsError(f"{self.path}: {name!r} is not a list", "is this another dataset's file?")
            else:
                self.skip_value()
        missing = [name for name in sections if name not in seen and name not in optional]
        if missing:
            raise PicsError(
                f"{self.path}: no {' and no '.join(map(repr, missing))} in it", "is this another dataset's file?"
            )

    def records(self, section: str, kind: type) -> Iterator[Batch]:
        decoder = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        while self.peek() != b"]":
            self.accept(b",")
            if self.peek() != b"{":
                raise self.not_json(f"an object in {section!r}")
            batch = self.fast(section, decoder) or self.scanned(section, kind)
            if batch is None:
                self.more(f"inside {section!r}")
            else:
                yield batch
        self.at += 1

    def fast(self, section: str, decoder: msgspec.json.Decoder[list[Any]]) -> Batch | None:
        """Decode up to the last cut, or up to the array's end where that is in the buffer."""
        cut = _last_cut(self.buffer, self.at)
        ends = [cut] if cut else []
        ends += [match.start() + 1 for match in islice(_ARRAY_END.finditer(self.buffer, self.at), _END_TRIES)]
        for end in ends:
            data = self.bracketed(end)
            try:
                records = decoder.decode(data)
            except JSON_FAULTS:
                continue
            return self.take(section, records, data, end, [])
        return None

    def scanned(self, section: str, kind: type) -> Batch | None:
        """Find the records token by token and decode each alone; those that cannot be decoded are named."""
        spans = list(self.spans())
        if not spans:
            return None
        end = spans[-1][1]
        data = self.bracketed(end)
        view = memoryview(data)
        records: list[Any] = []
        bad: list[str] = []
        for start, stop in spans:
            text = view[start - self.at + 1 : stop - self.at + 1]
            try:
                records.append(msgspec.json.decode(text, type=kind))
            except JSON_FAULTS as error:
                shown = bytes(text[:80]).decode("utf-8", "replace")
                bad.append(f"{section}: {error}: {shown}{'…' if len(text) > 80 else ''}")
        return self.take(section, records, data, end, bad)

    def bracketed(self, end: int) -> bytes:
        """The buffer from here to `end` as a list of its own."""
        return b"".join((b"[", memoryview(self.buffer)[self.at : end], b"]"))

    def take(self, section: str, records: list[Any], data: bytes, end: int, bad: list[str]) -> Batch:
        batch = Batch(section, records, data, self.base + self.at, bad)
        self.at = end
        return batch

    def spans(self) -> Iterator[tuple[int, int]]:
        """Complete elements of the array from here on, as (start, stop) in the buffer."""
        depth, start = 0, self.at
        for match in _TOKEN.finditer(self.buffer, self.at):
            token = match.group()
            if token == b'"':
                return
            if token in b"[{":
                start = match.start() if depth == 0 else start
                depth += 1
            elif token in b"]}":
                depth -= 1
                if depth < 0:
                    return
                if depth == 0:
                    yield start, match.end()

    def skip_value(self) -> None:
        """Pass over one value of any kind and size."""
        first = self.peek()
        if first == b'"':
            self.string()
        elif first in (b"{", b"["):
            depth = 0
            while True:
                for match in _TOKEN.finditer(self.buffer, self.at):
                    token = match.group()
                    if token == b'"':
                        self.at = match.start()
                        break
                    self.at = match.end()
                    depth += (token in b"[{") - (token in b"]}")
                    if depth == 0:
                        return
                else:
                    self.at = len(self.buffer)
                self.more("inside a value")
        else:
            while not (end := _SCALAR_END.search(self.buffer, self.at)):
                self.at = len(self.buffer)
                self.more("inside a value")
            self.at = end.start()

    def key(self) -> str:
        if self.peek() != b'"':
            raise self.not_json("a key in quotes")
        name = self.string()
        self.expect(b":")
        return name

    def string(self) -> str:
        while not (match := _STRING.match(self.buffer, self.at)):
            self.more("inside a string")
        self.at = match.end()
        try:
            return msgspec.json.decode(match.group(), type=str)
        except JSON_FAULTS:
            raise self.not_json("a string") from None

    def accept(self, token: bytes) -> None:
        if self.peek() == token:
            self.at += 1

    def expect(self, token: bytes) -> None:
        if self.peek() != token:
            raise self.not_json(repr(token.decode()))
        self.at += 1

    def peek(self) -> bytes:
        """The next byte that is not white space."""
        while True:
            match = _SPACE.match(self.buffer, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.buffer):
                return self.buffer[self.at : self.at + 1]
            self.more("before its end")

    def more(self, where: str) -> None:
        """Drop what was consumed and read another block behind what is left."""
        block = b"" if self.ended else self.file.read(max(self.block_bytes, len(self.buffer) - self.at))
        self.ended = not block
        if self.ended:
            size = self.base + len(self.buffer)
            if not size:
                raise PicsError(f"{self.path}: the file is empty", "download it again")
            raise PicsError(
                f"{self.path}: truncated or not JSON: the file ends {where} after {size:,} bytes",
                "download it again, and compare its size with the publisher's",
            )
        self.base += self.at
        self.buffer, self.at = self.buffer[self.at :] + block, 0

    def not_json(self, expected: str) -> PicsError:
        got = self.buffer[self.at : self.at + 20].decode("utf-8", "replace")
        return PicsError(f"{self.path}: not JSON at byte {self.base + self.at:,}: got {got!r}, expected {expected}")


def address(data: Any) -> int:
    """Where a buffer lies in memory: a `msgspec.Raw` is a view of what was decoded, so this tells where it stands."""
    found: int = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    return found


def _last_cut(buffer: bytes, low: int) -> int | None:
    """End of the last `}` in buffer[low:] that is followed by `, {`; None where there is none."""
    high = len(buffer)
    while (brace := buffer.rfind(b"{", low, high)) > low:
        before = buffer[max(low, brace - 64) : brace].rstrip()
        if before.endswith(b","):
            before = before[:-1].rstrip()
            if before.endswith(b"}"):
                return max(low, brace - 64) + len(before)
        high = brace
    return None
