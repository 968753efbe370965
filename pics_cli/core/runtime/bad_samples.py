"""The limit on unreadable input (`--max-bad`), the same for all commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pics_cli.errors import PicsError

# What --max-bad allows by default: this share of the total, and at least so many.
_DEFAULT_SHARE, _DEFAULT_MINIMUM = 0.01, 100
_MAX_LINES = 1000


@dataclass
class BadRecords:
    """Records of an annotation file that cannot be used, and why.

    Attributes:
        counts: how many, by reason.
        lines: one line on each of the first 1000.
    """

    counts: dict[str, int] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def extend(self, reason: str, lines: Iterable[str]) -> None:
        """Count records that are bad for one reason."""
        for line in lines:
            self.counts[reason] = self.counts.get(reason, 0) + 1
            if len(self.lines) < _MAX_LINES:
                self.lines.append(f"{reason}: {line}")

    def add(self, other: BadRecords, name: str) -> None:
        """Count those of a further file; the lines on them name it."""
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
        for line in other.lines[: _MAX_LINES - len(self.lines)]:
            reason, _, text = line.partition(": ")
            self.lines.append(f"{reason}: {name}: {text}")

    @property
    def summary(self) -> str:
        """How many for what reason, and the first."""
        counts = ", ".join(f"{count:,} {reason}" for reason, count in self.counts.items())
        return f"{counts}; the first: {self.lines[0].partition(': ')[2]}" if self.lines else counts

    def as_dict(self) -> dict[str, Any]:
        """As plain data, reasons in alphabetical order."""
        return asdict(BadRecords(dict(sorted(self.counts.items())), self.lines))


def stop_at_max_bad(
    max_bad: int | None,
    total: float,
    bad: Sequence[Mapping[str, Any]],
    records: BadRecords | None = None,
    what: str = "pictures or records",
    kept: str = "finished shards are kept",
) -> None:
    """Stop a job that has met more unreadable input than --max-bad allows.

    Args:
        max_bad: how many are allowed; None: 1 % of the total, and at least 100.
        total: number of pictures or samples of the job.
        bad: the unreadable ones: `item`, `reason`, `detail`.
        records: bad records that were left out while indexing.
        what, kept: what was bad and what is not lost, for the message.

    Raises:
        PicsError: there are more; names the first five.
    """
    count = len(bad) + (sum(records.counts.values()) if records else 0)
    allowed = max(_DEFAULT_MINIMUM, int(_DEFAULT_SHARE * total)) if max_bad is None else max_bad
    if count > allowed:
        lines = [f"  {entry['item']}: {entry['reason']}: {entry['detail']}" for entry in bad[:5]]
        lines += [f"  {line}" for line in records.lines[:5]] if records else []
        shown = "\n".join(lines[:5]) + (f"\n  and {count - 5} more" if count > 5 else "")
        raise PicsError(
            f"{count} bad {what}, more than --max-bad {allowed}; the first:\n{shown}",
            f"mend the input, or allow more with --max-bad N; {kept} and a second run resumes",
        )
