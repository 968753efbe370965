"""Time and memory of a composite by its number of objects: in one pass, and one after the other.

    python scripts/bench/objects.py [FIGURE ...] [--model DIR] [--scenes N] [--rounds N]

Scenes of the recipe `objects_bench`, two to six objects; what `pics infer` does without reading and writing files.
`seconds`: CPU time of a picture on one thread, numbers and modes taking turns. `memory`: peak of a process of its own
that makes one picture, imports included. Ratios are to two objects in one pass, in the same round.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median

import torch

from common import Row, cpu_time, spread
from pics_cli.core.evaluation.example_sources import open_examples
from pics_cli.core.evaluation.examples import Example
from pics_cli.core.evaluation.methods import MODEL_METHODS, composite_by_model
from pics_cli.core.evaluation.source_base import readable_examples
from pics_cli.core.inference.sample import CompositeOptions, Mode
from pics_cli.core.model.find_model import find_model
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.recipes.evaluation import load_evaluation
from processes import in_fresh_process

COUNTS = (2, 3, 4, 5, 6)
BASE = (2, "parallel")
_IMPORTS = f"sys.path.append({str(Path(__file__).parent)!r})\nfrom objects import make_one"
_ACTION = "make_one(path, int(sys.argv[2]), sys.argv[3])"


def scenes(count: int, number: int) -> list[Example]:
    """The first so many scenes of `objects_bench` with that number of objects."""
    recipe = load_evaluation("objects_bench")
    assert recipe.scenes is not None
    assert recipe.fill is not None
    turn = recipe.scenes.objects
    numbers = range(turn.index(count), recipe.scenes.count, len(turn))
    return list(islice(readable_examples(open_examples(recipe, recipe.fill), numbers), number))


def make(model: PicsModel, mode: Mode, examples: list[Example]) -> None:
    """Make the pictures with the model's own settings, and forget them."""
    for example in examples:
        composite_by_model(model, CompositeOptions(mode=mode).resolve(model.config), example)


def make_one(folder: Path, count: int, mode: Mode) -> None:
    """What the process does whose memory is measured."""
    torch.set_num_threads(1)
    make(PicsModel.from_pretrained(folder), mode, scenes(count, 1))


def seconds(folder: Path, number: int, rounds: int) -> Iterator[Row]:
    """CPU time of a picture on one thread (threads that wait for each other would count)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = PicsModel.from_pretrained(folder)
    sides = [(count, mode) for count in COUNTS for mode in MODEL_METHODS]
    examples = {count: scenes(count, number) for count in COUNTS}
    make(model, "parallel", examples[COUNTS[-1]][:1])  # the first is slower
    spent: dict[tuple[int, str], list[float]] = {side: [] for side in sides}
    for turn in range(rounds):
        for count, mode in sides if turn % 2 else reversed(sides):
            spent[count, mode].append(cpu_time(make, model, mode, examples[count])[0] / number)
    torch.set_num_threads(threads)
    for count, mode in sides:
        own, base = spent[count, mode], spent[BASE]
        ratios = [a / b for a, b in zip(own, base, strict=True)]
        yield Row(f"CPU time, {count} objects, {mode}", f"{spread(ratios)}: {median(own):.2f} s")


def memory(folder: Path, _number: int, _rounds: int) -> Iterator[Row]:
    """Peak memory of a process."""
    base = 0.0
    for count in COUNTS:
        for mode in MODEL_METHODS:
            peak = in_fresh_process(_IMPORTS, _ACTION, folder, count, mode)["peak"]
            base = base or peak  # `BASE` is the first
            yield Row(f"memory, {count} objects, {mode}", f"{peak / base:.3f}x: {peak:,.0f} MB")


FIGURES = {figure.__name__: figure for figure in (seconds, memory)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all when none is named")
    parser.add_argument("--model", default="pics-mini", metavar="DIR", help="as of pics infer (default pics-mini)")
    parser.add_argument("--scenes", type=int, default=4, metavar="N", help="of each number of objects (default 4)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of all of them (default 3)")
    options = parser.parse_args()
    if unknown := set(options.figures) - FIGURES.keys():
        parser.error(f"unknown figure {', '.join(sorted(unknown))}; known: {', '.join(FIGURES)}")
    folder = find_model(options.model)
    print(f"{options.scenes} scenes of each number, {options.rounds} rounds, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    for name in options.figures or FIGURES:
        for row in FIGURES[name](folder, options.scenes, options.rounds):
            print(f"{row.figure:<34} {row.result}", flush=True)


if __name__ == "__main__":
    main()
