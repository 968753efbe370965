"""What a command costs before it does any work: CPU seconds of whole processes against `import torch` alone.

    python scripts/bench/startup.py [--rounds N]

Commands take turns, so that what else the machine does meets all of them; libraries run one thread. User and system
time of the process and its children.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import pics_cli

SAMPLE = Path(pics_cli.__file__).parent / "samples" / "egg_in_cup"
PICS = [sys.executable, "-m", "pics_cli"]
BASELINE = "import torch"
# Goals, in CPU seconds.
GOALS = {"pics --help": 0.3, "pics infer, one picture": 3.5}


def commands(folder: Path) -> dict[str, list[str]]:
    """Command lines by what they are called; what they write goes to a folder."""
    words: dict[str, list[object]] = {
        "pics --help": ["--help"],
        "pics infer, one picture": ["infer", "--input", SAMPLE, "--output", folder / "infer"],
        "pics build-shards, one drawn scene": ["build-shards", "synth", "--out", folder / "shards", "--limit", 1],
        "pics eval, one drawn scene": ["eval", "--recipe", "synth_bench", "--limit", 1, "--output", folder / "eval"],
    }
    baseline = {BASELINE: [sys.executable, "-c", BASELINE]}
    return baseline | {name: [*PICS, *map(str, given)] for name, given in words.items()}


def cpu_seconds(command: list[str]) -> float:
    """User and system time of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name, command in commands(Path(folder)).items():
                seconds.setdefault(name, []).append(cpu_seconds(command))
    for name, values in seconds.items():
        ratios = [value / torch for value, torch in zip(values, seconds[BASELINE], strict=True)]
        goal = f"goal {GOALS[name]:g} s" if name in GOALS else ""
        print(
            f"{name:36} {median(values):6.2f} s ({min(values):.2f} to {max(values):.2f}) "
            f"{median(ratios):5.2f}x {BASELINE}  {goal}".rstrip()
        )


if __name__ == "__main__":
    main()
