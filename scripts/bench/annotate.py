"""Speed of turning boxes into masks, against segment-anything's own predictor, one picture at a time, in float32.

    python scripts/bench/annotate.py [FIGURE ...] [--rounds R] [--pictures N] [--tiny]

Both sides have the same random weights and take turns. `cpu`: vit_b; `gpu`: vit_h in bf16, needs a CUDA device;
`around`: all work but the model's; `many`: time a picture in a small and in a large dataset; `process`: the command.
docs/benchmarks.md says what each figure means; `--tiny` tries the script itself in seconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from segment_anything import SamPredictor

from common import Row, cpu_time, make_boxes, spread
from on_gpu import MISSING, matrix_rate, name_of, wall
from pics_cli.core.datasets.labels import LabelledImage, write_block
from pics_cli.core.datasets.readers.split_files import SplitFiles
from pics_cli.core.images.image_io import decode_image, encode_jpeg
from pics_cli.core.recipes.sources import SamSettings
from pics_cli.core.segmentation.boxes import AnnotatedBox, CocoBoxSource
from pics_cli.core.segmentation.postprocessing import make_labels, pack_masks
from pics_cli.core.segmentation.preprocessing import ResizedImage, resize_for_sam
from pics_cli.core.segmentation.sam import SHAPES, TINY, SamShape, build_sam, save_sam
from pics_cli.core.segmentation.segmenter import ImageMasks, Segmenter
from processes import command, in_fresh_process

HEIGHT, WIDTH, BOXES = 480, 640, 15
_MANIFEST_CHECK = """
manifest = json.loads((Path(sys.argv[-1]) / "manifest.json").read_text())
assert manifest["pictures"] == 1, manifest
"""


class Run(NamedTuple):
    """The command line's options."""

    rounds: int
    pictures: int | None
    tiny: bool
    work: Path


def picture(number: int) -> bytes:
    """A JPEG of texture and discs, as hard to decode as a photograph of that size."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), np.uint8)
    rgb = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    for _ in range(BOXES):
        centre = (int(rng.integers(0, WIDTH)), int(rng.integers(0, HEIGHT)))
        cv2.circle(rgb, centre, int(rng.integers(20, 90)), rng.integers(0, 256, 3).tolist(), -1)
    noisy = rgb.astype(np.int16) + rng.normal(0, 4, (HEIGHT, WIDTH, 3)).astype(np.int16)
    return encode_jpeg(np.clip(noisy, 0, 255).astype(np.uint8))


def corners(number: int) -> np.ndarray:
    """Boxes of a picture, float64 [15, 4]."""
    rng = np.random.default_rng([number, 1])
    start = rng.random((BOXES, 2)) * (WIDTH - 120, HEIGHT - 120)
    return np.concatenate([start, start + rng.uniform(30, 120, (BOXES, 2))], axis=1)


def plain(sam: Any, data: bytes, boxes: np.ndarray) -> int:
    """A picture by the predictor, box by box, the best of three masks. Returns pixels."""
    predictor = SamPredictor(sam)
    predictor.set_image(decode_image(data).rgb)
    pixels = 0
    for box in boxes:
        masks, scores, _ = predictor.predict(box=box)
        pixels += int(masks[int(np.argmax(scores))].sum())
    return pixels


def batched(segmenter: Segmenter, pictures: list[tuple[bytes, np.ndarray]], side: int) -> int:
    """Pictures by `Segmenter`. Returns pixels."""
    ready = [resize_for_sam(decode_image(data).rgb, boxes, side) for data, boxes in pictures]
    return sum(int(result.masks.sum()) for result in segmenter(ready) if isinstance(result, ImageMasks))


def race(
    run: Run, shape: SamShape, device: torch.device, dtype: torch.dtype, timer: Callable[..., float]
) -> Iterator[Row]:
    """Seconds a picture of both sides, and how far their masks agree."""
    torch.manual_seed(0)
    exact = build_sam(shape).to(device)
    fast = build_sam(shape).to(device)
    fast.load_state_dict(exact.state_dict())
    fast.image_encoder.to(dtype)
    segmenter = Segmenter(fast, batch_images=1 if device.type == "cpu" else 8, batch_boxes=64, multimask=True)
    count = run.pictures or (4 if device.type == "cpu" else 16)
    pictures = [(picture(number), corners(number)) for number in range(count)]
    sides: tuple[Callable[[], Any], ...] = (
        lambda: [plain(exact, *each) for each in pictures],
        lambda: batched(segmenter, pictures, shape.side),
    )
    spent: list[list[float]] = [[], []]
    for turn in range(run.rounds + 1):
        for which in (0, 1) if turn % 2 else (1, 0):
            spent[which].append(timer(sides[which]) / count)
    ratios = [a / b for a, b in list(zip(*spent, strict=True))[1:]]
    least = 1.0 if device.type == "cpu" else 3.0
    yield Row(f"{device.type}, width {shape.width}", spread(ratios), f">= {least:g}x", median(ratios) >= least)
    yield Row(
        "  seconds a picture", f"{median(spent[1][1:]):.3f} against {median(spent[0][1:]):.3f} ({count} pictures)"
    )


def cpu(run: Run) -> Iterator[Row]:
    """vit_b in float32 on both sides, CPU time of all threads."""
    shape = TINY if run.tiny else SHAPES["vit_b"]
    yield from race(run, shape, torch.device("cpu"), torch.float32, lambda work: cpu_time(work)[0])


def gpu(run: Run) -> Iterator[Row]:
    """vit_h, ours in bf16, wall time; and the share of the card's matrix rate."""
    if not torch.cuda.is_available():
        yield Row("gpu", MISSING)
        return
    from torch.utils.flop_counter import FlopCounterMode

    device, shape = torch.device("cuda"), TINY if run.tiny else SHAPES["vit_h"]
    yield from race(run, shape, device, torch.bfloat16, lambda work: wall(work, device))
    encoder = build_sam(shape).image_encoder.to(device, torch.bfloat16)
    batch = torch.zeros(8, 3, shape.side, shape.side, device=device, dtype=torch.bfloat16)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoder(batch)
    with torch.inference_mode():
        seconds = min(wall(lambda: encoder(batch), device) for _ in range(3))
    rate, most = counter.get_total_flops() / 1e12 / seconds, matrix_rate(device, 8192)
    yield Row("  encoder, batch 8", f"{rate:.0f} of {most:.0f} TFLOP/s: {rate / most:.0%}, {name_of(device)}")


def around(run: Run) -> Iterator[Row]:
    """CPU time of decoding, resizing, clean-up, run lengths and writing, one thread, masks given."""
    count = run.pictures or (8 if run.tiny else 64)
    data = [(picture(number), corners(number)) for number in range(count)]
    yy, xx = np.mgrid[:HEIGHT, :WIDTH]
    options, rates = SamSettings(holes=40, islands=40), []
    for _ in range(run.rounds):
        spent = 0.0
        lines = []
        for number, (jpeg, boxes) in enumerate(data):
            taken, ready = cpu_time(lambda jpeg=jpeg, boxes=boxes: resize_for_sam(decode_image(jpeg).rgb, boxes, 1024))
            spent += taken
            masks = _discs(ready, xx, yy)
            given = [AnnotatedBox(k, "c", 1, tuple(box), False) for k, box in enumerate(boxes.tolist())]
            scores = [0.9] * len(given)
            taken, packed = cpu_time(pack_masks, masks)
            spent += taken
            taken, labels = cpu_time(make_labels, packed, scores, scores, given, boxes, options)
            spent += taken
            lines.append(LabelledImage(number, f"{number}.jpg", "", WIDTH, HEIGHT, labels))
        taken, _ = cpu_time(write_block, run.work / "00000.jsonl.gz", lines)
        rates.append(count / (spent + taken))
    low, high = min(rates), max(rates)
    shown = f"{median(rates):.1f} pictures/s ({low:.1f} to {high:.1f}), {BOXES} boxes each"
    yield Row("around the model, one worker", shown, ">= 25", median(rates) >= 25)


def _discs(ready: ResizedImage, xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
    """Ragged masks with holes and islands in the boxes, as a model might give them: bool [n, H, W]."""
    rng = np.random.default_rng(0)
    masks = []
    for x0, y0, x1, y1 in ready.boxes:
        inside = ((xx - (x0 + x1) / 2) / (x1 - x0)) ** 2 + ((yy - (y0 + y1) / 2) / (y1 - y0)) ** 2 < 0.25
        noise = cv2.resize(rng.random((HEIGHT // 4, WIDTH // 4), np.float32), (WIDTH, HEIGHT)) > 0.9
        masks.append(inside ^ (noise & (xx > x0) & (xx < x1) & (yy > y0) & (yy < y1)))
    return np.stack(masks)


def many(run: Run) -> Iterator[Row]:
    """Time to find a picture's boxes and to open an existing index, with 100 pictures and with a million."""
    spent = []
    counts = (100, 2_000) if run.tiny else (100, 1_000_000)
    for count in counts:
        path = make_boxes(run.work / f"{count}.json", count, 15 * min(count, 140_000))
        files = SplitFiles(run.work, path, "train", "", ("{file_name}",))
        CocoBoxSource(files)  # builds the index
        began = time.perf_counter()
        boxes = CocoBoxSource(files)
        opened = time.perf_counter() - began
        rows = np.random.default_rng(0).integers(0, count, 2000).tolist()
        for row in rows[:200]:
            boxes.picture(row)
        seconds = median([cpu_time(_look_up, boxes, rows)[0] for _ in range(run.rounds)]) / len(rows)
        spent.append((seconds, opened))
        path.unlink()
    (few, _), (lots, opened) = spent
    shown = f"{1e6 * few:.0f} and {1e6 * lots:.0f} microseconds a picture, of {counts[0]:,} and {counts[1]:,}"
    yield Row("finding a picture's boxes", shown)
    yield Row("  opening the larger index again", f"{opened:.3f} s", "< 2 s", opened < 2)


def process(run: Run) -> Iterator[Row]:
    """The whole command on one picture of a json of 2 million boxes, with a tiny model: what start-up costs a rank."""
    images, boxes = (2_000, 30_000) if run.tiny else (137_000, 2_000_000)
    raw = run.work / "raw"
    place = make_boxes(raw / "zhiyuan_objv2_train.json", images, boxes)
    torch.manual_seed(0)
    save_sam(build_sam(TINY), TINY, run.work / "sam")
    listed = CocoBoxSource(SplitFiles(raw, place, "train", "", ("{file_name}",))).picture(0)
    assert listed.size is not None
    file = raw / "images/train" / Path(listed.file_name).parent.name / Path(listed.file_name).name
    file.parent.mkdir(parents=True)
    rgb = cv2.resize(decode_image(picture(0)).rgb, listed.size).astype(np.uint8)
    file.write_bytes(encode_jpeg(rgb))
    words = ["objects365", "--raw", str(raw), "--sam", str(run.work / "sam"), "--device", "cpu", "--range", "0:1"]
    words += ["--workers", "1", "--set", "source.sam.block=1", "--out"]
    spent = []
    for turn in range(run.rounds + 1):
        if turn == 0:
            shutil.rmtree(os.environ["PICS_CACHE"], ignore_errors=True)
        spent.append(command(["annotate", *words, str(run.work / f"out{turn}")], raw, _MANIFEST_CHECK))
    bare = in_fresh_process("", "import torch, segment_anything", raw)
    cold, warm = spent[0], spent[1:]
    again, peak = median(one["wall"] for one in warm), max(one["peak"] for one in spent)
    yield Row(f"one picture of {boxes:,} boxes, first", f"{cold['wall']:.1f} s, the index built")
    shown = f"{again:.1f} s, {bare['wall']:.1f} s of which are importing torch"
    yield Row("  again", shown, "< 2 s more", again - bare["wall"] < 2)
    yield Row("  peak memory, tiny model", f"{peak:.0f} MB, torch alone {bare['peak']:.0f} MB", "< 1.5 GB", peak < 1500)


def _look_up(boxes: CocoBoxSource, rows: list[int]) -> None:
    for row in rows:
        boxes.picture(row)


FIGURES = {figure.__name__: figure for figure in (cpu, gpu, around, many, process)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; all when none is named")
    parser.add_argument("--rounds", type=int, default=3, metavar="R", help="of a figure, after one that does not count")
    parser.add_argument("--pictures", type=int, metavar="N", help="default: 4 on a CPU, 16 on a GPU, 64 around")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and little data")
    options = parser.parse_args()
    if unknown := set(options.figures) - FIGURES.keys():
        parser.error(f"unknown figure {', '.join(sorted(unknown))}; known: {', '.join(FIGURES)}")
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as work:
        os.environ["PICS_CACHE"] = str(Path(work) / "cache")
        run = Run(options.rounds, options.pictures, options.tiny, Path(work))
        print(f"{'figure':<40} {'result':<64} {'goal':<10} met")
        for name in options.figures or FIGURES:
            for row in FIGURES[name](run):
                met = {None: "", True: "yes", False: "no"}[row.met]
                print(f"{row.figure:<40} {row.result:<64} {row.goal:<10} {met}", flush=True)


if __name__ == "__main__":
    main()
