"""The samples of a run: shards of every set, what is held out of them, and the order of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pics_cli.core.data.mixture import Item, Mixture, held_out, items_of
from pics_cli.core.data.shard_sets import WINDOW, Shards, resolve
from pics_cli.core.training.job import Job
from pics_cli.errors import PicsError

# Of sets that have no validation shards, at most this share is held out.
_HELD_OUT = 0.1


class Sources(NamedTuple):
    """What a run trains on and looks at.

    Attributes:
        sets: shards to train on.
        order: of their samples.
        held_sets: for each set, the shards that validation takes its samples from.
        held: which samples of these.
        from_training: names of the sets whose samples for validation are held out of training.
    """

    sets: list[Shards]
    order: Mixture
    held_sets: list[Shards]
    held: list[Item]
    from_training: list[str]

    @property
    def samples(self) -> int:
        """Samples to train on, each counted once."""
        return sum(each.samples for each in self.sets) - sum(
            self.sets[item.set].name in self.from_training for item in self.held
        )

    @property
    def contents(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        return {
            each.name: {"samples": each.samples, "contents": each.contents_sha256,
                        "validation": held.contents_sha256 if held is not each else "held out"}
            for each, held in zip(self.sets, self.held_sets, strict=True)
        }  # fmt: skip


def find_sources(job: Job, say: Callable[[str], None]) -> Sources:
    """Look for the shards of a recipe, and decide which samples are held out.

    Raises:
        PicsError: sets that are missing, empty or of another layout; an address that needs --allow-pipe.
    """
    data, options = job.recipe.data, job.recipe.validation
    sets = resolve(data, "train", allow_missing=job.allow_missing, allow_pipe=job.allow_pipe, say=say)
    there = {each.name: each for each in resolve(data, "val", allow_missing=True, allow_pipe=job.allow_pipe, say=say)}
    held_sets = [there.get(each.name, each) for each in sets]
    counts = [each.counts for each in held_sets]
    own = [held is each for held, each in zip(held_sets, sets, strict=True)]
    numbers = held_out(counts, options.samples, job.recipe.seed, [_HELD_OUT if here else 1.0 for here in own])
    try:
        order = Mixture(
            [each.counts for each in sets],
            [each.repeat for each in sets],
            job.recipe.seed,
            share=data.epoch_share,
            held_out=[chosen if here else set() for chosen, here in zip(numbers, own, strict=True)],
            windows=[WINDOW if each.remote else None for each in sets],
        )
        empty = [each.name for each, share in zip(sets, order.shares, strict=True) if not share]
    except ValueError:
        empty = [each.name for each in sets]
    if empty:
        raise PicsError(
            f"{', '.join(empty)}: no sample in an epoch: too few for so small a repeat", "raise data.sets.NAME.repeat"
        )
    names = [each.name for each, here in zip(sets, own, strict=True) if here]
    return Sources(sets, order, held_sets, items_of(counts, numbers), names)


def share_rows(sources: Sources) -> list[tuple[str, str]]:
    """What each set has and gives, a line each, for people."""
    return [
        (
            each.name,
            f"{each.samples:,} samples in {len(each.sources):,} shards, repeated {each.repeat:g}: {share:.1%} of an "
            f"epoch; validation: {'held out' if each.name in sources.from_training else 'shards of its own'}",
        )
        for each, share in zip(sources.sets, sources.order.shares, strict=True)
    ]
