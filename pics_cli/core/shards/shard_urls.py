"""How a recipe names shards: folders, files with ranges and wildcards, addresses, commands."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from pics_cli.errors import PicsError

PIPE = "pipe:"
_RANGE = re.compile(r"\{([0-9]+)\.\.([0-9]+)\}")
_MOST = 1_000_000


def is_pipe(text: str) -> bool:
    """Whether this is a command whose output is a shard."""
    return text.startswith(PIPE)


def is_address(text: str) -> bool:
    """Whether this is a http(s) address."""
    return text.startswith(("http://", "https://"))


def is_wild(text: str) -> bool:
    """Whether a file name has * or ? in it."""
    return "*" in text or "?" in text


def expand(text: str) -> list[str]:
    """`{00000..00010}` to each of its numbers, as wide as written; several are combined, the last fastest.

    Raises:
        PicsError: a range that runs backwards or names more than a million shards; other braces, but in a command.
    """
    pieces = _RANGE.split(text)
    if not is_pipe(text) and re.search(r"[{}]", "".join(pieces[::3])):
        raise PicsError(
            f"{text}: braces are for {{split}} and for ranges of numbers such as {{00000..00010}}",
            "write other files as sets of their own",
        )
    choices, total = list[list[str]](), 1
    for first, last in zip(pieces[1::3], pieces[2::3], strict=True):
        number = int(last) - int(first) + 1
        total *= number
        if number < 1 or total > _MOST:
            raise PicsError(f"{text}: {{{first}..{last}}} names {max(total, 0):,} shards, expected 1 to {_MOST:,}")
        choices.append([f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)])
    plain = pieces[::3]
    return [
        "".join(itertools.chain(*zip(plain, (*numbers, ""), strict=True))) for numbers in itertools.product(*choices)
    ]


def matching(pattern: str) -> list[Path]:
    """Files that fit a pattern with * and ?, in order of their names."""
    anchor = Path(pattern).anchor
    inside = re.sub(r"\[", "[[]", pattern.removeprefix(anchor))  # which Path.glob takes for a choice of letters
    return sorted(path for path in Path(anchor).glob(inside) if path.is_file())
