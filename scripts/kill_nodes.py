"""Kill a node of a Ray cluster at random while a job runs, again and again: the results must be those of a local run.

    PYTHONPATH=tests python scripts/kill_nodes.py build-shards --times 10

A cluster of three nodes on this machine, one of which is killed (all its processes, at once) at a random moment of the
job and replaced; in every third round the driver is killed, too, and started again. Any file that differs from the
local run's, or that is left over, ends the script with code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from demo_data import make_lvis
from helpers.composites import composed, make_sample
from helpers.detection import make_dataset, save_tiny
from helpers.ray_cluster import RayCluster
from pics_cli.core.model.tiny_model import tiny_model


class Case(NamedTuple):
    """A job on many items.

    Attributes:
        words: of its command line without --out and --engine; made from a folder for its inputs.
        out: option that names the folder of results.
        same: files to be compared, relative to that folder, with their contents.
    """

    words: Callable[[Path], list[str]]
    out: str
    same: Callable[[Path], dict[str, bytes]]


def every_file(folder: Path) -> dict[str, bytes]:
    """Contents of all files by their path in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def build_words(inputs: Path) -> list[str]:
    """Shards of 240 drawn pictures in LVIS' layout, 6 each."""
    make_lvis(inputs / "lvis", 240, seed=1)
    raw = str(inputs / "lvis")
    return ["build-shards", "lvis", "--raw", raw, "--area-ratio", "0.001", "--shard-size", "6"]


def annotate_words(inputs: Path) -> list[str]:
    """Labels of 240 pictures, by a tiny model."""
    recipe, raw = make_dataset(inputs / "boxed", 240), str(inputs / "boxed" / "raw")
    return ["annotate", str(recipe), "--raw", raw, "--sam", str(save_tiny(inputs / "sam"))]


def infer_words(inputs: Path) -> list[str]:
    """Two composites of each of 24 samples, of one object and of two."""
    for number in range(24):
        boxes = [(20, 16, 70, 66), (50, 30, 104, 88)][: 1 + number % 2]
        make_sample(inputs / "samples" / f"s{number:02d}", boxes, seed=number)
    tiny_model().save_pretrained(inputs / "tiny")
    options = ["--model", str(inputs / "tiny"), "--steps", "6", "--num", "2"]
    return ["infer", "--input", str(inputs / "samples"), *options]


def pixels_and_names(folder: Path) -> dict[str, bytes]:
    """Pixels of the pictures, in whose records are times; what else there is, and the records' ids, by names alone."""
    manifest = folder / "manifest.jsonl"  # looked for while the command begins, too
    records = [json.loads(line) for line in manifest.read_text().splitlines()] if manifest.exists() else []
    ids = json.dumps([[record["id"], record["candidate"]] for record in records]).encode()
    pixels = {name: picture.tobytes() for name, picture in composed(folder).items()}
    return {**dict.fromkeys(every_file(folder), b""), **pixels, "ids": ids}


def eval_words(inputs: Path) -> list[str]:
    """Figures of 20 drawn scenes."""
    tiny_model().save_pretrained(inputs / "tiny")
    scenes = ["--recipe", "synth_bench", "--set", "scenes.size=96", "--metrics", "psnr,untouched", "--limit", "20"]
    return ["eval", *scenes, "--model", str(inputs / "tiny"), "--methods", "parallel,paste", "--steps", "2"]


CASES = {
    "build-shards": Case(build_words, "--out", every_file),
    "annotate": Case(annotate_words, "--out", every_file),
    "infer": Case(infer_words, "--output", pixels_and_names),
    "eval": Case(eval_words, "--output", every_file),
}


def run(words: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start `pics`; its texts go to the end of a file."""
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, "-m", "pics_cli", *words], env=environment, stdout=file, stderr=file)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--client", action="store_true", help="through Ray's client: ray://HOST:PORT")
    options = parser.parse_args()
    case, chance = CASES[options.case], random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="kill-nodes-"))
    words = case.words(folder)
    environment = {**os.environ, "PICS_CACHE": str(folder / "cache")}
    begun = time.monotonic()
    local = run([*words, case.out, str(folder / "local")], folder / "local.log", environment)
    if local.wait():
        sys.exit((folder / "local.log").read_text())
    expected, seconds = case.same(folder / "local"), time.monotonic() - begun
    print(f"{options.case}: {len(expected)} files, {seconds:.1f} s here", flush=True)
    failures = 0
    with RayCluster(client=options.client) as cluster:
        environment["RAY_ADDRESS"] = cluster.address
        engine = cluster.client_address if options.client else "ray"
        for number in range(options.times):
            out, log = folder / f"out{number}", folder / f"log{number}"
            job = [*words, case.out, str(out), "--engine", engine]
            driver = run(job, log, environment)
            node, share = chance.choice(cluster.nodes[1:]), chance.uniform(0.02, 0.8)
            while len(case.same(out)) < share * len(expected) and driver.poll() is None:
                time.sleep(0.02)
            running = driver.poll() is None
            cluster.kill(node)
            killed = [f"node {node[:8]} at {share:.0%}"] if running else ["nothing: it was done"]
            if running and number % 3 == 2:
                driver.kill()
                driver.wait()
                killed.append("the driver")
                driver = run(job, log, environment)
            code = driver.wait()
            found = case.same(out)
            differing = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
            lost = [line for line in log.read_text().splitlines() if line.startswith("lost")]
            print(
                f"{number}: killed {' and '.join(killed)}; code {code}; {len(differing)} differ; said: {lost}",
                flush=True,
            )
            if code or differing:
                failures += 1
                print(f"  {differing[:5]}\n{log.read_text()}", flush=True)
            cluster.add()
    print(f"{options.times - failures} of {options.times} rounds as the local run")
    if not failures:
        shutil.rmtree(folder)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
