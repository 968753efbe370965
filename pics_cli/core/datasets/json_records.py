"""Read arrays of records out of a JSON file of any size in bounded memory.

The file is memory-mapped. Its top level is an object (or, where the caller allows it, one list); the arrays asked for
are decoded block by block into typed records, everything else is passed over. A block is cut at its last `},{`: a cut
in the wrong place (inside a nested object or a string) leaves an unbalanced slice that cannot decode, so a slice that
decodes was cut between records. Records of another shape are decoded one by one. Only a block that is no JSON is
scanned token by token, and a record that never ends (a quote too many) is left behind where the next one begins.

ijson was tried: on 67 MB it takes 3.2 s instead of 0.9, refuses a whole file for one NaN, and does not tell where a
value stands, so that the index would hold a second copy of all segmentations (44 MB of those 67).
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pics_cli.core.datasets.json_scanner import (
    BLOCK_BYTES,
    JSON_ERRORS,
    LONGEST_RECORD,
    SPACE,
    RecordScanner,
    blank_nans,
)
from pics_cli.core.runtime.files import open_file
from pics_cli.errors import PicsError, read_error

_BOM = b"\xef\xbb\xbf"
_SEPARATOR = re.compile(rb"[ \t\r\n]*,?[ \t\r\n]*")
_ARRAY_END = re.compile(rb"\}[ \t\r\n]*\]")
_MAX_ARRAY_ENDS = 3
_OTHER_FILE = "is this another dataset's file?"


Mend = Callable[[msgspec.Raw | memoryview], Any]
"""Makes a record of a text that is not of the expected shape, or raises ValueError with the reason; NaN and Infinity
have become empty strings."""


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
    mend: Mapping[str, Mend] | None = None,
) -> Iterator[RecordBatch]:
    """Yield the records of the named top-level arrays in file order.

    Args:
        path: a JSON file.
        record_types: array name to record type (a `msgspec.Struct`, or `msgspec.Raw`).
        block_bytes: how much is decoded at a time.
        optional: names among `record_types` that the file may lack.
        bare: the array that the whole file is, where its top level is a list; None: a list is refused.
        mend: by array name, what to do with records that are not of their type.

    Raises:
        PicsError: the file is missing, truncated, not JSON (or several in a row), or not an object with those arrays.
    """
    try:
        with open_file(path) as file:
            if not path.stat().st_size:
                raise PicsError(f"{path}: the file is empty", "download it again")
            text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise read_error(path, error) from None
    yield from _JsonFile(path, text, block_bytes, mend or {}).arrays(record_types, optional, bare)


class _JsonFile:
    """A cursor over the mapped text."""

    def __init__(self, path: Path, text: mmap.mmap, block_bytes: int, mend: Mapping[str, Mend]) -> None:
        self.path, self.text, self.size, self.block_bytes, self.mend = path, text, len(text), block_bytes, mend
        self.position = len(_BOM) if text[: len(_BOM)] == _BOM else 0
        self.scanner = RecordScanner(text)

    def arrays(
        self, record_types: Mapping[str, type], optional: Collection[str], bare: str | None
    ) -> Iterator[RecordBatch]:
        first = self.peek()
        if first == b"[" and bare is not None:
            yield from self.records(bare, record_types[bare], ())
            self.check_end()
            return
        if first != b"{":
            kind = {b"[": "a list", b'"': "a string", b"P": "no JSON (a zip archive?)"}.get(first, "no JSON")
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
                yield from self.records(name, record_types[name], record_types)
                missing = [other for other in missing if other != name]
            else:
                raise PicsError(f"{self.path}: {name!r} is not a list", _OTHER_FILE)
        self.position += 1
        self.check_end()
        if missing:
            raise PicsError(f"{self.path}: no {' and no '.join(map(repr, missing))} in it", _OTHER_FILE)

    def records(self, section: str, record_type: type, sections: Collection[str]) -> Iterator[RecordBatch]:
        decoder = msgspec.json.Decoder(list[record_type])  # type: ignore[valid-type]
        self.position += 1
        if self.peek() not in (b"]", b"{"):
            raise self.syntax_error(f"an object in {section!r}")
        self.scanner.begin_array(self.position, sections)
        while self.peek() != b"]":
            self.skip_comma()
            if self.peek() in b",:}]":
                raise self.syntax_error(f"an object in {section!r}")
            length, batch = self.block_bytes, None
            while batch is None:
                stop = min(self.position + length, self.size)
                batch = self.decode_block(section, record_type, decoder, stop)
                batch = batch or self.scan_block(section, record_type, stop)
                if batch is None and stop == self.size:
                    raise self.truncated(f"inside {section!r}")
                if batch is None and length > LONGEST_RECORD:
                    raise self.syntax_error(f"a record that ends within {LONGEST_RECORD >> 20} MB (a quote too many?)")
                length *= 2  # a record longer than a block
            yield batch
            if hasattr(self.text, "madvise"):  # what was read need not stay in memory
                self.text.madvise(mmap.MADV_DONTNEED, 0, self.position)
        self.position += 1

    def decode_block(
        self, section: str, record_type: type, decoder: msgspec.json.Decoder[list[Any]], stop: int
    ) -> RecordBatch | None:
        """Decode up to the last cut before `stop`, or up to the array's end where that comes first."""
        cut = self.last_cut(stop)
        ends = [cut] if cut else []
        array_ends = _ARRAY_END.finditer(self.text, self.position, stop)
        ends += [match.start() + 1 for match in islice(array_ends, _MAX_ARRAY_ENDS)]
        for end in ends:
            data = self.bracketed(end)
            if section in self.mend:
                data = blank_nans(data)
            try:
                return self.take(section, decoder.decode(data), [], data, end)
            except JSON_ERRORS:
                pass
            try:
                texts = msgspec.json.decode(data, type=list[msgspec.Raw])
            except JSON_ERRORS:
                continue
            return self.take(section, *self.decode_each(section, record_type, texts), data=data, end=end)
        return None

    def scan_block(self, section: str, record_type: type, stop: int) -> RecordBatch | None:
        """Find the records that end before `stop` one by one and decode each alone; bad ones are named."""
        spans: list[tuple[int, int]] = []
        start = self.position
        while start < stop and (end := self.scanner.record_end(start, stop)) and end > start:
            spans.append((start, end))
            start = _SEPARATOR.match(self.text, end).end()  # type: ignore[union-attr]
        if not spans:
            return None
        data = self.bracketed(spans[-1][1])
        first = self.position - 1
        if section in self.mend:  # one by one: a record with a quote too many must not turn the others inside out
            whole = bytearray(data)
            for start, end in spans:
                whole[start - first : end - first] = blank_nans(data[start - first : end - first])
            data = bytes(whole)
        texts = [memoryview(data)[start - first : end - first] for start, end in spans]
        return self.take(section, *self.decode_each(section, record_type, texts), data=data, end=spans[-1][1])

    def decode_each(
        self, section: str, record_type: type, texts: Sequence[msgspec.Raw | memoryview]
    ) -> tuple[list[Any], list[str]]:
        """Records of these texts, and why others are none."""
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(record_type)
        mend = self.mend.get(section)
        records: list[Any] = []
        errors: list[str] = []
        for text in texts:
            try:
                try:
                    records.append(decoder.decode(text))
                except JSON_ERRORS:
                    if mend is None:
                        raise
                    records.append(mend(text))
            except (*JSON_ERRORS, ValueError) as error:
                shown = bytes(memoryview(text)[:80]).decode("utf-8", "replace")
                errors.append(f"{section}: {error}: {shown}{'…' if len(memoryview(text)) > 80 else ''}")
        return records, errors

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

    def bracketed(self, end: int) -> bytes:
        """The text from here to `end` as a list of its own."""
        return b"".join((b"[", memoryview(self.text)[self.position : end], b"]"))

    def take(self, section: str, records: list[Any], errors: list[str], data: bytes, end: int) -> RecordBatch:
        batch = RecordBatch(section, records, data, self.position, self.position - 1 - _address(data), errors)
        self.position = end
        return batch

    def skip_value(self) -> None:
        """Pass over one value of any kind and size."""
        self.peek()
        end = self.scanner.value_end(self.position, self.size)
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
        match = SPACE.match(self.text, self.position)
        self.position = match.end() if match else self.position
        if self.position == self.size:
            raise self.truncated("before its end")
        return self.text[self.position : self.position + 1]

    def check_end(self) -> None:
        """Nothing may follow the top level."""
        if (match := SPACE.match(self.text, self.position)) and match.end() < self.size:
            self.position = match.end()
            if self.text[self.position : self.position + 1] in (b"{", b"["):
                raise PicsError(
                    f"{self.path}: several JSON values, one after the other (JSON lines), expected a single one",
                    "make one object of them, or a file of each (a pattern with * reads several)",
                )
            raise self.syntax_error("the end of the file")

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
