"""Write the tables of docs/scale.md from the constants in docs/scale.json.

    python scripts/scale_tables.py [--check]

Whoever measures a constant again writes it into docs/scale.json and runs this. `dispatch` and `start` are those of
`pics_cli/core/runtime/cluster_model.py`, which `pics … --plan` computes with; a test holds the two together.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from pics_cli.core.runtime.cluster_model import NODE_GBIT, NODES, Cluster, Work, forecast
from pics_cli.errors import FAILED, PicsError
from run_script import run_script
from simulate_cluster import simulate

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT, CONSTANTS = ROOT / "docs/scale.md", ROOT / "docs/scale.json"
CORES, GPUS, BLOCK, SLOW_GBIT = 32, 8, 256, 1.0
MANY = 100_000_000
HEADER = ("nodes", "workers", "shards", "time", "node-hours", "GB/s read", "GB/s written", "limited by")
STORAGE = 5e9
_LIMITS = {"workers": "workers", "blocks": "fewer blocks than workers", "network": "network", "driver": "the driver"}


def constants() -> dict[str, float]:
    """By name."""
    return {name: float(entry["value"]) for name, entry in json.loads(CONSTANTS.read_text()).items()}


def build_work(pictures: int, shard: int) -> Work:
    """Building shards of so many candidates from pictures such as Objects365's."""
    known = constants()
    samples = known["shard_bytes"] / known["sample_bytes"] / known["pictures"]  # of a picture
    return Work(
        items=pictures, seconds=1 / known["build_rate"], read=known["picture_bytes"],
        written=samples * known["sample_bytes"], block=shard / samples, calls=samples / shard + 1 / 4096,
    )  # fmt: skip


def annotate_work(pictures: int) -> Work:
    """Masks for pictures such as Objects365's."""
    known = constants()
    return Work(
        items=pictures, seconds=1 / known["sam_rate"], read=known["picture_bytes"], written=known["label_bytes"],
        block=BLOCK, calls=1 / BLOCK,
    )  # fmt: skip


def cluster(nodes: int, workers: int, gbit: float = NODE_GBIT) -> Cluster:
    """With the measured constants."""
    known = constants()
    return Cluster(nodes, workers, gbit, known["dispatch"], known["start"])


def row(work: Work, machines: Cluster) -> list[str]:
    """A line of a table, of the columns of `HEADER`."""
    ahead = forecast(work, machines)
    return [
        f"{machines.nodes}", f"{machines.nodes * machines.workers:,}", f"{-(-work.items // work.block):,.0f}",
        duration(ahead.seconds), number(machines.nodes * ahead.seconds / 3600), number(ahead.read_rate / 1e9),
        number(ahead.write_rate / 1e9), _LIMITS[ahead.limit],
    ]  # fmt: skip


def duration(seconds: float) -> str:
    """In the unit that a person would take."""
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:,.0f} seconds"


def number(value: float) -> str:
    """In two digits or more."""
    return f"{value:,.0f}" if value >= 10 else f"{value:,.2g}"


def with_slow_storage(work: Work, machines: Cluster) -> str:
    """The time where all nodes together read and write `STORAGE` bytes a second."""
    least = work.items * (work.read + work.written) / STORAGE
    return duration(max(forecast(work, machines).seconds, machines.start + least))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def constants_table() -> str:
    entries = json.loads(CONSTANTS.read_text())
    rows = [
        (name, f"{e['value']:,.0f}" if e["value"] >= 1000 else f"{e['value']:g}", e["unit"], e["what"], e["from"])
        for name, e in entries.items()
    ]
    return table(("name", "value", "unit", "what", "where from"), rows)


def objects365_table() -> str:
    pictures = int(constants()["pictures"])
    plans = [(nodes, 1000, NODE_GBIT) for nodes in NODES] + [(20, 100, NODE_GBIT), (200, 100, NODE_GBIT)]
    plans += [(20, 1000, SLOW_GBIT)]
    rows = []
    for nodes, size, gbit in plans:
        work, machines = build_work(pictures, size), cluster(nodes, CORES, gbit)
        rows.append((f"{size:,}", f"{gbit:g}", *row(work, machines), with_slow_storage(work, machines)))
    return table(("shard size", "Gbit/s", *HEADER, "time with 5 GB/s"), rows)


def many_table() -> str:
    rows = []
    for nodes, gbit in [*((nodes, NODE_GBIT) for nodes in NODES), (20, SLOW_GBIT)]:
        work, machines = build_work(MANY, 1000), cluster(nodes, CORES, gbit)
        rows.append((f"{gbit:g}", *row(work, machines), with_slow_storage(work, machines)))
    return table(("Gbit/s", *HEADER, "time with 5 GB/s"), rows)


def annotate_table() -> str:
    jobs = [(int(constants()["pictures"]), nodes) for nodes in NODES] + [(MANY, nodes) for nodes in NODES]
    header = ("pictures", *HEADER[:2], "blocks", *HEADER[3:])
    return table(header, [(f"{n:,}", *row(annotate_work(n), cluster(nodes, GPUS))) for n, nodes in jobs])


def busy_table() -> str:
    """Of the simulation: ten blocks for each worker."""
    known, rows = constants(), []
    for nodes, workers in ((8, 2), (200, 2), (20, CORES), (200, CORES)):
        shares = [
            simulate(nodes * workers, 10 * nodes * workers, lambda _: seconds, known["dispatch"], known["gap"]).busy  # noqa: B023
            for seconds in (2.0, 6.0, 60.0)
        ]
        rows.append((f"{nodes}", f"{nodes * workers:,}", *(f"{share:.1%}" for share in shares)))
    return table(("nodes", "workers", "blocks of 2 s", "6 s", "60 s"), rows)


TABLES = {
    "constants": constants_table, "objects365": objects365_table, "many": many_table, "annotate": annotate_table,
    "busy": busy_table,
}  # fmt: skip


def written(document: str) -> str:
    """The document with its tables as they follow from the constants.

    Raises:
        PicsError: a table has no place in it.
    """
    for name, make in TABLES.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        if document.count(begin) != 1 or document.count(end) != 1:
            raise PicsError(f"{DOCUMENT}: expected one {begin} and one {end}")
        text = make()
        document = re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n{text}{end}", document, flags=re.DOTALL)  # noqa: B023
    return document


def main() -> int:
    text = DOCUMENT.read_text()
    if "--check" in sys.argv[1:]:
        if written(text) == text:
            return 0
        print("docs/scale.md: not what docs/scale.json gives: python scripts/scale_tables.py", file=sys.stderr)
        return FAILED
    DOCUMENT.write_text(written(text))
    return 0


if __name__ == "__main__":
    run_script(main)
