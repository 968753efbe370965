"""What one page has uploaded, drawn and made, in a folder of its own.

Of a client nothing names a file: objects and jobs are looked up by number.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pics_cli.core.images.image_io import encode_png
from pics_cli.core.images.masks import box_mask
from pics_cli.core.inference.decoding import decode_reference
from pics_cli.core.inference.inputs import decode, list_sample, read_parts, single_sample
from pics_cli.core.inference.sample import Bytes, CompositeOptions, Order
from pics_cli.core.inference.warm import WarmModel
from pics_cli.core.runtime.files import read_file
from pics_cli.errors import BadSample, PicsError, write_error
from pics_cli.ui.drawing import Drawing, ObjectPicture
from pics_cli.ui.job import Job, error_text, job_json
from pics_cli.ui.pictures import correct_cutout, decode_strokes, opaque_bounds, picture_suffix, read_background

MAX_OBJECTS = 16
MAX_STORED = 500_000_000  # bytes of one session
# Results of earlier composites that are kept, for requests that are still on their way.
_KEPT_JOBS = 2
# Name of every uploaded sample: noise is a function of it, and files are called by it.
NAME = "picture"


class Session:
    """One page: what is uploaded, drawn and made. Methods are called by one thread at a time, holding `lock`.

    Args:
        folder: of its own, empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self.seen = time.monotonic()
        self.name = NAME
        self.background: str | None = None
        self.label = ""
        self.size = (0, 0)
        self.version = 0
        self.objects: list[ObjectPicture] = []
        self.kept = 0
        self.drawing = Drawing()
        self.jobs: list[Job] = []
        self._numbers = 0
        self._versions = 0

    def set_background(self, data: bytes, label: str) -> None:
        """Take a background; boxes stay where they are."""
        found = read_background(data, label)
        self.write(f"image.{found.suffix}", data)
        (self.folder / "shown.png").unlink(missing_ok=True)
        if found.shown is not None:
            self.write("shown.png", found.shown)
        self.background, self.label, self.size = f"image.{found.suffix}", label, found.size
        self.name = NAME
        self._versions += 1
        self.version = self._versions

    @property
    def shown_background(self) -> Path | None:
        """The picture that a browser shows."""
        if self.background is None:
            return None
        converted = self.folder / "shown.png"
        return converted if converted.exists() else self.folder / self.background

    def add_object(self, data: bytes, label: str, model: WarmModel) -> ObjectPicture:
        """Take an object and cut it out."""
        if len(self.objects) >= MAX_OBJECTS:
            raise PicsError(f"{label}: this would be object {MAX_OBJECTS + 1}, the page takes {MAX_OBJECTS}")
        suffix = picture_suffix(data, label)
        pixels, notes = decode_reference(data, Path(label))
        number = self._numbers
        file = f"object_{number}.{suffix}"
        self.write(file, data)
        self._numbers += 1
        added = ObjectPicture(number, label, file, (pixels.shape[1], pixels.shape[0]))
        self.objects.append(added)
        try:
            self._cut(added, pixels, model)
        except PicsError:
            self.objects.remove(added)
            raise
        added.note = "\n".join([*notes, *filter(None, [added.note])])
        return added

    def remove_object(self, number: int) -> None:
        """Forget an object."""
        gone = self.object(number)
        self.objects.remove(gone)
        self.drawing.boxes.pop(number, None)
        if isinstance(self.drawing.order, list):
            self.drawing.order = [each for each in self.drawing.order if each != number]
        for path in self.folder.glob(f"object_{number}[._]*"):
            path.unlink()

    def object(self, number: int) -> ObjectPicture:
        """An object by its number."""
        for each in self.objects:
            if each.number == number:
                return each
        raise PicsError(f"object {number}: it was taken away")

    def shown_object(self, target: ObjectPicture) -> bytes:
        """An object's whole picture as a PNG that a browser shows."""
        return encode_png(self._pixels(target))

    def set_strokes(self, number: int, data: bytes | None, model: WarmModel) -> None:
        """Correct a cut-out with strokes of a brush (see `decode_strokes`), all there are; None: take them away."""
        target = self.object(number)
        before = target.corrected
        if data is not None:
            decode_strokes(data, target.label, target.size)
            self.write(target.name("strokes"), data)
        target.corrected = data is not None
        try:
            self._cut(target, self._pixels(target), model)
        except PicsError:
            target.corrected = before
            raise

    def set_kept(self, data: bytes | None) -> None:
        """Take strokes over what stays in front of the objects (see `decode_strokes`); None: nothing does."""
        if data is not None:
            if self.background is None:
                raise PicsError("brush strokes: there is no background yet")
            strokes = decode_strokes(data, self.label, self.size)
            self.write("keep.png", box_mask(strokes[..., 3] > 127).png())
            self.write("keep_strokes.png", data)
        self._versions += 1
        self.kept = 0 if data is None else self._versions

    def draw(self, drawing: Drawing, model: WarmModel) -> None:
        """Take what was drawn; objects are cut out again where the way of cutting is another one."""
        drawing.check()
        known = {each.number for each in self.objects}
        drawing.boxes = {number: box for number, box in drawing.boxes.items() if number in known}
        if drawing.cutout != self.drawing.cutout:
            model.cutter(drawing.cutout)  # which may have no weights
            self.drawing = drawing
            for each in self.objects:
                self._cut(each, self._pixels(each), model)
        self.drawing = drawing

    def load_example(self, folder: Path, model: WarmModel) -> None:
        """Take a sample folder's background, objects and boxes in place of what is there."""
        files = list_sample(folder, None)
        contents = read_parts(files)
        boxes = decode(files, contents).boxes
        for each in list(self.objects):
            self.remove_object(each.number)
        self.kept = 0
        self.set_background(contents["background"], files.background.name)
        self.drawing = Drawing()
        for k, (x0, y0, x1, y1) in enumerate(boxes):
            added = self.add_object(contents[f"object_{k}"], files.objects[k].reference.name, model)
            self.drawing.boxes[added.number] = (x0, y0, x1 - x0, y1 - y0)
        self.name = files.id

    def new_job(self, model: WarmModel) -> Job:
        """What is drawn now, as a job with copies of its files.

        Raises:
            PicsError: in the words of `pics infer`: no background, no object, an object without a box.
        """
        if self.jobs and self.jobs[-1].pending:
            raise PicsError("a composite of this page is already under way", "wait for it, or cancel it")
        words, copies = list[tuple[str, str]](), dict[str, str]()
        for k, each in enumerate(self.objects):
            if each.error and not each.corrected:
                raise PicsError(each.error.removeprefix("error: "))
            name = f"object_{k}{Path(each.used).suffix}"
            copies[name] = each.used
            words.append(("object", name))
            if each.number in self.drawing.boxes:
                words.append(("box", ",".join(map(str, self.drawing.boxes[each.number]))))
        if self.background is not None:
            copies[self.background] = self.background
        if self.kept:
            copies["keep.png"] = "keep.png"
        background = None if self.background is None else Path(self.background)
        sample = single_sample(background, words, Path("keep.png") if self.kept else None)
        number = self.jobs[-1].number + 1 if self.jobs else 1
        folder = self.folder / f"job_{number}"
        try:
            folder.mkdir()
            for name, source in copies.items():
                os.link(self.folder / source, folder / name)
        except OSError as error:
            raise write_error(folder.relative_to(self.folder), error) from None
        sample = replace(sample, id=self.name, root=folder)
        drawing = self.drawing
        job = replace(
            model.job,
            samples=(sample,),
            output=folder / "results",
            options=CompositeOptions(drawing.seed, drawing.steps, drawing.guidance, fit=drawing.fit),
            order=self._order(),
            cutout=drawing.cutout,
            num=drawing.num,
            explain=drawing.explain,
            layers=drawing.layers,
        )
        self.jobs.append(Job(number, job, sample, folder))
        for old in self.jobs[:-_KEPT_JOBS]:
            shutil.rmtree(old.folder, ignore_errors=True)
        self.jobs = self.jobs[-_KEPT_JOBS:]
        return self.jobs[-1]

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the session, whole or not at all.

        Raises:
            PicsError: disk full, or more than a session may hold.
        """
        stored = sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())
        if stored + len(data) > MAX_STORED:
            raise PicsError(
                f"{name}: with it this page would hold more than {MAX_STORED / 1e6:,.0f} MB of pictures",
                "take objects away, or open another page",
            )
        path = self.folder / name
        temporary = path.with_name(f"{name}.tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)  # the old one may be linked into a job
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise write_error(Path(name), error) from None

    def _order(self) -> Order | None:
        """Numbers of the page's objects as places in their list; those that the order does not name are in front."""
        order = self.drawing.order
        if order is None or order == "auto":
            return order
        numbers = [each.number for each in self.objects]
        listed = [number for number in dict.fromkeys(order) if number in numbers]
        return tuple(numbers.index(number) for number in [*listed, *(each for each in numbers if each not in listed)])

    def _pixels(self, target: ObjectPicture) -> Bytes:
        return decode_reference(read_file(self.folder / target.file), Path(target.label))[0]

    def _cut(self, target: ObjectPicture, pixels: Bytes, model: WarmModel) -> None:
        """Cut an object out, correct it where there are strokes, and write what is shown and used of it."""
        place = f"object_{self.objects.index(target)}{Path(target.file).suffix}"
        target.error = target.note = target.method = ""
        try:
            found = model.cutter(self.drawing.cutout)(pixels, place)
            cut, target.method, target.note = found.picture, found.method, found.note or ""
        except BadSample as error:  # nothing of it is taken, until a brush adds something
            cut = _transparent(pixels[..., :3])
            target.error = error_text(error)
        if target.corrected:
            strokes = decode_strokes(read_file(self.folder / target.name("strokes")), target.label, target.size)
            cut = correct_cutout(pixels, cut, strokes)
            self.write(target.name("corrected"), encode_png(cut))
        self.write(target.name("cut"), encode_png(cut))
        target.bounds = opaque_bounds(cut)
        self._versions += 1
        target.version = self._versions

    def to_json(self, ahead: Mapping[int, int] | None = None) -> dict[str, Any]:
        """What the page shows, as plain data."""
        fields = ("number", "label", "size", "method", "note", "error", "bounds", "corrected", "version")
        background = {"label": self.label, "size": self.size, "version": self.version}
        return {
            "background": None if self.background is None else background,
            "kept": self.kept,
            "objects": [{field: getattr(each, field) for field in fields} for each in self.objects],
            "drawing": msgspec.to_builtins(self.drawing, str_keys=True),
            "job": job_json(self.jobs[-1], (ahead or {}).get(self.jobs[-1].number, 0)) if self.jobs else None,
        }


def _transparent(rgb: Bytes) -> Bytes:
    """The picture, nothing of which is to be seen."""
    return np.dstack([rgb, np.zeros(rgb.shape[:2], np.uint8)])
