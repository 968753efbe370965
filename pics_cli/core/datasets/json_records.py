"""Read arrays of records out of a JSON file of any size in bounded memory.

The file is memory-mapped. Its top level is an object (or, where the caller allows it, one list); the arrays asked for
are decoded block by block into typed records, everything else is passed over. A block is cut at its last `},{`: a cut
in the wrong place (inside a nested object or a string) leaves an unbalanced slice that cannot decode, so a slice that
decodes was cut between records. Only where that fails is the block scanned token by token.

ijson was tried: on 67 MB it takes 3.2 s instead of 0.9, refuses a whole file for one NaN, and does not tell where a
value stands, so that the index would hold a second copy of all segmentations (44 MB of those 67).
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pics_cli.errors import PicsError, read_error

BLOCK_BYTES = 8 << 20
# What decoding raises on text that is no JSON of the wanted shape, or nested beyond measure.
JSON_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SPACE = re.compile(rb"[ \t\r\n]*")
_SEPARATOR = re.compile(rb"[ \t\r\n]*,?[ \t\r\n]*")
# A lone quote is a string that goes on past the end of the text.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}"]', re.DOTALL)
_SCALAR_END = re.compile(rb"[,}\]]")
_ARRAY_END = re.compile(rb"\}[ \t\r\n]*\]")
_MAX_ARRAY_ENDS = 3
_OTHER_FILE = "is this another dataset's file?"


class RecordBatch(NamedTuple):
    """Records of one array that stand together in the file.

    Attributes:
        section: name of the array.
        records: decoded, in file order.
        data: what was decoded: the records' bytes between brackets.
        offset: where `data[1]` stands in the file.
        shift: from an address in memory inside `data` to an offset in the file.
        errors: why single records could not be decoded, one line per record.
    """

    section: str
    records: list[Any]
    data: bytes
    offset: int
    shift: int
    errors: list[str]

    def span(self, raw: msgspec.Raw | memoryview) -> tuple[int, int]:
        """Offset in the file and length of a value of these records: a `msgspec.Raw` is a view of `data`."""
        return _address(raw) + self.shift, len(memoryview(raw))


def read_arrays(
    path: Path,
    record_types: Mapping[str, type],
    block_bytes: int = BLOCK_BYTES,
    optional: Collection[str] = (),
    bare: str | None = None,
) -> Iterator[RecordBatch]:
    """Yield the records of the named top-level arrays in file order.

    Args:
        path: a JSON file.
        record_types: array name to record type (a `msgspec.Struct`, or `msgspec.Raw`).
        block_bytes: how much is decoded at a time.
        optional: names among `record_types` that the file may lack.
        bare: the array that the whole file is, where its top level is a list; None: a list is refused.

    Raises:
        PicsError: the file is missing, truncated, not JSON, or not an object with those arrays.
    """
    try:
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise PicsError(f"{path}: the file is empty", "download it again")
            text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise read_error(path, error) from None
    yield from _JsonFile(path, text, block_bytes).arrays(record_types, optional, bare)


class _JsonFile:
    """A cursor over the mapped text."""

    def __init__(self, path: Path, text: mmap.mmap, block_bytes: int) -> None:
        self.path, self.text, self.size, self.block_bytes, self.position = path, text, len(text), block_bytes, 0

    def arrays(
        self, record_types: Mapping[str, type], optional: Collection[str], bare: str | None
    ) -> Iterator[RecordBatch]:
        first = self.peek()
        if first == b"[" and bare is not None:
            yield from self.records(bare, record_types[bare])
            return
        if first != b"{":
            kind = {b"[": "a list", b'"': "a string"}.get(first, "no JSON")
            expected = " and ".join(map(repr, record_types))
            raise PicsError(f"{self.path}: top level is {kind}, expected an object with {expected}", _OTHER_FILE)
        self.position += 1
        missing = [name for name in record_types if name not in optional]
        while self.peek() != b"}":
            self.skip_comma()
            name = self.read_key()
            if name not in record_types:
                self.skip_value()
            elif self.peek() == b"[":
                yield from self.records(name, record_types[name])
                missing = [other for other in missing if other != name]
            else:
                raise PicsError(f"{self.path}: {name!r} is not a list", _OTHER_FILE)
        if missing:
            raise PicsError(f"{self.path}: no {' and no '.join(map(repr, missing))} in it", _OTHER_FILE)

    def records(self, section: str, record_type: type) -> Iterator[RecordBatch]:
        decoder = msgspec.json.Decoder(list[record_type])  # type: ignore[valid-type]
        self.position += 1
        if self.peek() not in (b"]", b"{"):
            raise self.syntax_error(f"an object in {section!r}")
        while self.peek() != b"]":
            self.skip_comma()
            if self.peek() in b",:}]":
                raise self.syntax_error(f"an object in {section!r}")
            length, batch = self.block_bytes, None
            while batch is None:
                stop = min(self.position + length, self.size)
                batch = self.decode_block(section, decoder, stop) or self.scan_block(section, record_type, stop)
                if batch is None and stop == self.size:
                    raise self.truncated(f"inside {section!r}")
                length *= 2  # a record longer than a block
            yield batch
            if hasattr(self.text, "madvise"):  # what was read need not stay in memory
                self.text.madvise(mmap.MADV_DONTNEED, 0, self.position)
        self.position += 1

    def decode_block(self, section: str, decoder: msgspec.json.Decoder[list[Any]], stop: int) -> RecordBatch | None:
        """Decode up to the last cut before `stop`, or up to the array's end where that comes first."""
        cut = self.last_cut(stop)
        ends = [cut] if cut else []
        array_ends = _ARRAY_END.finditer(self.text, self.position, stop)
        ends += [match.start() + 1 for match in islice(array_ends, _MAX_ARRAY_ENDS)]
        for end in ends:
            data = self.bracketed(end)
            try:
                records = decoder.decode(data)
            except JSON_ERRORS:
                continue
            return self.take(section, records, data, end, [])
        return None

    def scan_block(self, section: str, record_type: type, stop: int) -> RecordBatch | None:
        """Find the records that end before `stop` one by one and decode each alone; bad ones are named."""
        spans: list[tuple[int, int]] = []
        start = self.position
        while start < stop and (end := self.value_end(start, stop)) and end > start:
            spans.append((start, end))
            start = _SEPARATOR.match(self.text, end).end()  # type: ignore[union-attr]
        if not spans:
            return None
        data = self.bracketed(spans[-1][1])
        records: list[Any] = []
        errors: list[str] = []
        for start, end in spans:
            text = memoryview(data)[start - self.position + 1 : end - self.position + 1]
            try:
                records.append(msgspec.json.decode(text, type=record_type))
            except JSON_ERRORS as error:
                shown = bytes(text[:80]).decode("utf-8", "replace")
                errors.append(f"{section}: {error}: {shown}{'…' if len(text) > 80 else ''}")
        return self.take(section, records, data, spans[-1][1], errors)

    def last_cut(self, stop: int) -> int | None:
        """End of the last `}` before `stop` that is followed by `, {`; None where there is none."""
        low, high = self.position, stop
        while (brace := self.text.rfind(b"{", low, high)) > low:
            start = max(low, brace - 64)
            before = self.text[start:brace].rstrip()
            if before.endswith(b",") and (before := before[:-1].rstrip()).endswith(b"}"):
                return start + len(before)
            high = brace
        return None

    def value_end(self, start: int, stop: int) -> int | None:
        """Where the value at `start` ends, `start` itself where there is none; None where not before `stop`."""
        if self.text[start : start + 1] not in (b'"', b"{", b"["):
            scalar = _SCALAR_END.search(self.text, start, stop)
            return scalar.start() if scalar else None
        depth = 0
        for match in _TOKEN.finditer(self.text, start, stop):
            token = match.group()
            if token == b'"':
                return None
            depth += (token in b"[{") - (token in b"]}")
            if depth == 0:
                return match.end()
        return None

    def bracketed(self, end: int) -> bytes:
        """The text from here to `end` as a list of its own."""
        return b"".join((b"[", memoryview(self.text)[self.position : end], b"]"))

    def take(self, section: str, records: list[Any], data: bytes, end: int, errors: list[str]) -> RecordBatch:
        batch = RecordBatch(section, records, data, self.position, self.position - 1 - _address(data), errors)
        self.position = end
        return batch

    def skip_value(self) -> None:
        """Pass over one value of any kind and size."""
        self.peek()
        end = self.value_end(self.position, self.size)
        if end is None:
            raise self.truncated("inside a value")
        self.position = end

    def read_key(self) -> str:
        if self.peek() != b'"':
            raise self.syntax_error("a key in quotes")
        start = self.position
        self.skip_value()
        try:
            name = msgspec.json.decode(self.text[start : self.position], type=str)
        except JSON_ERRORS:
            self.position = start
            raise self.syntax_error("a string") from None
        if self.peek() != b":":
            raise self.syntax_error("':'")
        self.position += 1
        return name

    def skip_comma(self) -> None:
        if self.peek() == b",":
            self.position += 1

    def peek(self) -> bytes:
        """The next byte that is not white space."""
        match = _SPACE.match(self.text, self.position)
        self.position = match.end() if match else self.position
        if self.position == self.size:
            raise self.truncated("before its end")
        return self.text[self.position : self.position + 1]

    def truncated(self, where: str) -> PicsError:
        return PicsError(
            f"{self.path}: truncated or not JSON: the file ends {where} after {self.size:,} bytes",
            "download it again, and compare its size with the publisher's",
        )

    def syntax_error(self, expected: str) -> PicsError:
        shown = self.text[self.position : self.position + 20].decode("utf-8", "replace")
        return PicsError(f"{self.path}: not JSON at byte {self.position:,}: got {shown!r}, expected {expected}")


def _address(buffer: Any) -> int:
    """Where a buffer lies in memory."""
    address: int = np.frombuffer(buffer, np.uint8).__array_interface__["data"][0]
    return address
