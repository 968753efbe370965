"""Raw data of clothes and streets: VITON-HD, Cityscapes, Mapillary Vistas, BDD100K. Used through demo_data.py."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from demo_drawing import blob, outlines, paint, photo

VITON_SIZE, BDD_SIZE = (1024, 768), (720, 1280)
# so that files get about as large as in the published shards
VITON_NOISE, CITY_NOISE, VISTAS_NOISE, BDD_NOISE = 7.0, 1.5, 1.5, 5.0
# class in the parse map, centre and radii; later ones in front: upper and lower body, face, arms, hair
CLOTHES = (
    (5, (384, 560), (210, 260)),
    (9, (384, 900), (190, 200)),
    (13, (384, 220), (80, 100)),
    (14, (200, 600), (60, 220)),
    (15, (570, 600), (60, 220)),
    (2, (384, 130), (90, 70)),
)
CITIES = ("aachen", "bochum", "bremen")
CITY_VEHICLES = ("car", "car", "car", "truck", "bus", "cargroup")
CITY_OTHERS = (
    "road", "sidewalk", "building", "vegetation", "sky", "person", "persongroup", "pole", "traffic sign",
    "license plate", "bicycle", "out of roi", "ego vehicle",
)  # fmt: skip
VISTAS_ROAD, VISTAS_SMALL, VISTAS_VEHICLES = 21, 100, (108, 108, 108, 107, 114, 109)
VISTAS_NAMES = dict(
    enumerate(
        (
            "bicycle", "boat", "bus", "car", "caravan", "motorcycle", "on-rails", "other-vehicle", "trailer", "truck",
            "vehicle-group", "wheeled-slow",
        ),
        start=105,
    )
)  # fmt: skip
BDD_OBJECTS = ("car", "car", "car", "truck", "bus", "pedestrian")


def make_viton(out: Path, count: int, seed: int = 0) -> Path:
    """VitonHD/ with one person a picture and its parse map, a palette PNG of class ids."""
    root = out / "VitonHD"
    images, maps = folders(root, "train/image", "train/image-parse-v3")
    palette = np.random.default_rng([seed, 6]).integers(0, 256, (256, 3), np.uint8)
    palette[0] = 0
    height, width = VITON_SIZE
    for i in range(count):
        rng = np.random.default_rng([seed, 6, i])
        parts = [np.clip(blob(rng, *at, *radii), 0, [width - 1, height - 1]) for _, at, radii in CLOTHES]
        parse = np.zeros((height, width), np.uint8)
        for (label, _, _), part in zip(CLOTHES, parts, strict=True):
            fill(parse, part, label)
        studio = np.full((height, width, 3), 235, np.uint8)
        save_jpeg(images / f"{i:05d}_00.jpg", paint(rng, studio, parts, noise=VITON_NOISE), 92)
        saved = Image.fromarray(parse)
        saved.putpalette(palette.tobytes())
        saved.save(maps / f"{i:05d}_00.png")
    return root


def make_cityscapes(
    out: Path,
    count: int,
    seed: int = 0,
    layout: Literal["official", "flat"] = "official",
    size: tuple[int, int] = (1024, 2048),
) -> Path:
    """Cityscapes/ of one folder per city (official) or as the research code wants it (flat, one city).

    Vehicles come last in each polygon file, so they hide what they overlap; one in six is a group.
    """
    root = out / "Cityscapes"
    official = layout == "official"
    names = ("leftImg8bit/train", "gtFine/train") if official else ("train/images", "train/jsons")
    for i in range(count):
        rng = np.random.default_rng([seed, 3, i])
        city = CITIES[i % len(CITIES)] if official else CITIES[0]
        images, polygons = folders(root, *(f"{name}/{city}" if official else name for name in names))
        vehicles = outlines(rng, *size, int(rng.integers(4, 14)), big=0.3, contained=0.1)
        pixels = paint(rng, photo(rng, *size, noise=CITY_NOISE), vehicles, noise=CITY_NOISE)
        behind = outlines(rng, *size, 40, big=0.3)
        objects = [_polygon(rng.choice(CITY_OTHERS), shape) for shape in behind]
        objects += [_polygon(rng.choice(CITY_VEHICLES), shape) for shape in vehicles]
        stem = f"{city}_{i:06d}_000019"
        cv2.imwrite(str(images / f"{stem}_leftImg8bit.png"), pixels)
        data = {"imgHeight": size[0], "imgWidth": size[1], "objects": objects}
        (polygons / f"{stem}_gtFine_polygons.json").write_text(json.dumps(data))
    return root


def _polygon(label: str, shape: np.ndarray) -> dict[str, Any]:
    return {"label": str(label), "polygon": np.round(shape).astype(int).tolist()}


def make_vistas(out: Path, count: int, seed: int = 0, size: tuple[int, int] = (3000, 4000)) -> Path:
    """MVD/ with the v2.0 label list and 16-bit maps of label * 256 + instance.

    Vehicles of each class count from instance 0; many small objects of another class raise the highest number.
    """
    root = out / "MVD"
    images, maps = folders(root, "training/images", "training/v2.0/instances")
    names = [f"object--vehicle--{VISTAS_NAMES[k]}" if k in VISTAS_NAMES else f"object--{k}" for k in range(124)]
    labels = [
        {"name": name, "readable": name.split("--")[-1], "instances": k >= 60, "evaluate": True, "color": [k, k, k]}
        for k, name in enumerate(names)
    ]
    (root / "config_v2.0.json").write_text(json.dumps({"version": "2.0", "labels": labels}))
    for i in range(count):
        rng = np.random.default_rng([seed, 4, i])
        vehicles = outlines(rng, *size, int(rng.integers(10, 26)), big=0.25, contained=0.1)
        small = outlines(rng, *size, int(rng.integers(5, 40)), big=0.05, contained=0)
        values = np.zeros(size, np.uint16)
        values[size[0] // 2 :] = VISTAS_ROAD * 256
        for k, shape in enumerate(small):
            fill(values, shape, VISTAS_SMALL * 256 + k)
        seen = Counter[int]()
        for shape in vehicles:
            label = int(rng.choice(VISTAS_VEHICLES))
            fill(values, shape, label * 256 + seen[label])
            seen[label] += 1
        pixels = paint(rng, photo(rng, *size, noise=VISTAS_NOISE), vehicles, noise=VISTAS_NOISE)
        save_jpeg(images / f"mvd{i:019d}.jpg", pixels, 85)
        cv2.imwrite(str(maps / f"mvd{i:019d}.png"), values)
    return root


def make_bdd(out: Path, count: int, seed: int = 0) -> Path:
    """bdd100k/ with the 10k pictures and instance masks as run lengths of what is visible of each object."""
    root = out / "bdd100k"
    images, labels = folders(root, "images/10k/train", "labels/ins_seg/rles")
    height, width = BDD_SIZE
    frames = []
    for i in range(count):
        rng = np.random.default_rng([seed, 5, i])
        shapes = outlines(rng, height, width, int(rng.integers(6, 16)), big=0.3, contained=0.1)
        name = f"{i:08x}-{i:08x}.jpg"
        save_jpeg(images / name, paint(rng, photo(rng, height, width, noise=BDD_NOISE), shapes, noise=BDD_NOISE), 80)
        hidden = np.zeros((height, width), np.uint8)
        labelled: list[dict[str, Any]] = []
        for shape in reversed(shapes):  # the one in front first
            mask = fill(np.zeros_like(hidden), shape, 1) & (1 - hidden)
            hidden |= mask
            if mask.any():
                labelled.append(
                    {"id": f"{i}-{len(labelled)}", "category": str(rng.choice(BDD_OBJECTS))} | _run_lengths(mask)
                )
        frames.append({"name": name, "labels": labelled})
    (labels / "ins_seg_train.json").write_text(json.dumps({"frames": frames, "config": None}))
    return root


def _run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """The part of a label that says where: `x2` and `y2` of its box are the last pixel, not the one after."""
    rle = coco_mask.encode(np.asfortranarray(mask))
    x, y, width, height = (float(v) for v in coco_mask.toBbox(rle))
    flags = dict.fromkeys(("occluded", "truncated", "crowd", "ignored"), False)
    box = {"x1": x, "y1": y, "x2": x + width - 1, "y2": y + height - 1}
    return {"attributes": flags, "box2d": box, "rle": {"counts": rle["counts"].decode(), "size": list(mask.shape)}}


def folders(root: Path, *names: str) -> list[Path]:
    """Folders below `root`, made where they do not exist."""
    paths = [root / name for name in names]
    for folder in paths:
        folder.mkdir(parents=True, exist_ok=True)
    return paths


def fill(canvas: np.ndarray, shape: np.ndarray, value: int) -> np.ndarray:
    """Draw an outline's inside onto the canvas, in place."""
    cv2.fillPoly(canvas, [np.round(shape).astype(np.int32)], value)
    return canvas


def save_jpeg(path: Path, image: np.ndarray, quality: int) -> None:
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
