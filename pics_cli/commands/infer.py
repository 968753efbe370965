"""`pics infer`: composite pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pics_cli.commands.choices import Crop, Cutout, Dtype, Fit, Match, Memory, Mode, OutputFormat, Preset, Region
from pics_cli.commands.cluster import ENGINE_HELP, engine_opener
from pics_cli.commands.infer_report import show_report
from pics_cli.commands.runner import Command, run_job
from pics_cli.core.model.schedulers import SchedulerName
from pics_cli.core.runtime.extras import require
from pics_cli.core.runtime.storage import location
from pics_cli.errors import BadSample, PicsError

if TYPE_CHECKING:
    from pics_cli.core.inference.inputs import SampleFiles
    from pics_cli.core.inference.pick import Judge
    from pics_cli.core.inference.plan import InferenceJob
    from pics_cli.core.runtime.worker_group import OpenEngine

_ORDER = "pics.order"


class OrderedCommand(Command):
    """Remembers the order of the options among each other, which typer loses where one is repeated."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse once more, for the order alone, what has been found to be right."""
        rest = super().parse_args(ctx, list(args))
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        ctx.meta[_ORDER] = [parameter.name for parameter in order]
        return rest


def infer(
    context: typer.Context,
    input: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            parser=location,
            help="A sample folder, or a folder of sample folders; sample, where no such folder is: samples bundled "
            "with pics.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", parser=location, help="Folder for the results.  [default: results/NAME of the input]"
        ),
    ] = None,
    obj_thr: Annotated[
        int | None, typer.Option(min=1, metavar="K", help="Objects to take from each sample folder.  [default: all]")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="pics|PATH|REPO",
            show_default=False,
            help="pics: the published full-size model, once it is downloaded; a checkpoint of the research project; a "
            "model folder; or a repository on the Hugging Face hub.  [default: the bundled pics-mini, small, trained "
            "on drawn and rendered scenes]",
        ),
    ] = "pics-mini",
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH[:WEIGHT]",
            help="Adapter of that model, trained with pics train --set train=lora; WEIGHT, from -4 to 4: how strongly "
            "it acts, 1 as it was trained.  [repeatable: they add up]",
        ),
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(
            help="published: the research project's test settings, 50 DDIM steps, guidance 5, the full picture, hard "
            "edges, two objects; options given beside it have precedence."
        ),
    ] = None,
    background: Annotated[
        Path | None,
        typer.Option(metavar="IMG", parser=location, help="One picture without folders: the background."),
    ] = None,
    object: Annotated[
        list[str] | None,
        typer.Option(metavar="IMG", help="A reference to put in; its --box or --mask follows it.  [repeatable]"),
    ] = None,
    box: Annotated[
        list[str] | None, typer.Option(metavar="X,Y,W,H", help="Where it goes, in pixels of the background.")
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(metavar="IMG", help="Where it goes: the box of the mask's set pixels; see --region."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            metavar="MASK",
            parser=location,
            help="Of --background: what stays in front of the objects and their shadows; no pixel under it changes.",
        ),
    ] = None,
    region: Annotated[
        Region, typer.Option(help="What of a mask: the box of all set pixels, or of its largest connected part.")
    ] = "box",
    seed: Annotated[int, typer.Option(min=0, help="Of the noise, together with the sample's name.")] = 0,
    num: Annotated[
        int,
        typer.Option(min=1, help="Candidates of each sample: they differ in noise, or in their lamp (see --light)."),
    ] = 1,
    pick: Annotated[
        bool,
        typer.Option(
            "--pick",
            help="Rank candidates by seam, order, leak, shadow contact, copy-paste, likeness, lamp; best: DIR/best.",
        ),
    ] = False,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Denoising steps.  [default: the model's]")] = None,
    guidance: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=100,
            help="How far to follow the references; 1: no guidance, half the work.  [default: the model's]",
        ),
    ] = None,
    scheduler: Annotated[SchedulerName | None, typer.Option(help="How to denoise.  [default: the model's]")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples at a time.")] = 1,
    crop: Annotated[
        Crop, typer.Option(help="What the network sees: a square around the objects, or the full picture as published.")
    ] = "auto",
    fit: Annotated[
        Fit,
        typer.Option(
            help="An object in a region of another aspect: wholly inside, all over it and cut off, or distorted."
        ),
    ] = "contain",
    cutout: Annotated[Cutout, typer.Option(help="How references without alpha are cut out; see above.")] = "auto",
    feather: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="PX",
            help="Blend at the border of the regions, of the ground alone: pasted objects do not fade.  "
            "[default: the model's room for shadows, or else a latent cell]",
        ),
    ] = None,
    light: Annotated[
        str,
        typer.Option(
            metavar="auto|none|AZ[,EL[,SOFT]]",
            help="Lamp that shadows are cast by, in degrees: 0 from behind the camera, 90 from the right, 180 from "
            "behind the scene; height above the ground; softness. auto: what the model finds in the picture; none: "
            "contact shadows only. Further candidates take other lamps.",
        ),
    ] = "auto",
    shadow_room: Annotated[
        float,
        typer.Option(
            min=0, max=2, metavar="SHARE", help="Regions are wider by this share of their sides, for shadows alone."
        ),
    ] = 0.0,
    mode: Annotated[
        Mode, typer.Option(help="All objects in one pass, or one by one with the same model, back to front.")
    ] = "parallel",
    order: Annotated[
        str | None,
        typer.Option(
            metavar="auto|0,1",
            help="Back to front; auto: the lower box is nearer. When given, overlaps lean to the nearer object.",
        ),
    ] = None,
    match: Annotated[
        Match,
        typer.Option(
            help="Give pasted objects the blur and grain of the background around them, where it clearly has more."
        ),
    ] = "auto",
    memory: Annotated[Memory, typer.Option(help="What lies on the GPU; see above.")] = "auto",
    dtype: Annotated[
        Dtype,
        typer.Option(
            help="auto: on a GPU bf16, else fp16; on a CPU fp32, but bf16 for a full-size model where it can."
        ),
    ] = "auto",
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|cuda:N|mps", help="Where to compute.")] = "auto",
    engine: Annotated[str, typer.Option(metavar="ENGINE", help=ENGINE_HELP)] = "local",
    compile: Annotated[
        bool,
        typer.Option("--compile", help="Compile the networks: minutes for the first picture of a kind, then faster."),
    ] = False,
    output_format: Annotated[
        OutputFormat,
        typer.Option(
            help="webp: without loss; 8 bits. jpeg: quality 95, 8 bits, no alpha; it changes every pixel a little, "
            "outside the regions, too."
        ),
    ] = "png",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make pictures again that are there.")] = False,
    save_grid: Annotated[
        bool, typer.Option("--save-grid", help="Write inputs and results side by side: DIR/grids.")
    ] = False,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Take each picture apart into layers that add up to it: DIR/layers, PNGs and OpenRaster; see pics "
            "merge-layers.",
        ),
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            parser=location,
            help="Draw one sheet of all samples: regions, references, first result.",
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Write regions, gate weights and routing as pictures: DIR/explain.")
    ] = False,
) -> None:
    """Composite objects into pictures: DIR/composed/composed_ID.png and DIR/manifest.jsonl.

    A sample is a folder with image.jpg, object_0.png, object_0_mask.png, object_1.png, … (and keep.png, a mask of what
    stays in front of the objects) or is given as --background IMG --object A.png --box X,Y,W,H --object B.png --mask
    B_mask.png. Outside the regions no pixel changes. Run again to resume; `accelerate launch -m pics_cli infer …`
    shares the samples among several GPUs, --engine among those of several machines.

    A reference has alpha or is cut out: from a plain background of any colour, with the holes in it, softly. Any other
    is a photograph: with --cutout auto Segment Anything cuts it out where its weights lie in checkpoints/ (see pics
    annotate), else GrabCut; grabcut and sam do so with all references without alpha; none leaves them as they are.
    Models that paste nothing (of kind background) see references without alpha as they are unless grabcut or sam is
    asked for.

    --memory resident keeps all parts on the GPU; sequential one part at a time (encoder, then UNet and ControlNet, then
    VAE), the others in main memory; offload brings each layer to the GPU for its own moment; auto takes the fastest
    that fits. Peaks of the full-size model at 512x512 in bf16, computed, not measured: 6.2, 3.2 and 1.2 GB. On a CPU
    sequential and offload both read a part from disk when it is used; for a full-size model auto does so, too.
    """
    require("infer", "pics infer")
    open_engine = engine_opener(engine, device)
    objects = _ordered_options(context, {"object": object, "box": box, "mask": mask})
    from pics_cli.core.inference.plan import InferenceJob
    from pics_cli.core.inference.sample import PRESETS, CompositeOptions, parse_light, parse_order
    from pics_cli.core.model.adapters import parse_adapter
    from pics_cli.core.runtime.outputs import refuse_overwriting

    if pick and num < 2:
        raise PicsError("--pick: there is one candidate of each sample to choose from", "such as --num 8 --pick")
    parsed_order = None if order is None else parse_order(order)
    # What of a preset no option says otherwise.
    presets = {name: value for name, value in PRESETS[preset].items() if _is_default(context, name)} if preset else {}
    preset_objects = presets.pop("obj_thr", None)
    if input is not None and obj_thr is None:
        obj_thr = preset_objects
    samples, name = _samples(input, background, objects, obj_thr, keep)
    folder = output or Path("results") / name
    if input is not None:
        refuse_overwriting([("--output", folder)], [("--input", input)])
    options = CompositeOptions(
        seed=seed,
        steps=steps,
        guidance=guidance,
        scheduler=scheduler,
        crop=crop,
        feather=feather,
        light=parse_light(light),
        shadow_room=shadow_room,
        mode=mode,
        fit=fit,
        match=match,
    )
    job = InferenceJob(
        samples=tuple(samples),
        output=folder,
        model=model,
        adapters=tuple(map(parse_adapter, lora or ())),
        options=replace(options, **presets),
        objects=obj_thr,
        order=parsed_order,
        cutout=cutout,
        region=region,
        num=num,
        batch_size=batch_size,
        device=device,
        dtype=dtype,
        memory=memory,
        compile=compile,
        format=output_format,
        pick=_judge() if pick else None,
        overwrite=overwrite,
        grid=save_grid,
        explain=explain,
        layers=layers,
        sheet=sheet,
    )
    _run(job, open_engine)


def _judge() -> Judge:
    from pics_cli.core.evaluation.candidates import judge

    return judge


def _is_default(context: typer.Context, name: str) -> bool:
    """Whether an option was not given."""
    source = context.get_parameter_source(name)  # of an enumeration of click's, which typer may bring its own copy of
    return source is not None and source.name == "DEFAULT"


def _ordered_options(context: typer.Context, lists: dict[str, list[str] | None]) -> list[tuple[str, str]]:
    """Repeated options in the order of the command line."""
    values = {name: iter(given or []) for name, given in lists.items()}
    return [(name, next(values[name])) for name in context.meta[_ORDER] if name in values]


def _samples(
    root: Path | None,
    background: Path | None,
    objects: Sequence[tuple[str, str]],
    max_objects: int | None,
    keep: Path | None,
) -> tuple[Sequence[Path | SampleFiles], str]:
    """The samples, and the name of their results' folder.

    Args:
        root: --input.
        background: --background.
        objects: option (object, box or mask) and value, in the order of the command line.
        max_objects: --obj-thr.
        keep: --keep.
    """
    from pics_cli.core.inference.inputs import check_files, choose_input, find_folders, single_sample

    if root is not None and (background is not None or objects):
        other = "--background" if background is not None else f"--{objects[0][0]}"
        raise PicsError(
            f"--input and {other} exclude each other",
            "folders: --input PATH; one picture: --background IMG --object A.png --box X,Y,W,H",
        )
    if keep is not None and background is None:
        raise PicsError("--keep goes with --background", "in a sample folder its mask is keep.png")
    if root is not None:
        if root.name in ("", ".."):
            root = root.resolve()
        return find_folders(choose_input(root)), root.name or str(root).rstrip("/").rpartition("/")[2]
    if max_objects is not None and background is not None:
        raise PicsError("--obj-thr goes with --input", "every --object of the command line is taken")
    sample = single_sample(background, objects, keep)
    try:
        check_files(sample)
    except BadSample as bad:
        raise PicsError(bad.detail, f"a path starts at {Path.cwd()}") from None
    return [sample], sample.id


def _run(job: InferenceJob, open_engine: OpenEngine | None) -> None:
    from pics_cli.core.inference.run import infer as run_inference
    from pics_cli.core.inference.worker import InferenceProgress

    progress = InferenceProgress()
    report = run_job(
        lambda ranks: run_inference(job, ranks, progress, open_engine),
        lambda report: show_report(job, report),
        label="infer",
        unit="steps",
        read=lambda: progress,
        device=job.device,
    )
    if report.failures:
        first = report.failures[0]
        why = f"{first.id}: {first.detail} ({first.reason})"
        if report.samples == 1:
            raise PicsError(why, "mend it and run the command again")
        raise PicsError(
            f"{len(report.failures)} of {report.samples} samples failed, the first: {why}",
            "mend them and run the same command again: it makes those only",
        )
