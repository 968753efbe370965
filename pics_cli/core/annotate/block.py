"""A block of pictures on its way through the workers."""

from __future__ import annotations

import contextlib
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field

from pics_cli.core.annotate.labels import Found, Labelled
from pics_cli.core.annotate.prepare import Prepared
from pics_cli.errors import BadSample


@dataclass
class Block:
    """A block in the making.

    Attributes:
        number: its own.
        rows: of its pictures that are to be made.
        stack: holds its lock.
        before: labels that were there, by row.
        waiting: labels of each row, as they come, or what is wrong with a picture.
        dropped: why boxes were left out.
    """

    number: int
    rows: list[int]
    stack: contextlib.ExitStack
    before: dict[int, Labelled] = field(default_factory=dict)
    waiting: dict[int, tuple[Prepared, Future[list[Found]]] | BadSample] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)

    def is_done(self) -> bool:
        """Whether nothing is being computed any more."""
        return len(self.waiting) == len(self.rows) and all(
            isinstance(each, BadSample) or each[1].done() for each in self.waiting.values()
        )
