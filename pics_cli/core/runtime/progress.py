"""How far a job is: written by the job, read by whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Progress:
    """Counts of a job's unit of work.

    A job with more to tell has a subclass of its own, which says it in `detail`.

    Attributes:
        done: units that are done, those of earlier runs among them; 0 to `total`.
        total: units of the whole job; 0 where nobody knows yet.
        done_before: units that earlier runs did.
        activity: what goes on beside the work itself, such as reading the model; empty: nothing.
    """

    done: float = 0
    total: int = 0
    done_before: int = 0
    activity: str = ""

    @property
    def detail(self) -> str:
        """What a line of progress says behind the counts."""
        return self.activity
