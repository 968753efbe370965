"""From files to samples: sample folders, single pictures and masks; every error names its file."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from pics_cli.core.images.geometry import Box
from pics_cli.core.images.stored_image import decode_stored, to_srgb
from pics_cli.core.inference.decoding import decode_mask, decode_reference, mask_region
from pics_cli.core.inference.mask_region import RegionRule, find_kept
from pics_cli.core.inference.sample import CompositeSample, Order
from pics_cli.core.model.bundled import PACKAGE, restore_hint
from pics_cli.core.runtime.files import as_remote, open_file, read_file
from pics_cli.core.runtime.storage import is_remote, location
from pics_cli.errors import BadSample, PicsError, abbreviate, read_error, reason_of

logger = logging.getLogger(__name__)

BUNDLED_SAMPLES = PACKAGE / "samples"
_BUNDLED_NAME = Path("sample")
SUFFIXES = ("png", "jpg", "jpeg", "webp", "avif", "bmp", "tif", "tiff", "heic", "heif")
_BACKGROUND = re.compile(rf"image\.(?:{'|'.join(SUFFIXES)})", re.IGNORECASE)
_OBJECT = re.compile(rf"object_(\d+)(_mask)?\.(?:{'|'.join(SUFFIXES)})", re.IGNORECASE)
_KEEP = re.compile(rf"keep\.(?:{'|'.join(SUFFIXES)})", re.IGNORECASE)
_LAYOUT = "a sample is a folder with image.jpg (or .png, .webp), object_0.png, object_0_mask.png, object_1.png, …"
_FLAGS = "each --object is followed by its region: --object A.png --box x,y,w,h --object B.png --mask B_mask.png"


class ObjectFiles(NamedTuple):
    """One object to be put in: its reference, and its region as a mask file or as a box (the other is None)."""

    reference: Path
    mask: Path | None
    box: Box | None = None


@dataclass(frozen=True)
class SampleFiles:
    """Paths of the parts of a sample.

    Attributes:
        id: its name.
        background, objects: of it.
        keep: the mask of what stays in front of the objects, where there is one.
        root: the folder that the paths are relative to, which messages do not name.
    """

    id: str
    background: Path
    objects: tuple[ObjectFiles, ...]
    keep: Path | None = None
    root: Path = Path()

    def parts(self) -> dict[str, Path]:
        """Every file by the part it plays: background, object_0, mask_0, …, keep."""
        parts = {"background": self.background}
        for k, files in enumerate(self.objects):
            parts[f"object_{k}"] = files.reference
            if files.mask is not None:
                parts[f"mask_{k}"] = files.mask
        if self.keep is not None:
            parts["keep"] = self.keep
        return parts


def choose_input(root: Path) -> Path:
    """The folder that `--input` means: `sample` stands for the bundled samples where no such folder exists.

    Raises:
        PicsError: the bundled samples are meant and missing.
    """
    if root != _BUNDLED_NAME:
        return root
    if root.exists() or root.is_symlink():
        logger.info("--input %s: the folder %s, not the samples bundled with pics", root, root.absolute())
        return root
    samples = BUNDLED_SAMPLES
    if not samples.is_dir():
        raise PicsError(
            f"--input {root}: no folder of that name here, and the bundled samples are missing: {samples}",
            f"{restore_hint(samples)}; or name a folder of samples",
        )
    logger.info("--input %s: no folder of that name here; the samples bundled with pics: %s", root, samples)
    return samples


def find_folders(root: Path) -> list[Path]:
    """The sample folders that `root` stands for: itself, or those in it, sorted; others in it are logged.

    Raises:
        PicsError: no such folder, or no sample in it.
    """
    if not root.is_dir():
        if root.exists():
            raise PicsError(
                f"--input {root}: is a file, expected a folder",
                "one picture without folders: --background IMG --object A.png --box x,y,w,h",
            )
        raise PicsError(f"--input {root}: no such folder", f"{_LAYOUT}; for samples bundled with pics: --input sample")
    try:
        if remote := as_remote(root):
            names = _names_by_folder(remote.files_below())
            if _is_sample(names.pop("", ())):
                return [root]
            is_sample = {root / folder: _is_sample(found) for folder, found in sorted(names.items())}
        else:
            if _is_sample(_names(root)):
                return [root]
            listed = sorted(path for path in root.iterdir() if not path.name.startswith("."))
            if dangling := [path.name for path in listed if path.is_symlink() and not path.exists()]:
                logger.warning("--input %s: links that lead nowhere, passed over: %s", root, abbreviate(dangling, 5))
            is_sample = {path: _is_sample(_names(path)) for path in listed if path.is_dir()}
    except OSError as error:
        raise read_error(error.filename, error) from None
    samples = [path for path, found in is_sample.items() if found]
    if not samples:
        raise PicsError(
            f"--input {root}: no sample: looked for image.* and object_* in it and in each folder of it", _LAYOUT
        )
    others = [path.name for path, found in is_sample.items() if not found]
    if others:
        logger.info("no sample in %d folders, passed over: %s", len(others), ", ".join(others[:5]))
    return samples


def list_sample(folder: Path, objects: int | None) -> SampleFiles:
    """The files of a sample folder.

    Args:
        folder: of the sample.
        objects: take the first so many objects; None: all.

    Raises:
        BadSample: a file is missing (its expected name is named) or exists twice, or there are too few objects.
    """
    try:
        names = _names(folder)
    except OSError as error:
        raise BadSample("unreadable_folder", f"{folder}: {reason_of(error)}") from None
    backgrounds = [name for name in names if _BACKGROUND.fullmatch(name)]
    background = _single_file(folder, names, backgrounds, "image.jpg (or .png, .webp)")
    numbered: dict[int, tuple[list[str], list[str]]] = {}  # pictures and masks by the object's number
    for name in names:
        if match := _OBJECT.fullmatch(name):
            numbered.setdefault(int(match[1]), ([], []))[match[2] is not None].append(name)
    if not numbered:
        raise BadSample("missing_object", f"{folder}: no object_0.png and object_0_mask.png")
    if objects is not None and len(numbered) < objects:
        raise BadSample("too_few_objects", f"{folder}: {len(numbered)} objects, --obj-thr asks for {objects}")
    pairs = []
    chosen = sorted(numbered)[:objects]
    gap = next((k for k, following in pairwise(chosen) if following != k + 1), None)
    if gap is not None:
        raise BadSample(
            "missing_object", f"{folder / f'object_{gap + 1}.png'}: no such file, though there is a later one"
        )
    for k in chosen:
        pictures, masks = numbered[k]
        reference = _single_file(folder, names, pictures, f"object_{k}.png", *masks)
        pairs.append(ObjectFiles(reference, _single_file(folder, names, masks, f"object_{k}_mask.png", *pictures)))
    keep = None
    if any(name.lower().startswith("keep.") for name in names):
        keep = _single_file(folder, names, [name for name in names if _KEEP.fullmatch(name)], "keep.png")
    return SampleFiles(folder.name, background, tuple(pairs), keep)


def single_sample(background: Path | None, words: Sequence[tuple[str, str]], keep: Path | None = None) -> SampleFiles:
    """A sample from command-line flags: each object is followed by its box or its mask.

    Args:
        background: the picture; its name without the suffix is the sample's id. None: not given.
        words: (`object` | `box` | `mask`, value) in the order of the command line.
        keep: mask of what stays in front.

    Raises:
        PicsError: no background, an object without or with more than one region, a region without object, a malformed
            box.
    """
    if background is None:
        raise PicsError(
            f"--{words[0][0]} without --background" if words else "nothing to composite",
            "folders: --input PATH (bundled ones: --input sample); one picture: --background IMG --object A.png --box "
            "X,Y,W,H",
        )
    objects: list[ObjectFiles] = []
    for kind, value in words:
        if kind == "object":
            _check_region(objects)
            objects.append(ObjectFiles(location(value), None))
            continue
        if not objects:
            raise PicsError(f"--{kind} {value} stands before any --object", _FLAGS)
        last = objects[-1]
        if last.mask is not None or last.box is not None:
            raise PicsError(f"--object {last.reference}: two regions, the second is --{kind} {value}", _FLAGS)
        objects[-1] = last._replace(mask=location(value)) if kind == "mask" else last._replace(box=parse_box(value))
    _check_region(objects)
    if not objects:
        raise PicsError(f"--background {background}: no --object to put into it", _FLAGS)
    return SampleFiles(background.stem, background, tuple(objects), keep)


def parse_box(text: str) -> Box:
    """`x,y,w,h` in pixels of the background → x0, y0, x1, y1.

    Raises:
        PicsError: not four whole numbers, or no area.
    """
    try:
        x, y, width, height = (int(word) for word in text.split(","))
    except ValueError:
        raise PicsError(
            f"--box {text}: expected four whole numbers x,y,w,h: left, top, width, height in pixels"
        ) from None
    if width < 1 or height < 1:
        raise PicsError(f"--box {text}: width {width} and height {height}, both must be at least 1")
    return (x, y, x + width, y + height)


def check_files(files: SampleFiles) -> None:
    """Raise BadSample for a file of a sample that does not exist or is none, as a named pipe; nothing is read.

    Files of a store were listed a moment ago: it is not asked for each of them again.
    """
    for part, path in files.parts().items():
        try:
            if not is_remote(path):
                open_file(files.root / path).close()
        except OSError as error:
            raise _unreadable(path, part, error) from None


def read_parts(files: SampleFiles) -> dict[str, bytes]:
    """Bytes of every file of a sample, by the part it plays.

    Raises:
        BadSample: a file is missing or cannot be read.
    """
    contents = {}
    for part, path in files.parts().items():
        try:
            contents[part] = read_file(path if is_remote(path) else files.root / path)
        except OSError as error:
            raise _unreadable(path, part, error) from None
    return contents


def part_hashes(contents: Mapping[str, bytes]) -> dict[str, str]:
    """sha256 (hex) of what `read_parts` gives."""
    return {part: hashlib.sha256(data).hexdigest() for part, data in contents.items()}


def decode(
    files: SampleFiles,
    contents: Mapping[str, bytes],
    order: Order | None = None,
    candidates: tuple[int, ...] = (0,),
    region: RegionRule = "box",
) -> CompositeSample:
    """Decode a sample's files.

    Args:
        files: of the sample.
        contents: as `read_parts` gives them.
        order, candidates: of the sample.
        region: what of a mask is the region; see `find_region`.

    Raises:
        BadSample: a picture or mask that cannot be decoded, a mask that does not fit, a box outside the picture.
    """
    try:
        stored = decode_stored(contents["background"])
    except BadSample as error:
        raise BadSample(error.reason, f"{files.background}: {error.detail}") from None
    background = to_srgb(stored)
    height, width = background.shape[:2]
    boxes, references, notes = [], [], [f"{files.background}: {note}" for note in stored.notes]
    for k, (path, mask, box) in enumerate(files.objects):
        reference, own_notes = decode_reference(contents[f"object_{k}"], path)
        references.append(reference)
        notes += own_notes
        if mask is not None:
            found = mask_region(contents[f"mask_{k}"], str(mask), (width, height), region)
            boxes.append(found.box)
            notes += [] if found.note is None else [found.note]
        elif box is not None:
            boxes.append(box)
            x0, y0, x1, y1 = box
            if min(x0, y0) < 0 or x1 > width or y1 > height:
                shown = f"box {x0},{y0},{x1 - x0},{y1 - y0} (x,y,w,h) of {path}"
                raise BadSample("box_outside", f"{shown} leaves the background, which is {width}x{height}")
    keep = None
    if files.keep is not None:
        name = str(files.keep)
        keep, note = find_kept(decode_mask(contents["keep"], name, (width, height)), name, boxes)
        notes += [] if note is None else [note]
    return CompositeSample(
        files.id, background, tuple(boxes), tuple(references), order, candidates, stored, tuple(notes), keep
    )


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _names_by_folder(files: Iterable[str]) -> dict[str, list[str]]:
    """Names of the files of a folder (as "") and of the folders in it that are not hidden, from all paths below it."""
    names = dict[str, list[str]]()
    for path in files:
        folder, _, name = path.rpartition("/")
        if "/" not in folder and not folder.startswith("."):
            names.setdefault(folder, []).append(name)
    return names


def _is_sample(names: Iterable[str]) -> bool:
    return any(_BACKGROUND.fullmatch(name) or _OBJECT.fullmatch(name) for name in names)


def _single_file(folder: Path, present: Sequence[str], names: Sequence[str], expected: str, *partners: str) -> Path:
    if not names:
        stem = expected.partition(".")[0]
        kind = stem if stem in ("image", "keep") else "mask" if "_mask" in expected else "object"
        for name in present:
            if name.lower().startswith(f"{stem}."):
                detail = f"{folder / name}: not one of the kinds that are read: {', '.join(SUFFIXES)}"
                raise BadSample(f"missing_{kind}", detail)
        partner = f", though {partners[0]} is there" if partners else ""
        raise BadSample(f"missing_{kind}", f"{folder / expected}: no such file{partner}")
    if len(names) > 1:
        raise BadSample("two_files", f"{folder}: both {names[0]} and {names[1]}, expected one of them")
    return folder / names[0]


def _check_region(objects: Sequence[ObjectFiles]) -> None:
    if objects and objects[-1].mask is None and objects[-1].box is None:
        raise PicsError(f"--object {objects[-1].reference}: no region: neither --box nor --mask follows it", _FLAGS)


def _unreadable(path: Path, part: str, error: OSError) -> BadSample:
    kind = part.partition("_")[0].replace("background", "image")
    if isinstance(error, FileNotFoundError):
        return BadSample(f"missing_{kind}", f"{path}: no such file")
    return BadSample(f"unreadable_{kind}", f"{path}: {reason_of(error)}")
