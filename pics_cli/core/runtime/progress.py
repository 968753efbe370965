"""How far a job is: written by the job, read by the console."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """Counts of a job's unit of work.

    Jobs with more to show subclass it and override `detail`.

    Attributes:
        done: units that are done, those of earlier runs among them; 0 to `total`.
        total: units of the whole job; 0 as long as it is unknown.
        done_before: units that earlier runs did.
        activity: what the job does besides counted work, such as reading the model; empty: nothing.
    """

    done: float = 0
    total: int = 0
    done_before: int = 0
    activity: str = ""

    def add(self, block: Progress) -> None:
        """Count what was done elsewhere, from a progress of its own; `total` and what earlier runs did stay."""
        self.done += block.done

    @property
    def detail(self) -> str:
        """Text behind the counts in a line of progress."""
        return self.activity
