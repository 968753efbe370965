"""The Python API against `pics infer`, and every argument of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pics_cli
from helpers.composites import BOXES, SIZE, composed, make_sample, mask_of, outside, run, scene, thing
from helpers.trainees import LAYERS, small
from pics_cli import PicsPipeline
from pics_cli.core.inference.layer_files import merge_files
from pics_cli.core.inference.layers import merge
from pics_cli.core.inference.record import model_fingerprint, read_record
from pics_cli.errors import PicsError

BOX3 = (*BOXES, (4, 60, 40, 92))
OBJECTS = [thing(k) for k in range(3)]


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> PicsPipeline:
    torch.set_num_threads(1)
    return PicsPipeline.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("samples")
    make_sample(root / "three", BOX3)
    make_sample(root / "wide", [(600, 20, 680, 90), (640, 40, 700, 100)], (1000, 140), alpha=False)
    return root


@pytest.mark.parametrize("hint", ["background", "layers"])
@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_as_infer_makes_it(samples: Path, tiny_model: Path, tmp_path: Path, hint: str, mode: str) -> None:
    """To the bit, of paths, PIL images and arrays, with masks and with boxes, at any size."""
    model = tiny_model
    if hint == "layers":
        model = tmp_path / "model"
        small(**{**LAYERS, "steps": 1, "guidance": 1.0, "scheduler": "ddim"}).save_pretrained(model)
    run(samples, tmp_path / "out", model, mode=mode, num=2, seed=3, feather=2, dtype="fp32")
    theirs = composed(tmp_path / "out")
    pipe = PicsPipeline.from_pretrained(str(model))
    for name, boxes in (("three", BOX3), ("wide", [(600, 20, 680, 90), (640, 40, 700, 100)])):
        folder = samples / name
        objects = [folder / f"object_{k}.png" for k in range(len(boxes))]
        masks = [folder / f"object_{k}_mask.png" for k in range(len(boxes))]
        options: dict[str, Any] = {"steps": 1, "mode": mode, "num_images": 2, "seed": 3, "feather": 2}
        from_paths = pipe(folder / "image.png", objects, masks=masks, name=name, output_type="np", **options)
        opened = [Image.open(path) for path in objects]
        from_images = pipe(Image.open(folder / "image.png"), opened, boxes, name=name, **options)
        for n, file in enumerate((f"composed_{name}.png", f"composed_{name}_1.png")):
            np.testing.assert_array_equal(from_paths.images[n], theirs[file])
            np.testing.assert_array_equal(np.asarray(from_images.images[n]), theirs[file])
        arrays = [np.asarray(image) for image in opened]
        sets = [np.asarray(Image.open(path)) for path in masks]
        from_arrays = pipe(np.asarray(Image.open(folder / "image.png")), arrays, masks=sets, name=name, **options)
        np.testing.assert_array_equal(np.stack([np.asarray(image) for image in from_arrays.images]), from_paths.images)


def test_what_a_call_returns(pipe: PicsPipeline) -> None:
    """Pictures of the input's size that changed in the boxes alone, and how they were made."""
    result = pipe(scene(), OBJECTS[:2], BOXES, steps=1, num_images=4, order=[1, 0], name="a")
    assert [image.size for image in result.images] == [SIZE] * 4
    pictures = [np.asarray(image) for image in result.images]
    assert len({picture.tobytes() for picture in pictures}) == 4
    for picture in pictures:
        changed = (picture != np.asarray(scene())).any(2)
        assert not changed[outside(BOXES)].any()
        assert changed.any()
    assert result.changed_outside == 0
    assert result.metadata == {
        "name": "a", "seed": 0, "size": list(SIZE), "boxes": [list(box) for box in BOXES], "window": [0, 0, *SIZE],
        "feather": 8, "order": [1, 0], "unguided": [], "cutouts": ["alpha", "alpha"], "shares": [], "light": None,
        "settings": {
            "steps": 1, "guidance": 5.0, "scheduler": "dpm++", "crop": "auto", "feather": None, "mode": "parallel",
            "light": "auto", "shadow_room": 0.0, "fit": "contain", "match": "auto",
            "cutout": "none", "order": [1, 0], "dtype": "fp32",
        },
    }  # fmt: skip
    auto = pipe(scene(), OBJECTS[:2], BOXES, steps=1, order="auto", scheduler="ddim", guidance=1.0, crop="full")
    assert auto.metadata["settings"]["order"] == "auto"
    assert auto.metadata["settings"]["scheduler"] == "ddim"


def test_what_is_kept(pipe: PicsPipeline, tiny_model: Path, tmp_path: Path) -> None:
    """Of every kind of argument; it is told, counted, and as `pics infer` makes it of a sample folder."""
    folder = make_sample(tmp_path / "in/a")
    keep = mask_of((40, 20, 60, 80), mode="L")
    keep.save(folder / "keep.png")
    report = run(tmp_path / "in", tmp_path / "out", tiny_model, dtype="fp32")
    assert (report.written, report.changed, report.notes) == (1, 0, [])
    (theirs,) = composed(tmp_path / "out").values()
    for value in (keep, np.asarray(keep) > 0, folder / "keep.png"):
        result = pipe(scene(), OBJECTS[:2], BOXES, keep=value, steps=1, name="a", output_type="np")
        np.testing.assert_array_equal(result.images[0], theirs)
        assert (result.metadata["kept"], result.changed_outside) == (20 * 60, 0)
    changed = (theirs != np.asarray(scene())).any(2)
    assert changed[30:60, 30:39].all()
    assert not changed[20:80, 40:60].any()
    for value, text in (
        (mask_of(BOXES[0], (60, 60)), "keep is 60x60, its background 120x96"),
        (Image.new("L", SIZE), "keep: no pixel is set"),
        (Image.new("L", SIZE, 255), "keep: keeps the whole picture, so that nothing can be put in"),
        (tmp_path / "in/a/nothing.png", "keep: cannot read"),
    ):
        with pytest.raises(ValueError, match=text):
            pipe(scene(), OBJECTS[:2], BOXES, keep=value, steps=1)


def test_layers(pipe: PicsPipeline, tmp_path: Path) -> None:
    result = pipe(scene(), OBJECTS[:2], BOXES, steps=1, num_images=2, layers=True)
    for number, layers in enumerate(result.layers):
        np.testing.assert_array_equal(merge(layers), np.asarray(result.images[number]))
        result.save_layers(tmp_path / f"{number}", number)
        assert merge_files(tmp_path / f"{number}").unchanged
    without = pipe(scene(), OBJECTS[:2], BOXES, steps=1)
    # One picture or two in a batch: sums may be rounded otherwise.
    apart = np.asarray(without.images[0]).astype(int) - np.asarray(result.images[0])
    assert np.abs(apart).max() <= 1
    with pytest.raises(ValueError, match="layers=True"):
        without.save_layers(tmp_path)
    sample = make_sample(tmp_path / "in/s")
    before = {path: path.read_bytes() for path in sample.iterdir()}
    with pytest.raises(PicsError, match=r"object_0\.png: is there already, and .* holds no layers"):
        result.save_layers(sample)
    assert {path: path.read_bytes() for path in sample.iterdir()} == before


def test_noise(pipe: PicsPipeline, tmp_path: Path) -> None:
    """Of seed and name, the latter that of the file; or of a generator."""
    scene().save(tmp_path / "bg.png")

    def picture(image: Any = None, **options: Any) -> bytes:
        return pipe(image or scene(), OBJECTS[:1], BOXES[:1], steps=1, **options).images[0].tobytes()

    assert picture() == picture(seed=0, name="")
    assert picture(tmp_path / "bg.png") == picture(name="bg") != picture()
    assert picture(seed=1) != picture()
    drawn = [picture(generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert drawn[0] == drawn[1] != drawn[2]
    state = torch.Generator().manual_seed(5)
    assert picture(generator=state) != picture(generator=state)
    result = pipe(scene(), OBJECTS[:1], BOXES[:1], steps=1, generator=state, mode="sequential")
    assert result.metadata["seed"] is None


def test_a_callback_is_called_after_each_step(pipe: PicsPipeline) -> None:
    calls = list[tuple[int, float, tuple[int, ...]]]()

    def callback(own: PicsPipeline, step: int, timestep: float, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
        assert own is pipe
        calls.append((step, timestep, tuple(callback_kwargs["latents"].shape)))
        return callback_kwargs

    pipe(scene(), OBJECTS[:2], BOXES, steps=3, num_images=2, callback_on_step_end=callback)
    assert [step for step, _, _ in calls] == [0, 1, 2]
    assert calls[0][1] > calls[1][1] > calls[2][1]
    assert calls[0][2] == (2, 4, 16, 16)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipe(scene(), OBJECTS[:2], BOXES, steps=3, callback_on_step_end=stop)


def test_devices_and_precision(tiny_model: Path) -> None:
    """Where parts lie changes no picture; a pipeline whose parts are offloaded is not moved."""
    arguments = (scene(), OBJECTS[:2], BOXES)
    pipe = PicsPipeline.from_pretrained(tiny_model)
    assert (pipe.device, pipe.dtype) == (torch.device("cpu"), torch.float32)
    first = pipe(*arguments, steps=1).images[0].tobytes()
    assert pipe.to("cpu") is pipe
    assert pipe(*arguments, steps=1).images[0].tobytes() == first
    pipe.enable_model_cpu_offload("cpu")
    assert pipe(*arguments, steps=1).images[0].tobytes() == first
    with pytest.raises(ValueError, match="offloaded already"):
        pipe.enable_sequential_cpu_offload("cpu")
    with pytest.raises(ValueError, match="offloaded to the CPU: load it anew"):
        pipe.to("cpu")
    half = PicsPipeline.from_pretrained(tiny_model, torch_dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.to(torch.float32).dtype == torch.float32
    assert half.to("cpu", torch.bfloat16)(*arguments, steps=1).metadata["settings"]["dtype"] == "bf16"


@pytest.mark.gpu
def test_on_a_gpu(tiny_model: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    arguments = (scene(), OBJECTS[:2], BOXES)
    resident = PicsPipeline.from_pretrained(tiny_model).to("cuda")
    assert resident.device.type == "cuda"
    first = np.asarray(resident(*arguments, steps=2).images[0]).astype(int)
    for name in ("enable_model_cpu_offload", "enable_sequential_cpu_offload"):
        pipe = PicsPipeline.from_pretrained(tiny_model)
        getattr(pipe, name)()
        assert np.abs(np.asarray(pipe(*arguments, steps=2).images[0]).astype(int) - first).max() <= 1
    generator = torch.Generator("cuda").manual_seed(0)
    assert resident(*arguments, steps=1, generator=generator).changed_outside == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": BOXES[:1]}, "1 boxes, but 2 objects"),
        ({"boxes": None}, "expected either boxes or masks"),
        ({"masks": [mask_of(box) for box in BOXES]}, "expected either boxes or masks, got both"),
        ({"boxes": None, "masks": [mask_of(BOXES[0])]}, "1 masks, but 2 objects"),
        ({"boxes": [BOXES[0], (0, 0, 121, 5)]}, r"box 1 \(0, 0, 121, 5\) reaches outside the picture, which is 120x96"),
        ({"boxes": [BOXES[0], (9, 9, 9, 20)]}, r"box 1 \(9, 9, 9, 20\) is empty: expected x0 < x1 and y0 < y1"),
        ({"boxes": BOXES[0]}, r"boxes: got \(.*\), expected a list of boxes, such as \[\(x0, y0, x1, y1\)\]"),
        ({"objects": "cup.png"}, r"objects: got one picture, expected a list of pictures, such as \['cup.png'\]"),
        ({"boxes": None, "masks": mask_of(BOXES[0])}, "masks: got one picture, expected a list of pictures"),
        ({"boxes": [BOXES[0], (1, 2, 3)]}, r"boxes\[1\]: got \(1, 2, 3\), expected four whole numbers"),
        ({"boxes": [BOXES[0], (1.5, 2, 30, 40)]}, "expected four whole numbers x0, y0, x1, y1"),
        ({"objects": [], "boxes": []}, "no boxes: at least one object is needed"),
        ({"boxes": None, "masks": [mask_of(BOXES[0]), mask_of(BOXES[1], (50, 40))]}, r"masks\[1\] is 50x40, its back"),
        ({"boxes": None, "masks": [mask_of(BOXES[0]), np.zeros((96, 120), bool)]}, r"masks\[1\]: no pixel is set"),
        ({"boxes": None, "masks": [mask_of(BOXES[0]), np.zeros((96, 120))]}, r"masks\[1\]: got float64 \(96, 120\)"),
        ({"order": (0, 2)}, r"order: got \(0, 2\), expected 'auto' or each of 2 objects once, counted from 0"),
        ({"order": "front"}, "order: got 'front', expected 'auto' or each"),
        ({"image": np.zeros((9, 9, 3))}, r"image: got float64 \(9, 9, 3\), expected uint8"),
        ({"image": 3}, "image: got int, expected a PIL image, a NumPy array or a path"),
        ({"image": "nowhere.png"}, "image: cannot read nowhere.png: no such file or directory"),
        ({"objects": [OBJECTS[0], "nowhere.png"]}, r"objects\[1\]: cannot read nowhere.png"),
        ({"objects": [OBJECTS[0], Image.new("RGBA", (5, 5))]}, r"objects\[1\]: every pixel is transparent"),
        ({"output_type": "pt"}, "output_type: got 'pt', expected 'pil' or 'np'"),
        ({"num_images": 0}, "num_images: got 0, expected at least 1"),
        ({"seed": 1, "generator": torch.Generator()}, "seed and generator exclude each other"),
    ],
)
def test_arguments_that_do_not_fit(pipe: PicsPipeline, change: dict[str, Any], message: str) -> None:
    arguments = {"image": scene(), "objects": OBJECTS[:2], "boxes": BOXES, "steps": 1, **change}
    with pytest.raises(ValueError, match=message):
        pipe(**arguments)


def test_unknown_options(pipe: PicsPipeline, tmp_path: Path) -> None:
    for name in ("scheduler", "mode", "crop", "match"):
        options: dict[str, Any] = {name: "nothing"}
        with pytest.raises(PicsError, match=f"{name}: got nothing, expected one of"):
            pipe(scene(), OBJECTS[:2], BOXES, **options)
    with pytest.raises(PicsError, match="not a model folder of pics"):
        PicsPipeline.from_pretrained(tmp_path)
    with pytest.raises(PicsError, match="model nowhere: no such folder"):
        PicsPipeline.from_pretrained("nowhere")


def test_the_package_stays_light() -> None:
    code = "import sys, pics_cli; print('torch' in sys.modules or 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert pics_cli.PicsPipeline is PicsPipeline
    assert "PicsPipeline" in pics_cli.__all__


def test_results_are_saved_as_infer_writes_them(pipe: PicsPipeline, tiny_model: Path, tmp_path: Path) -> None:
    background = scene().convert("RGBA")
    background.putalpha(200)
    result = pipe(background, OBJECTS[:2], BOXES, steps=1, num_images=2, seed=3, name="a")
    result.save(tmp_path / "a.png", 1)
    result.save(str(tmp_path / "a.webp"), 1)
    record = read_record(tmp_path / "a.png")
    assert record is not None
    assert (record["id"], record["candidate"], record["seed"]) == ("a", 1, 3)
    assert record["model"] == {"name": str(tiny_model), "fingerprint": model_fingerprint(tiny_model)}
    for name in ("a.png", "a.webp"):
        assert np.array_equal(np.asarray(Image.open(tmp_path / name)), np.asarray(result.images[1]))
    with pytest.raises(ValueError, match=r"a.jpg: its background has alpha, which JPEG cannot hold"):
        result.save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a.bmp: expected a name that ends in .png, .jpg, .webp"):
        result.save(tmp_path / "a.bmp")
