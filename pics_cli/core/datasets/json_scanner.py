"""Where values and records end in a JSON text that may be damaged, and what in it is no JSON but can be read past."""

from __future__ import annotations

import mmap
import re
from collections.abc import Collection

import msgspec

BLOCK_BYTES = 8 << 20
# What decoding raises on text that is no JSON of the wanted shape, or nested beyond measure.
JSON_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
# A record of more than this is none: a quote or bracket too many hides where it ends.
LONGEST_RECORD = 2 * BLOCK_BYTES
# How far the end of a record is looked for before a quote too many is thought of.
_NEAR = 1 << 16
SPACE = re.compile(rb"[ \t\r\n]*")
# A lone quote is a string that goes on past the end of the text.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}"]', re.DOTALL)
_SCALAR_END = re.compile(rb"[,}\]]")
_FIRST_KEY = re.compile(rb'\{[ \t\r\n]*("(?:[^"\\]|\\.)*")[ \t\r\n]*:')
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
# NaN and Infinity, as Python writes them, where a value ends; and texts, which may hold the same.
_NO_NUMBER = re.compile(rb"(?:NaN|-?Infinity)(?=[ \t\r\n]*[,}\]])")
_TEXT = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)


def blank_nans(data: bytes) -> bytes:
    """The text, of the same length, with empty strings for values that are no numbers."""
    if b"NaN" not in data and b"Infinity" not in data:
        return data
    parts = _TEXT.split(data)
    for i, part in enumerate(parts):
        if i % 2 == 0 and (b"NaN" in part or b"Infinity" in part):  # between texts
            parts[i] = _NO_NUMBER.sub(lambda match: b'""'.ljust(len(match.group())), part)
    return b"".join(parts)


class RecordScanner:
    """Finds ends in a mapped text."""

    def __init__(self, text: mmap.mmap) -> None:
        self.text, self.size = text, len(text)
        self.record_border = self.array_border = re.compile(b"")

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

    def begin_array(self, position: int, sections: Collection[str]) -> None:
        """Learn what stands between the records of the array at `position` (all begin with the key of the first), and
        after the last, before one of the other `sections`.
        """
        key = _FIRST_KEY.match(self.text, position)
        names = b"|".join(re.escape(name.encode()) for name in (*sections, "info", "licenses"))
        space = SPACE.pattern
        self.record_border = re.compile(
            rb"\}" + space + b"," + space + rb"(?=\{" + space + re.escape(key.group(1) if key else b"") + b")"
        )
        after = rb"(?:,%b\"(?:%b)\"%b:|\}?%b\Z)" % (space, names, space, space)
        self.array_border = re.compile(rb"\}%b(?=\]%b%b)" % (space, space, after))

    def record_end(self, start: int, stop: int) -> int | None:
        """Where the record at `start` ends; one that is no JSON ends where the next begins. None: not before `stop`."""
        near = min(stop, start + _NEAR)
        end = self.value_end(start, near)
        if end is None:
            border = self.first_border(start, near) if near < stop or stop == self.size else None
            if border and _ESCAPED.sub(b"", self.text[start:border]).count(b'"') % 2:
                return border
            end = self.value_end(start, stop)
        if end is None:
            return self.first_border(start, stop) if stop - start >= LONGEST_RECORD else None
        try:
            msgspec.json.decode(memoryview(self.text)[start:end], type=msgspec.Raw)
        except JSON_ERRORS:
            return self.first_border(start, end) or end
        return end

    def first_border(self, start: int, stop: int) -> int | None:
        """End of the first `}` that the beginning of another record, or the end of the array, follows."""
        borders = [self.record_border.search(self.text, start, stop)]
        borders += [self.array_border.search(self.text, start, min(stop + _NEAR, self.size))]
        return min((border.start() + 1 for border in borders if border and border.start() < stop), default=None)
