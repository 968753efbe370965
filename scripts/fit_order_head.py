"""Give a model its order head: who of two overlapping objects is before the other, learnt from boxes in shards.

    python scripts/fit_order_head.py models/pics-mini data/train/Synth data/train/Rendered=3 \\
        --val data/val/Synth --output models/pics-mini-ordered

Reads the boxes of whole objects, their order and relation from samples that state them, as those of `synth` and
`rendered` do; `=N` repeats a set N times. A few minutes on a CPU, most of them reading. Writes a model folder with the
head in its ControlNet, whose other weights stay as they are; `pics train` leaves the head alone. The same shards and
seed give the same weights. Prints the share of pairs with the right order, by relation.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pics_cli.core.images.masks import Mask
from pics_cli.core.model.devices import DTYPES
from pics_cli.core.model.model_card import TRAINING_FILE
from pics_cli.core.model.model_folder import atomic_folder
from pics_cli.core.model.order_head import OrderHead, order_log_odds, order_loss
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.runtime.files import load_json, read_file
from pics_cli.core.shards.samples import Sample, depth_order, open_shards
from pics_cli.errors import PicsError
from run_script import run_script

_BATCH, _RATE, _DECAY = 128, 4e-3, 0.05
# By which share of their sides boxes are moved and scaled in training: users' regions are not tight.
_JITTER = 0.02
_NO_ORDER = "no sample of two overlapping objects states its order"


class Pairs(NamedTuple):
    """Overlapping objects: boxes float32 [P, 2, 4], kinds int64 [P] as those of `order_loss`, and their relations."""

    boxes: Tensor
    kinds: Tensor
    relations: list[str]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", help="model folder, hint: layers")
    parser.add_argument("shards", nargs="+", type=_repeated, metavar="SHARDS[=N]")
    parser.add_argument("--val", nargs="*", default=[], metavar="SHARDS", help="measured on these as well")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new model folder")
    parser.add_argument("--dtype", choices=DTYPES, default="bf16", help="of the folder's weights (default bf16)")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _repeated(text: str) -> tuple[str, int]:
    """A folder of shards, and how often it is taken."""
    folder, _, times = text.partition("=")
    if times and not (times.isascii() and times.isdigit() and int(times)):
        raise argparse.ArgumentTypeError(f"{text}: expected a folder, or FOLDER=N with N from 1")
    return folder, int(times or 1)


def read_pairs(folder: str) -> Pairs:
    """The pairs of a folder of shards whose whole objects overlap."""
    boxes, kinds, relations = [], [], []
    for sample in open_shards(folder):
        for pair, kind, relation in _sample_pairs(sample):
            boxes.append(pair)
            kinds.append(kind)
            relations.append(relation)
    if not kinds:
        raise PicsError(f"{folder}: {_NO_ORDER}", "take shards that `pics build-shards synth` or `rendered` made")
    return Pairs(torch.tensor(boxes, dtype=torch.float32), torch.tensor(kinds), relations)


def _sample_pairs(sample: Sample) -> Iterator[tuple[list[tuple[int, int, int, int]], int, str]]:
    metadata = sample.metadata or {}
    order = depth_order(metadata, len(sample.masks))
    if order is None:
        return
    whole = [visible if full is None else full for visible, full in zip(sample.masks, sample.amodal_masks, strict=True)]
    for pair in metadata.get("pairs") or ():
        i, j = pair["objects"]
        if (whole[i] & whole[j]).any():
            kind = 2 if pair["relation"] == "containing" else int(order.index(i) > order.index(j))
            yield [_box(whole[i]), _box(whole[j])], kind, pair["relation"]


def _box(mask: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def fit(head: OrderHead, pairs: Pairs, epochs: int, seed: int) -> None:
    """Train the head, in place."""
    generator = torch.Generator().manual_seed(seed)
    count = len(pairs.kinds)
    steps = epochs * -(-count // _BATCH)
    optimizer = torch.optim.AdamW(head.parameters(), _RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(count, generator=generator).split(_BATCH):
            boxes = pairs.boxes[rows]
            sides = boxes[..., 2:] - boxes[..., :2]
            noise = 1 + _JITTER * torch.randn(boxes.shape, generator=generator)
            moved = boxes[..., :2] + sides * (noise[..., :2] - 1)
            boxes = torch.cat([moved, moved + sides * noise[..., 2:].clamp(min=0.5)], -1)
            first, second = torch.zeros_like(rows), torch.ones_like(rows)
            loss = order_loss(head(boxes), first, second, pairs.kinds[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def measure(head: OrderHead, pairs: Pairs) -> str:
    """A line on how often it is right: the order of what is not inside another, and what is."""
    logits = head(pairs.boxes)
    right = (order_log_odds(logits)[:, 0, 1] > 0) == (pairs.kinds == 0)
    inside = pairs.kinds == 2
    right[inside] = logits[inside, 0, 1].argmax(-1) == 2
    shares = []
    for relation in sorted(set(pairs.relations)):
        rows = torch.tensor([found == relation for found in pairs.relations])
        shares.append(f"{relation} {right[rows].float().mean():.3f} of {int(rows.sum()):,}")
    return f"order {right[~inside].float().mean():.3f}; {', '.join(shares)}"


def main() -> None:
    options = arguments()
    model = PicsModel.from_pretrained(options.model, flag="MODEL")
    if model.config.hint != "layers":
        raise PicsError(f"{options.model}: hint {model.config.hint}", "take a model that blends layers (hint: layers)")
    read = [(read_pairs(folder), times) for folder, times in options.shards]
    pairs = Pairs(
        torch.cat([part.boxes for part, times in read for _ in range(times)]),
        torch.cat([part.kinds for part, times in read for _ in range(times)]),
        [relation for part, times in read for _ in range(times) for relation in part.relations],
    )
    torch.manual_seed(options.seed)
    head = OrderHead()
    fit(head, pairs, options.epochs, options.seed)
    for (folder, _), (part, _) in zip(options.shards, read, strict=True):
        print(f"{folder}: {measure(head, part)}")
    for folder in options.val:
        print(f"{folder}: {measure(head, read_pairs(folder))}")
    model.controlnet.order_head = head
    model.controlnet.config["estimates_order"] = True
    for module in model.parts.values():
        nn.Module.to(module, DTYPES[options.dtype])  # diffusers' own warns of nothing
    record = Path(options.model) / TRAINING_FILE
    with atomic_folder(options.output) as folder:
        model.save_pretrained(folder, training=load_json(read_file(record)) if record.is_file() else None)
    print(f"model: {options.output}")


if __name__ == "__main__":
    run_script(main)
