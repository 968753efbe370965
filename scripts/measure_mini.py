"""Measure a model on drawn scenes it has never seen, against pasting, Poisson blending and one object at a time.

    python scripts/measure_mini.py --model FOLDER [--scenes 500] [--out figures.json] [--sheet sheet.png]
    python scripts/measure_mini.py --methods paste,poisson

Scenes of two objects from the generator's held-out side, with a seed of their own: shapes, colours, textures and places
are none of training's or validation's. References are alternative views, turned and lit otherwise. What each figure is
says docs/metrics.md; intervals hold 95 %. Scene n is the same whatever --scenes is.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pics_cli.console import State, note, progress
from pics_cli.errors import PicsError
from told import told

if TYPE_CHECKING:
    from pics_cli.core.data.synth.plan import Style
    from pics_cli.core.evaluation.case import Case
    from pics_cli.core.evaluation.methods import Method, WithModel
    from pics_cli.core.evaluation.summary import Measured

METHODS = ("parallel", "sequential", "paste", "poisson")
# Share of a region's sides that an object takes where no model says it: as in recipes/mini.yaml.
FILL = 0.75
HEADINGS = {
    "psnr_region": "PSNR dB", "seam": "seam", "seam_box": "at boxes", "seam_object": "at objects", "shadow": "shadow",
    "lit": "lit ground", "order": "order", "identity": "identity", "sharpness": "sharpness",
}  # fmt: skip
WIDTH = 176


class Bench(NamedTuple):
    """What every scene is drawn and judged with."""

    style: Style
    seed: int
    fill: float
    sight: Any
    methods: dict[str, Method]

    def case(self, number: int) -> Case:
        """Scene of that number."""
        from pics_cli.core.evaluation.scenes import make_case

        return make_case(self.style, self.seed, number, self.fill)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="FOLDER", help="to measure; not needed for baselines alone")
    parser.add_argument("--methods", default=",".join(METHODS), metavar="A,B", help=f"of {','.join(METHODS)}; all")
    parser.add_argument("--scenes", type=int, default=500, metavar="N", help="default 500")
    parser.add_argument("--seed", type=int, default=2026, metavar="N", help="of scenes and noise; default 2026")
    parser.add_argument("--turn", type=float, default=5, metavar="DEG", help="references' view; default 5 degrees")
    parser.add_argument("--light", type=float, default=0.3, metavar="X", help="references' light, 0 to 1; default 0.3")
    parser.add_argument("--detail", type=float, default=2, metavar="X", help="their resolution over the picture's; 2")
    parser.add_argument("--size", type=int, default=256, metavar="PX", help="of the scenes; default 256")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, …")
    parser.add_argument("--dtype", default="auto", metavar="NAME", help="auto, bf16, fp16 or fp32")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write all figures")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="write the best, middling and worst pictures")
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="of each of them; default 3")
    return parser.parse_args()


def check(options: argparse.Namespace) -> None:
    """Refuse what cannot be measured; `methods` becomes a list, in the order of the table.

    Raises:
        PicsError: with the flag.
    """
    asked = options.methods.split(",")
    for name in asked:
        if name not in METHODS:
            raise PicsError(f"--methods: got {name or 'nothing'}, expected some of {', '.join(METHODS)}")
    options.methods = [name for name in METHODS if name in asked]
    if options.scenes < 1 or options.rows < 1:
        flag = "--scenes" if options.scenes < 1 else "--rows"
        raise PicsError(f"{flag}: got {getattr(options, flag[2:])}, expected at least 1")
    for flag, low, high in (("turn", 0, 90), ("light", 0, 1), ("detail", 1, 4), ("size", 64, 1024)):
        value = getattr(options, flag)
        if not low <= value <= high:
            raise PicsError(f"--{flag}: got {value:g}, expected {low} to {high}")
    for path, suffix in ((options.out, ".json"), (options.sheet, ".png")):
        if path is not None and (path.suffix != suffix or not path.absolute().parent.is_dir()):
            flag = "--out" if suffix == ".json" else "--sheet"
            raise PicsError(f"{flag} {path}: expected the name of a {suffix} file in a folder that exists")
    if options.model is None and {"parallel", "sequential"} & set(options.methods):
        raise PicsError("--methods parallel and sequential need --model", "baselines alone: --methods paste,poisson")


def prepared(options: argparse.Namespace) -> tuple[Bench, dict[str, Any]]:
    """What to measure with, and what is recorded of it."""
    from pics_cli.core.data.synth.plan import Style
    from pics_cli.core.evaluation.measures import sight_of
    from pics_cli.core.evaluation.methods import method
    from pics_cli.core.evaluation.scenes import other_cases
    from pics_cli.core.recipe import find_recipe, load_dataset
    from pics_cli.core.sources import SynthSource

    source = load_dataset(find_recipe("synth")).source
    assert isinstance(source, SynthSource)
    weights = tuple(source.relations.items())
    style = Style(options.size, 2, weights, options.turn, options.light, options.detail)
    model, record = loaded(options) if {"parallel", "sequential"} & set(options.methods) else (None, {})
    fill = FILL if model is None else model.pipeline.config.fill
    methods = {name: method(name, model) for name in options.methods}
    drawn = {name: getattr(options, name) for name in ("seed", "turn", "light", "detail", "size")}
    settings = {**drawn, "fill": fill}
    sight = sight_of(other_cases(style, options.seed, fill), options.seed)
    return Bench(style, options.seed, fill, sight, methods), {**settings, **record}


def loaded(options: argparse.Namespace) -> tuple[WithModel, dict[str, Any]]:
    """The model, and what is recorded of it."""
    from pics_cli.core.evaluation.methods import WithModel
    from pics_cli.core.inference.record import model_fingerprint
    from pics_cli.core.model.config import PATTERNS
    from pics_cli.core.model.devices import choose_device, choose_dtype
    from pics_cli.core.model.hub import snapshot
    from pics_cli.core.model.pipeline import PicsPipeline

    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    folder = snapshot(options.model, "--model", PATTERNS)
    model = WithModel(PicsPipeline.from_pretrained(folder, dtype=dtype, device=device), options.seed)
    config = model.pipeline.config
    return model, {
        "model": {
            "fingerprint": model_fingerprint(folder),
            "recipe_hash": config.recipe_hash,
            "trained_steps": config.trained_steps,
        },
        "steps": model.settings.steps,
        "guidance": model.settings.guidance,
        "scheduler": model.settings.scheduler,
        "dtype": model.settings.dtype,
        "device": device.type,
    }


def measure(bench: Bench, count: int) -> tuple[list[Measured], dict[str, float], list[int]]:
    """Figures of the scenes, seconds a picture by method, and numbers of scenes without room for their objects."""
    from pics_cli.core.evaluation.measures import judge
    from pics_cli.core.evaluation.summary import FIGURES, Measured

    rows, none, spent = list[Measured](), list[int](), dict.fromkeys(bench.methods, 0.0)
    with progress("measure", "scenes", lambda: State(len(rows) + len(none), count, "")):
        for number in range(count):
            try:
                case = bench.case(number)
            except PicsError:
                none.append(number)
                continue
            values = {}
            for name, make in bench.methods.items():
                begun = time.perf_counter()
                result = make(case)
                spent[name] += time.perf_counter() - begun
                values[name] = judge(result, case, bench.sight, FIGURES).values
            rows.append(Measured(number, case.relation, values))
    if not rows:
        raise PicsError("no scene had room for its objects", "take another --seed or a larger --scenes")
    return rows, {name: seconds / len(rows) for name, seconds in spent.items()}, none


def draw(bench: Bench, rows: Sequence[Measured], each: int, path: Path) -> None:
    """The scenes that the first method is best, middling and worst at, made once more."""
    from pics_cli.core.data.pictures import encode_png
    from pics_cli.core.evaluation.sheet import Shown, draw_results
    from pics_cli.core.files import AtomicFile

    first = next(iter(bench.methods))
    ranked = sorted(rows, key=lambda row: -row.values[first]["psnr_region"])
    middle = max((len(ranked) - each) // 2, 0)
    chosen = {"best": ranked[:each], "median": ranked[middle : middle + each], "worst": ranked[-each:]}
    shown = []
    for why, some in chosen.items():
        for row in some:
            case = bench.case(row.number)
            results = {name: (make(case), words(row.values[name])) for name, make in bench.methods.items()}
            shown.append(Shown(why, case, results))
    title = f"{len(rows)} held-out scenes by the PSNR of {first}; frames: the regions"
    with AtomicFile(path) as file:
        file.write(encode_png(draw_results(title, shown)))


def words(values: dict[str, float]) -> str:
    """Below a picture."""
    order = "" if math.isnan(values["order"]) else f", order {'right' if values['order'] else 'wrong'}"
    return f"{values['psnr_region']:.1f} dB, seam {values['seam']:.1f}{order}"


def show(summary: dict[str, Any]) -> None:
    """The table and the bars on stdout."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False)
    table = Table(box=None, padding=(0, 1), title="mean ± half of its 95 % interval", title_justify="left")
    for name in ("scenes", "method", *HEADINGS.values()):
        table.add_column(name, justify="left" if name in ("scenes", "method") else "right", no_wrap=True)
    for group, methods in summary["figures"].items():
        for at, (name, figures) in enumerate(methods.items()):
            title = f"{group} ({figures['psnr_region']['scenes']})" if at == 0 else ""
            table.add_row(title, name, *(cell(figures[figure]) for figure in HEADINGS))
        table.add_row()
    console.print(table)
    for rival, groups in summary["parallel_minus"].items():
        cells = ", ".join(f"{HEADINGS[figure]} {cell(one, '+')}" for figure, one in groups["all"].items())
        console.print(f"parallel minus {rival}: {cells}", soft_wrap=True)
    for bar in summary["bars"]:
        met = {True: "met", False: "NOT MET", None: "nothing to say it by"}[bar["met"]]
        console.print(f"{met}: {bar['what']}: {bar['found']}", soft_wrap=True)


def cell(one: dict[str, Any], sign: str = "") -> str:
    if one["mean"] is None:
        return "-"
    return f"{one['mean']:{sign}.2f} ±{(one['high'] - one['low']) / 2:.2f}"


def main() -> None:
    options = arguments()
    check(options)
    import cv2

    from pics_cli.core.evaluation.summary import summarise
    from pics_cli.core.files import write_json

    cv2.setNumThreads(1)
    bench, record = prepared(options)
    rows, seconds, none = measure(bench, options.scenes)
    summary = summarise(rows, options.methods, options.seed)
    show(summary)
    each = ", ".join(f"{name} {value:.3f}" for name, value in seconds.items())
    note(f"seconds a picture: {each}" + (f"; {len(none)} scenes without room" if none else ""))
    if options.out is not None:
        taken = {name: round(value, 4) for name, value in seconds.items()}
        write_json(options.out, {**record, "seconds_a_picture": taken, "without_room": none, **summary})
    if options.sheet is not None:
        draw(bench, rows, options.rows, options.sheet)


if __name__ == "__main__":
    told(main)
