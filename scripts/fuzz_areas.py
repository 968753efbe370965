"""What `fuzz.py` tries: in each area something whole is made once, then damaged again and again, and read by pics.

An input ends well in one of three ways: refused with a line of text, the same result as without the damage, or another
result where nothing could tell (another number in a json). Where checksums or redundancy could tell, another result is
silent: a failure.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import click
import numpy as np
from PIL import Image, ImageDraw

from fuzz_mutations import Random, damage_bytes, damage_json, damage_yaml
from pics_cli.errors import BadSample, PicsError

Ending = Literal["refused", "same", "other", "silent"]
SIZE = WIDTH, HEIGHT = 96, 64
_FAULT = "this is a fault of pics"


class Tried(NamedTuple):
    """How an input ended, and what it was."""

    ending: Ending
    what: str


class Fault(Exception):
    """The command called an input a fault of its own."""


def pics(*words: object) -> tuple[int, str]:
    """Exit code and texts of the command in this process.

    Raises:
        Fault: it met an exception that it does not know.
    """
    from pics_cli.cli import app

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = app([str(word) for word in words], standalone_mode=False)
        except SystemExit as end:
            code = end.code
        except (click.ClickException, click.Abort):
            code = 2
    text = out.getvalue()
    if _FAULT in text:
        raise Fault(text.strip())
    return int(code or 0), text


def picture(seed: int, mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """A picture with structure everywhere, so that no change can hide."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 12, len(mode)), np.uint8)
    bands = [Image.fromarray(noise[..., k]).resize(size, Image.Resampling.BICUBIC) for k in range(len(mode))]
    return Image.merge(mode, bands) if len(mode) > 1 else bands[0]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def mask(seed: int) -> Image.Image:
    """Two discs that overlap a frame's middle."""
    image = Image.new("L", SIZE)
    x = 20 + 6 * (seed % 5)
    ImageDraw.Draw(image).ellipse((x, 10, x + 40, 52), fill=255)
    return image


class Area(ABC):
    """Something whole in a folder, and one way to damage it.

    Attributes:
        planned: inputs among 20,000.
    """

    planned: int
    title: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def attempt(self, rng: Random) -> Tried:
        """Damage it, let pics read it, and hold what comes of it against the whole; it is whole again then."""


class _Contents(Area):
    """Contents of files that a function reads from memory, each with whether a checksum guards it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cases = [(name, data, guarded, read, read(data)) for name, data, guarded, read in self.contents()]

    @abstractmethod
    def contents(self) -> Iterator[tuple[str, bytes, bool, Callable[[bytes], Any]]]:
        """What each is called, its bytes, whether it is guarded, and what reads it."""

    def attempt(self, rng: Random) -> Tried:
        name, data, guarded, read, whole = self.cases[int(rng.integers(len(self.cases)))]
        damaged, how = damage_bytes(data, rng, 1 if rng.random() < 0.4 else 8)
        try:
            found = read(damaged)
        except (BadSample, PicsError):
            return Tried("refused", f"{name}: {how}")
        if np.array_equal(found, whole):
            return Tried("same", f"{name}: {how}")
        return Tried("silent" if guarded else "other", f"{name}: {how}")


class Pictures(_Contents):
    """Backgrounds and references of every kind."""

    title, planned = "pictures", 7000

    def contents(self) -> Iterator[tuple[str, bytes, bool, Callable[[bytes], Any]]]:
        from pics_cli.core.images.image_io import decode_image
        from pics_cli.core.inference.decoding import decode_reference

        def decode(data: bytes) -> Any:
            return decode_image(data).rgb

        def reference(data: bytes) -> Any:
            return decode_reference(data, Path("object_0.png"))[0]

        turned = Image.Exif()
        turned[0x0112] = 6
        png: dict[str, Image.Image] = {
            "rgb": picture(0), "rgba": picture(1, "RGBA"), "grey": picture(2, "L"),
            "palette": picture(3).convert("P"),
            "16 bit": Image.fromarray(np.arange(96 * 64, dtype=np.uint16).reshape(64, 96)),
        }  # fmt: skip
        for name, image in png.items():
            yield f"png {name}", encoded(image, "PNG"), True, decode
            yield f"png reference {name}", encoded(image, "PNG"), True, reference
        for name, image, options in (
            ("rgb", picture(4), {}), ("progressive", picture(5), {"progressive": True}), ("grey", picture(6, "L"), {}),
            ("turned", picture(7), {"exif": turned}), ("cmyk", picture(8, "CMYK"), {}),
        ):  # fmt: skip
            yield f"jpeg {name}", encoded(image, "JPEG", quality=90, **options), False, decode
        for kind in ("WEBP", "BMP", "TIFF"):
            yield kind.lower(), encoded(picture(9), kind), False, decode
        yield "tiff lzw", encoded(picture(9), "TIFF", compression="tiff_lzw"), False, decode


class Masks(_Contents):
    """Regions, parse maps and the masks of shards: PNG all of them, and every bit counts."""

    title, planned = "masks", 4500

    def contents(self) -> Iterator[tuple[str, bytes, bool, Callable[[bytes], Any]]]:
        from pics_cli.core.datasets.readers.label_maps import decode_label_map
        from pics_cli.core.inference.decoding import mask_region
        from pics_cli.core.shards.samples import decode_sample

        def region(data: bytes) -> Any:
            return mask_region(data, "mask.png", SIZE).box

        def parse(data: bytes) -> Any:
            return decode_label_map(data, Path("map.png"))

        def stored(data: bytes) -> Any:
            return decode_sample("k", {**members(0), "mask0.png": data}).masks[0]

        alpha = picture(1)
        alpha.putalpha(mask(2))
        for name, image in (
            ("bits", mask(0).convert("1")), ("grey", mask(1)), ("rgb", mask(1).convert("RGB")), ("alpha", alpha),
        ):  # fmt: skip
            yield f"region {name}", encoded(image, "PNG"), True, region
        labels = Image.fromarray((np.asarray(mask(0)) > 0).astype(np.uint8) * 5)
        palette = labels.copy()
        palette.putpalette(bytes(range(256)) * 3)
        yield "parse map", encoded(palette, "PNG"), True, parse
        yield "grey parse map", encoded(labels, "PNG"), True, parse
        yield "mask of a shard", members(0)["mask0.png"], True, stored
        yield "grey mask of a shard", encoded(mask(0), "PNG"), True, stored


def members(seed: int) -> dict[str, bytes]:
    """Members of a sample of the published layout."""
    found = {"bg.jpg": encoded(picture(seed), "JPEG", quality=90)}
    for k in range(2):
        found[f"obj{k}.png"] = encoded(picture(seed + k, "RGB", (224, 224)), "PNG")
        found[f"mask{k}.png"] = encoded(mask(seed + k).convert("1"), "PNG")
    return found


class Shards(Area):
    """Tar files as training reads them, as --check does, and with headers of every kind."""

    title, planned = "shards", 3500

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.whole: list[tuple[bytes, dict[str, Any]]] = []
        for layout in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w", format=layout) as tar:
                for i in range(2):
                    for name, data in members(i).items():
                        info = tarfile.TarInfo(f"{'long' * 30 if layout else ''}{i}.{name}")
                        info.size = len(data)
                        if layout == tarfile.PAX_FORMAT:
                            info.pax_headers = {"comment": "é" * 20}
                        tar.addfile(info, io.BytesIO(data))
            self.whole.append((buffer.getvalue(), {}))
        self.whole = [(data, self.read(data)) for data, _ in self.whole]

    def read(self, data: bytes) -> dict[str, Any]:
        """Hashes of the samples as training reads them, by key."""
        from pics_cli.core.shards.samples import decode_sample
        from pics_cli.core.shards.tar_index import index_shard, read_sample

        path = self.folder / "00000.tar"
        path.write_bytes(data)
        index, found = index_shard(path), {}
        for start, stop in pairwise(index):
            try:
                key, parts = read_sample(path, int(start), int(stop))
                sample = decode_sample(key, parts)
            except BadSample:
                continue
            found[key] = hashlib.sha256(
                b"".join(array.tobytes() for array in (sample.image, *sample.references, *sample.masks))
            ).hexdigest()
        return found

    def attempt(self, rng: Random) -> Tried:
        from pics_cli.core.datasets.check_shards import check_shard

        data, whole = self.whole[int(rng.integers(len(self.whole)))]
        if rng.random() < 0.5:  # a header, where a sample is few of the bytes
            block = 512 * int(rng.integers(len(data) // 512))
            damaged, how = damage_bytes(data[block : block + 512], rng)
            damaged = data[:block] + damaged.ljust(512, b"\0")[:512] + data[block + 512 :]
            how = f"block {block}: {how}"
        else:
            damaged, how = damage_bytes(data, rng)
        path = self.folder / "00000.tar"
        try:
            found = self.read(damaged)
        except PicsError:
            found = None
        finally:
            shutil.rmtree(os.environ["PICS_CACHE"], ignore_errors=True)
        expected = {"sha256": hashlib.sha256(data).hexdigest(), "samples": 2}
        if damaged != data and not check_shard(path, expected).errors:
            return Tried("silent", f"--check: {how}")
        check_shard(path, None)
        if found is None or len(found) < len(whole):
            return Tried("refused", how)
        return Tried("same" if found == whole else "other", how)


class Recipes(Area):
    """Every recipe that is shipped, and values of --set."""

    title, planned = "recipes and --set", 3500

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from pics_cli.core.recipes.base import find_recipe
        from pics_cli.core.recipes.shipped import recipe_names

        self.texts = [(find_recipe(name).read_bytes(), name) for name in recipe_names()]

    def attempt(self, rng: Random) -> Tried:
        from pics_cli.core.recipes.base import find_recipe, parse_override, plain_recipe, recipe_kind
        from pics_cli.core.recipes.dataset import load_dataset
        from pics_cli.core.recipes.evaluation import load_evaluation
        from pics_cli.core.recipes.training import load_training

        text, name = self.texts[int(rng.integers(len(self.texts)))]
        path, settings, how = find_recipe(name), [], name
        try:
            if rng.random() < 0.6:
                damaged, how = damage_yaml(text, rng)
                path = self.folder / "mine.yaml"
                path.write_bytes(damaged)
            else:
                key = str(
                    rng.choice(["name", "seed", "raw", "source.splits.train.images", "pairs", "data.sets", "a.b"])
                )
                value = damage_yaml(str(rng.choice(["[a, b]", "{a: 1}", "x", "7", "[{stem}.jpg]"])).encode(), rng)[0]
                settings.append(parse_override(f"{key}={value.decode('utf-8', 'replace')}"))
            kind, given = recipe_kind(path), str(path)
            recipe: Any
            if kind == "dataset":
                recipe = load_dataset(path, settings)
            else:
                recipe = load_evaluation(given, settings) if kind == "evaluation" else load_training(given, settings)
            json.dumps(plain_recipe(recipe))
        except PicsError as error:
            if len(error.text) > 20_000:
                return Tried("silent", f"an error of {len(error.text):,} characters: {how}")
            return Tried("refused", how)
        return Tried("other", how)


class _Builds:
    """Whole runs of `pics build-shards`; results are the samples' bytes by key."""

    recipe: str
    raw: Path

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def build(self, *words: object) -> dict[str, str] | None:
        """What a build gives; None where it is refused."""
        out = self.folder / "out"
        code, self.said = pics("build-shards", self.recipe, "--raw", self.raw, "--out", out, "--workers", 1, *words)
        if code:
            return None
        found = {}
        for path in sorted(out.glob("*.tar")):
            with tarfile.open(path) as tar:
                for info in tar:
                    file = tar.extractfile(info)
                    found[info.name] = hashlib.sha256(file.read() if file else b"").hexdigest()
        return found

    def clear(self) -> None:
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        shutil.rmtree(os.environ["PICS_CACHE"], ignore_errors=True)


class Formats(Area):
    """Raw folders in every format: a file of one is damaged, and shards are built from it."""

    title, planned = "raw formats", 1200

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from fuzz_sets import RAW_SETS

        self.sets = []
        for name, make in RAW_SETS.items():
            one = _Builds(folder / name)
            one.folder.mkdir()
            one.raw = one.folder / "raw"
            one.recipe = make(one.raw)
            whole = one.build()
            assert whole, f"{name}: no sample of the undamaged folder: {one.said}"
            one.clear()
            self.sets.append((name, one, [p for p in sorted(one.raw.rglob("*")) if p.is_file()], whole))

    def attempt(self, rng: Random) -> Tried:
        name, one, files, whole = self.sets[int(rng.integers(len(self.sets)))]
        path = files[int(rng.integers(len(files)))]
        data, time = path.read_bytes(), path.stat().st_mtime_ns
        damaged, how = (damage_json if path.suffix == ".json" else damage_bytes)(data, rng)
        what = f"{name}/{path.name}: {how}"
        path.write_bytes(damaged)
        try:
            found = one.build("--max-bad", 100)
            assert path.read_bytes() == damaged, f"{path} was written to"
        finally:
            path.write_bytes(data)
            os.utime(path, ns=(time, time))
            one.clear()
        if found is None or (found != whole and found.items() <= whole.items()):
            return Tried("refused", what)
        if found == whole:
            return Tried("same", what)
        # A picture decides what a build chooses only in formats of one label a pixel; its bytes are stored in any.
        return Tried("silent" if path.suffix == ".png" else "other", what)


class State(_Builds, Area):
    """What a build leaves behind (shards, stats, manifest) and keeps in the cache, damaged before it resumes."""

    title, planned = "state on disk and caches of builds", 300

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from fuzz_sets import RAW_SETS

        self.raw = folder / "raw"
        self.recipe = RAW_SETS["coco"](self.raw)
        whole = self.build("--shard-size", 1)
        assert whole, self.said
        self.whole = whole
        self.cache = Path(os.environ["PICS_CACHE"])
        self.kept = {p: p.read_bytes() for root in (folder / "out", self.cache) for p in root.rglob("*") if p.is_file()}
        self.clear()

    def attempt(self, rng: Random) -> Tried:
        for path, data in self.kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        chosen = list(self.kept)[int(rng.integers(len(self.kept)))]
        damaged, how = (damage_json if chosen.suffix == ".json" else damage_bytes)(self.kept[chosen], rng)
        what = f"{chosen.name}: {how}"
        if rng.random() < 0.1:
            chosen.unlink()
            what = f"{chosen.name} removed"
        else:
            chosen.write_bytes(damaged)
        words = ["--overwrite"] if self.cache in chosen.parents and rng.random() < 0.7 else []
        try:
            found = self.build("--shard-size", 1, *words)
            if chosen.suffix == ".tar" and found is not None and found != self.whole:
                return Tried("other", what)  # shards are not read again; --check is for that
        except tarfile.TarError:
            return Tried("other", what)
        finally:
            self.clear()
        return Tried("refused" if found is None else "same" if found == self.whole else "silent", what)


class Models(Area):
    """Model folders: configurations, headers and weights."""

    title, planned = "model folders", 80

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from pics_cli.core.model.tiny_model import tiny_model

        tiny_model().save_pretrained(folder / "model")
        self.files = [p for p in sorted((folder / "model").rglob("*")) if p.suffix in (".json", ".safetensors")]

    def attempt(self, rng: Random) -> Tried:
        from pics_cli.core.model.pics_model import PicsModel

        path = self.files[int(rng.integers(len(self.files)))]
        data = path.read_bytes()
        if path.suffix == ".json":
            damaged, how = damage_json(data, rng)
        else:  # the header: nothing tells one weight from another
            damaged, how = damage_bytes(data[:2000], rng)
            damaged += data[2000:]
        path.write_bytes(damaged)
        try:
            PicsModel.from_pretrained(self.folder / "model")
        except PicsError:
            return Tried("refused", f"{path.parent.name}/{path.name}: {how}")
        finally:
            path.write_bytes(data)
        return Tried("other", f"{path.parent.name}/{path.name}: {how}")


class _Command(Area):
    """A command whose results lie in a folder: a file of it is damaged before the same command runs again."""

    command: list[object]
    results: str
    made: str | None = None
    """A folder in it that is taken away before the second run, which makes it from the rest."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what the command reads."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.prepare()
        code, text = pics(*self.command)
        assert code == 0, text
        out = folder / "out"
        files = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
        self.whole = {path: self.pixels(data) for path, data in files.items() if path.match(self.results)}
        assert self.whole, f"{self.results}: nothing made"
        made = None if self.made is None else out / self.made
        self.kept = {path: data for path, data in files.items() if made is None or not path.is_relative_to(made)}

    def attempt(self, rng: Random) -> Tried:
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        for path, data in self.kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        chosen = list(self.kept)[int(rng.integers(len(self.kept)))]
        damaged, how = (damage_json if chosen.suffix == ".json" else damage_bytes)(self.kept[chosen], rng)
        chosen.write_bytes(damaged)
        code, _ = pics(*self.command)
        what = f"{chosen.relative_to(out)}: {how}"
        if code:
            return Tried("refused", what)
        same = all(path.is_file() and self.pixels(path.read_bytes()) == whole for path, whole in self.whole.items())
        return Tried("same" if same else "silent", what)

    def pixels(self, data: bytes) -> bytes:
        """What of a result must be the same."""
        with contextlib.suppress(OSError, SyntaxError, ValueError):
            return Image.open(io.BytesIO(data)).convert("RGBA").tobytes()
        return data


class Infers(_Command):
    """Pictures and records that `pics infer` left."""

    title, planned, results = "state of infer", 40, "*.png"

    def prepare(self) -> None:
        from pics_cli.core.model.tiny_model import tiny_model

        tiny_model().save_pretrained(self.folder / "model")
        sample = self.folder / "in" / "a"
        sample.mkdir(parents=True)
        picture(0).save(sample / "image.png")
        picture(1, "RGBA", (40, 40)).save(sample / "object_0.png")
        mask(0).save(sample / "object_0_mask.png")
        self.command = [
            "infer", "--model", self.folder / "model", "--input", self.folder / "in", "--output", self.folder / "out",
            "--device", "cpu", "--steps", 1,
        ]  # fmt: skip


class Evals(_Command):
    """Composites, cases and tables that `pics eval` left."""

    title, planned, results = "state of eval", 40, "results.json"

    def prepare(self) -> None:
        for folder in ("truth", "made"):
            (self.folder / folder).mkdir()
            for i in range(2):
                picture(i + (folder == "made")).save(self.folder / folder / f"{i}.png")
        self.command = [
            "eval", "--reference", self.folder / "truth", "--input", self.folder / "made", "--output",
            self.folder / "out", "--device", "cpu",
        ]  # fmt: skip


class Trains(_Command):
    """Checkpoints and logs that `pics train` left, from which the model is written again."""

    title, planned, results, made = "state of train", 40, "model/*/*.safetensors", "model"

    def prepare(self) -> None:
        drawn = "{train: {pool: train, scenes: 4}}"
        dataset = "{kind: dataset, name: drawn, out: out, source: {format: synth, size: 64, relations: {occluding: 1}, "
        (self.folder / "drawn.yaml").write_text(f"{dataset}splits: {drawn}}}, pairs: {{contained: keep}}}}")
        code, text = pics("build-shards", self.folder / "drawn.yaml", "--out", self.folder / "data", "--workers", 1)
        assert code == 0, text
        (self.folder / "small.yaml").write_text(_SMALL_TRAINING)
        self.command = [
            "train", "--recipe", self.folder / "small.yaml", "--root-dir", self.folder / "out", "--device", "cpu",
            "--set", f"data.root={self.folder}",
        ]  # fmt: skip


_SMALL_TRAINING = """
{kind: training, name: small, out: out, steps: 2, batch_size: 1, train: full, precision: fp32,
 data: {sets: {A: {shards: data}}, workers: 0},
 model: {shape: {block_out_channels: [32, 64], encoder_width: 32, encoder_layers: 1, encoder_heads: 1,
                 context_width: 32}, image_size: 32, reference_size: 28, hint: background, steps: 1, guidance: 1.0},
 optimizer: {learning_rate: 1.0e-3, warmup: 1}, validation: {every: 100, samples: 1, sheet: 1, bins: 1},
 checkpoints: {every: 1}}
"""


AREAS: dict[str, type[Area]] = {
    "pictures": Pictures, "masks": Masks, "shards": Shards, "recipes": Recipes, "formats": Formats, "state": State,
    "models": Models, "infer": Infers, "eval": Evals, "train": Trains,
}  # fmt: skip
