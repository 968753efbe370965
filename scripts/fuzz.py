"""Damage what pics reads, and see that each input is refused with a line of text or gives the right result.

    python scripts/fuzz.py [--seconds 1200] [--inputs 20000] [--seed 0] [--areas pictures,masks,…] [--write]
    python scripts/fuzz.py --only pictures:1234        # one input again, with its traceback

Inputs are a function of seed, area and number. They are tried in a process of their own, which is watched: one that
takes over 60 seconds or over 2 GB is ended and counted, and the next are tried in a new one. The table says what is
counted; --write puts it into docs/reliability.md. Exit code 1 where anything failed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import logging
import math
import multiprocessing
import os
import shutil
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fuzz_areas import AREAS, Area
from run_script import run_script

HANG_SECONDS, SETUP_SECONDS, MEMORY_KB = 60.0, 240.0, 2_000_000
DOCUMENT = Path(__file__).resolve().parents[1] / "docs/reliability.md"
FAILURES = {"traceback": "tracebacks", "hang": "over 60 s", "memory": "over 2 GB", "silent": "silently other",
            "outside": "written outside"}  # fmt: skip
GOOD = ("refused", "same", "other")


class Input(NamedTuple):
    """An area by name, and a number in it."""

    area: str
    number: int


class Result(NamedTuple):
    """How an input ended: one of GOOD or of FAILURES, and what it was."""

    input: Input
    ending: str
    what: str


def schedule(areas: list[str], inputs: int) -> list[Input]:
    """So many inputs, areas by turns in proportion to what they plan, so that any part of a run tries all of them."""
    total = sum(AREAS[name].planned for name in areas)
    counts = {name: math.ceil(inputs * AREAS[name].planned / total) for name in areas}
    turns = [((number + 0.5) / count, Input(name, number)) for name, count in counts.items() for number in range(count)]
    return [each for _, each in sorted(turns)]


class Trial:
    """The areas of a process, each made when it is first needed, in folders of which nothing else may change."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.seed, self.areas = root, seed, dict[str, Area]()
        for name in ("cwd", "home", "cache"):
            (root / name).mkdir()
        os.chdir(root / "cwd")
        os.environ |= {"HOME": str(root / "home"), "PICS_CACHE": str(root / "cache/pics"), "HF_HUB_OFFLINE": "1",
                       "NO_PROXY": "*"}  # fmt: skip

    def area(self, name: str) -> Area:
        """The area of a name."""
        if name not in self.areas:
            folder = self.root / name
            folder.mkdir()
            self.areas[name] = AREAS[name](folder)
        return self.areas[name]

    def attempt(self, which: Input) -> Result:
        """Try an input."""
        key = hashlib.sha256(f"{self.seed} {which.area} {which.number}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(key[:8], "big"))
        _reset_peak()
        try:
            ending, what = self.areas[which.area].attempt(rng)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(last.filename).name}:{last.lineno}"
            return Result(which, "traceback", f"{place}: {type(error).__name__}: {' '.join(str(error).split())[:160]}")
        if strays := self.strays():
            return Result(which, "outside", f"{', '.join(strays[:3])}: {what}")
        return Result(which, "memory" if _peak_kb() > MEMORY_KB else ending, what)

    def strays(self) -> list[str]:
        """What lies where nothing should."""
        found = [path for path in self.root.iterdir() if path.name not in ("cwd", "home", "cache", *self.areas)]
        found += (self.root / "cwd").iterdir()
        # Libraries look for their settings at home.
        found += [path for path in (self.root / "home").iterdir() if path.name not in (".cache", ".config")]
        return [str(path) for path in found]


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_kb() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1])
    return 0


def _try_all(inputs: list[Input], seed: int, root: Path, results: Connection) -> None:
    logging.getLogger("pics_cli").handlers = [logging.NullHandler()]
    # The command compares the checksums of its caches in its first process, and this one stands for it.
    multiprocessing.process._parent_process = None  # type: ignore[attr-defined]
    warnings.simplefilter("ignore")  # Pillow's, of odd tags
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libpng's
    tester = Trial(root, seed)
    for which in inputs:
        if which.area not in tester.areas:
            results.send(("make", which))
            try:
                tester.area(which.area)
            except Exception:  # of whatever kind: the other process prints it and ends
                results.send(traceback.format_exc())
                return
        results.send(("begin", which))
        results.send(tester.attempt(which))


def watched(inputs: list[Input], seed: int, seconds: float) -> Iterator[Result]:
    """Results of inputs, in order, until they or the time are at their end."""
    context, end, done = multiprocessing.get_context("spawn"), time.monotonic() + seconds, 0
    while done < len(inputs) and time.monotonic() < end:
        root = Path(tempfile.mkdtemp(prefix="pics-fuzz-"))
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_try_all, args=(inputs[done:], seed, root, theirs), daemon=True)
        process.start()
        theirs.close()
        current, deadline = inputs[done], time.monotonic() + SETUP_SECONDS
        try:
            while done < len(inputs) and time.monotonic() < end:
                ending = None
                if ours.poll(0.2):
                    try:
                        told = ours.recv()
                    except EOFError:
                        ending = "traceback"  # the process died
                    else:
                        if isinstance(told, str):
                            raise RuntimeError(f"{current.area}: cannot be prepared:\n{told}")
                        if isinstance(told, Result):
                            done += 1
                            yield told
                        else:
                            current = told[1]
                            limit = SETUP_SECONDS if told[0] == "make" else HANG_SECONDS
                            deadline = time.monotonic() + limit
                        continue
                elif time.monotonic() > deadline:
                    ending = "hang"
                elif _resident_kb(process.pid) > 1.5 * MEMORY_KB:
                    ending = "memory"
                if ending:
                    done += 1
                    yield Result(current, ending, f"the process was ended (exit code {process.exitcode})")
                    break
        finally:
            process.kill()
            process.join()
            shutil.rmtree(root, ignore_errors=True)


def _resident_kb(pid: int | None) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)
    return 0


def table(endings: dict[str, Counter[str]]) -> str:
    """Counts as a Markdown table, one row an area."""
    columns = ["tried", *GOOD, *FAILURES]
    lines = [f"| input | tried | refused | same result | other values | {' | '.join(FAILURES.values())} |"]
    lines.append("| --- |" + " ---: |" * len(columns))
    rows = [(AREAS[name].title, counts) for name, counts in endings.items()]
    for title, counts in [*rows, ("all", sum(endings.values(), Counter[str]()))]:
        values = [counts.total(), *(counts[word] for word in (*GOOD, *FAILURES))]
        lines.append(f"| {title} | {' | '.join(f'{value:,}' for value in values)} |")
    return "\n".join(lines)


def again(which: Input, seed: int) -> int:
    """Try one input in this process, and show what happens."""
    os.environ["PICS_TRACEBACK"] = "1"
    root = Path(tempfile.mkdtemp(prefix="pics-fuzz-"))
    tester = Trial(root, seed)
    tester.area(which.area)
    key = hashlib.sha256(f"{seed} {which.area} {which.number}".encode()).digest()
    ending, what = tester.areas[which.area].attempt(np.random.default_rng(int.from_bytes(key[:8], "big")))
    print(f"{which.area}:{which.number}: {ending}: {what}\nfolder: {root}")
    return int(ending not in GOOD)


def main() -> int:
    """Try inputs and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--areas", default=",".join(AREAS), help=f"of {', '.join(AREAS)}")
    parser.add_argument("--only", metavar="AREA:NUMBER", help="one input again")
    parser.add_argument("--write", action="store_true", help="the table into docs/reliability.md")
    options = parser.parse_args()
    if options.only:
        area, _, number = options.only.partition(":")
        return again(Input(area, int(number)), options.seed)
    names = options.areas.split(",")
    if unknown := [name for name in names if name not in AREAS]:
        parser.error(f"no area {unknown[0]}: {', '.join(AREAS)}")
    endings = {name: Counter[str]() for name in names}
    start = time.monotonic()
    for result in watched(schedule(names, options.inputs), options.seed, options.seconds):
        endings[result.input.area][result.ending] += 1
        if result.ending in FAILURES:
            print(f"{result.ending}: {result.input.area}:{result.input.number}: {result.what}", flush=True)
    text = table(endings)
    tried = sum(counts.total() for counts in endings.values())
    print(f"\n{text}\n\n{tried:,} inputs in {time.monotonic() - start:,.0f} s, seed {options.seed}")
    if options.write:
        before, _, rest = DOCUMENT.read_text().partition("<!-- table -->\n")
        DOCUMENT.write_text(f"{before}<!-- table -->\n{text}\n<!-- end -->{rest.partition('<!-- end -->')[2]}")
    return int(any(counts[word] for counts in endings.values() for word in FAILURES))


if __name__ == "__main__":
    run_script(main)
