"""What `--plan` shows: of this machine what was measured, of clusters what follows from it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from pics_cli import console
from pics_cli.errors import PicsError

if TYPE_CHECKING:
    from pics_cli.commands.results import ClusterForecast
    from pics_cli.core.datasets.plan_build import BuildPlan
    from pics_cli.core.runtime.cluster_model import Ratio, Work
    from pics_cli.core.segmentation.plan import AnnotationPlan

_LIMITS = {
    "blocks": "fewer {blocks} than {workers}: {smaller} makes more",
    "network": "the nodes' network",
    "driver": "the driver, which hands out the work: {larger} makes less of it",
}
_UNITS = {86400: "days", 3600: "hours", 60: "minutes", 1: "seconds"}


class Machines(NamedTuple):
    """The options that say which cluster a plan is for.

    Attributes:
        nodes: how many; None: see `cluster_model.NODES`.
        workers: cores or GPUs of each; None: as this machine has.
        gbit: gigabits a second of each.
    """

    nodes: int | None
    workers: int | None
    gbit: float | None

    def check(self, plan: bool, flag: str) -> None:
        """Refuse them without --plan.

        Raises:
            PicsError: one of them is given.
        """
        given = [name for name, value in zip(("--nodes", flag, "--gbit"), self, strict=True) if value is not None]
        if given and not plan:
            raise PicsError(f"{' and '.join(given)}: of the cluster that --plan plans for", "add --plan")


def show_build_plan(name: str, raw: str, plan: BuildPlan, cores: int, machines: Machines) -> None:
    """Print what building takes: samples, bytes, speed of a core, hours on this machine and on clusters."""
    from pics_cli.core.runtime.cluster_model import START_SECONDS

    speed, cpu, reading = (plan.per_picture(*names) for names in (("cpu", "reading"), ("cpu",), ("reading",)))
    share, samples, size = plan.per_picture("candidates"), plan.per_picture("samples"), plan.per_picture("written")
    tried = sum(block.pictures for block in plan.tried)
    rows = [
        ("pictures", f"{plan.pictures:,}; {tried:,} of them, in {len(plan.tried)} places, were built and thrown away"),
        ("samples", f"{_of(samples.of(plan.pictures))}, from {samples.value:.1%} of the pictures"),
        ("shards", f"about {plan.shards:,} of {plan.shard_size:,} candidates ({share.value:.1%} of the pictures)"),
        ("bytes", f"{_of(plan.sample_bytes, 1e3)} kB a sample, {_of(size.of(plan.pictures), 1e9)} GB in all"),
        ("a core", f"{_of(speed.inverse())} pictures/s"),
        ("a picture", f"{cpu.value * 1e3:,.3g} ms of work, {reading.value * 1e3:,.3g} ms of waiting for its file"),
    ]
    if plan.reading_rate is not None:
        read = plan.per_picture("read")
        rows.append(("reading", f"{read.value / 1e3:,.0f} kB a picture, {plan.reading_rate / 1e6:,.0f} MB/s by one "
                     f"process from {raw}"))  # fmt: skip
    rows.append(("this machine", f"{duration(speed.of(plan.pictures / cores))} on {_count(cores, 'core')}"))
    console.table(f"{name}: plan, nothing written", rows, only=True)
    words = {"blocks": "shards", "smaller": "a lower --shard-size", "larger": "a higher --shard-size"}
    clusters = _show_clusters(
        plan.work, START_SECONDS, "core", words, machines._replace(workers=machines.workers or cores)
    )
    columns = ("cpu", "reading", "candidates", "samples", "read", "written")
    per_picture = {column: plan.per_picture(column) for column in columns}
    _keep(name, plan.pictures, tried, per_picture, speed.of(plan.pictures / cores), clusters)


def show_annotation_plan(name: str, plan: AnnotationPlan, machines: Machines) -> None:
    """Print what annotating takes: speed of a GPU or core, labels, hours on this machine and on clusters."""
    on_cpu, tried = plan.device == "cpu", sum(block.images for block in plan.tried)
    worker = "core" if on_cpu else "GPU"
    speed, model, beside = plan.speed, plan.per_image("model"), plan.per_image("cpu", "waiting")
    labels, read = plan.per_image("written"), plan.per_image("read")
    rows = [
        ("pictures", f"{plan.images:,}; {tried:,} of them, in {len(plan.tried)} places, were segmented for this plan"),
        ("boxes", f"{_of(plan.per_image('boxes'))} a picture, {_of(plan.per_image('boxes').of(plan.images))} in all"),
        ("labels", f"{_of(labels, 1e3)} kB a picture, {_of(labels.of(plan.images), 1e9)} GB in all"),
        (f"a {worker}", f"{_of(speed.inverse())} pictures/s, {_of(speed)} s a picture"),
        ("a picture", f"{model.value:,.3g} s of the model, {beside.value * 1e3:,.3g} ms of a core for the rest, "
         f"{read.value / 1e3:,.0f} kB read"),
    ]  # fmt: skip
    if not on_cpu:
        needed = math.ceil(beside.value / model.value)
        rows.append(("beside a GPU", f"{_count(needed, 'core')} keep it busy, --workers {plan.workers} here"))
    rows.append(("this machine", f"{duration(speed.of(plan.images / plan.devices))} on {_count(plan.devices, worker)}"))
    console.table(f"{name}: plan, nothing written", rows, only=True)
    words = {"blocks": "blocks", "smaller": "a lower source.sam.block", "larger": "a higher source.sam.block"}
    clusters = _show_clusters(
        plan.work, plan.start, worker, words, machines._replace(workers=machines.workers or plan.devices)
    )
    columns = ("boxes", "model", "cpu", "waiting", "read", "written")
    per_picture = {column: plan.per_image(column) for column in columns}
    _keep(name, plan.images, tried, per_picture, speed.of(plan.images / plan.devices), clusters)


def _show_clusters(
    work: Work, start: float, worker: str, words: dict[str, str], machines: Machines
) -> list[ClusterForecast]:
    """A table of clusters: hours, node-hours, what limits, and what the storage must give."""
    from pics_cli.commands.results import ClusterForecast
    from pics_cli.core.runtime.cluster_model import NODE_GBIT, NODES, Cluster, Ratio, forecast

    workers, gbit = machines.workers or 1, machines.gbit or NODE_GBIT
    words = {**words, "workers": f"{worker}s"}
    rows, forecasts = [], []
    for nodes in (machines.nodes,) if machines.nodes else NODES:
        ahead = forecast(work, Cluster(nodes, workers, gbit, start=start))
        forecasts.append(ClusterForecast(nodes=nodes, workers=nodes * workers, **ahead._asdict()))
        rows.append((
            f"{nodes:,}", f"{nodes * workers:,}", duration(Ratio(ahead.seconds, math.inf)),
            f"{nodes * ahead.seconds / 3600:,.3g}", f"{ahead.read_rate / 1e9:,.2g}", f"{ahead.write_rate / 1e9:,.2g}",
            _LIMITS.get(ahead.limit, "the {workers}").format(**words),
        ))  # fmt: skip
    header = ("nodes", f"{worker}s", "time", "node-hours", "GB/s read", "GB/s written", "limited by")
    title = f"on nodes of {_count(workers, worker)} and {gbit:g} Gbit/s, where storage gives and takes what is needed"
    console.table(title, rows, header, right=range(6), only=True)
    return forecasts


def _keep(
    name: str,
    pictures: int,
    tried: int,
    per_picture: dict[str, Ratio],
    seconds: Ratio,
    clusters: list[ClusterForecast],
) -> None:
    from pics_cli.commands.results import Estimate, JobPlan

    console.result(
        JobPlan(
            name=name,
            pictures=pictures,
            tried=tried,
            per_picture={key: Estimate(value=ratio.value, margin=ratio.error) for key, ratio in per_picture.items()},
            seconds=Estimate(value=seconds.value, margin=seconds.error),
            clusters=clusters,
        )
    )


def duration(seconds: Ratio) -> str:
    """Seconds, minutes, hours or days, with the error in the same unit."""
    unit, name = next((unit, name) for unit, name in _UNITS.items() if seconds.value >= unit or unit == 1)
    return f"{_of(seconds, unit)} {name}"


def _of(ratio: Ratio, unit: float = 1) -> str:
    """An estimate in a unit and its error, in digits that mean something."""
    value, error = ratio.value / unit, ratio.error / unit
    if not math.isfinite(value):
        return "none"
    digits = max(0, 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{digits}f}" + (f" ± {error:,.{digits}f}" if math.isfinite(error) else "")


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
