"""What `PicsPipeline` returns: pictures, what they were made with, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pics_cli import __version__
from pics_cli.core.images.output_formats import SUFFIXES, format_of
from pics_cli.core.inference.composite import CompositeResult
from pics_cli.core.inference.layer_files import refuse_other_files, write_layers
from pics_cli.core.inference.layers import Layers
from pics_cli.core.inference.record import creation_record, write_composite
from pics_cli.errors import BadSample


@dataclass(frozen=True, eq=False)
class PicsPipelineOutput:
    """What a call of `PicsPipeline` returns.

    Attributes:
        images: the pictures, each of the input's size: a list of PIL images, with the input's alpha and colour profile
            (in `info`) where it has them, 8 bits for each value; or uint8 [n, H, W, 3] in sRGB, alpha over white.
        changed_outside: number of pixels outside the boxes, or kept, that changed, over all pictures: 0.
        metadata: plain data, with keys of the records of `pics infer`: `name`, `seed` (None with a generator),
            `settings`, `size`, `boxes`, `window` (what the network saw, in pixels), `feather`, `order` (back to front),
            `unguided` (objects too small for their references to reach), `cutouts` (how each reference was cut out) and
            `shares` (what part of its box each object takes; see `prepare.object_shares`). With `adapters`, these; with
            `keep`, how many pixels it keeps: `kept`.
        results: what `images` were made from, in their order.
        model: the model's name and, of a folder, its fingerprint, as records have them.
    """

    images: list[Image.Image] | npt.NDArray[np.uint8]
    changed_outside: int
    metadata: dict[str, Any]
    results: Sequence[CompositeResult] = ()
    model: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path, number: int = 0) -> None:
        """Write a picture as `pics infer` writes it: with the background's depth, alpha and colour profile, marked as
        composited by a network (XMP), and with the record that `pics explain` prints.

        Args:
            path: its ending says the format: `.png`, `.jpg`, `.jpeg` or `.webp`; a file that is there is replaced.
            number: of the picture in `images`.

        Raises:
            ValueError: another ending; a picture that the format cannot hold.
            PicsError: it cannot be written.
        """
        path, result = Path(path), self.results[number]
        if (format := format_of(path.suffix)) is None:
            raise ValueError(f"{path}: expected a name that ends in {', '.join(SUFFIXES.values())}")
        adapters = {"adapters": self.metadata["adapters"]} if "adapters" in self.metadata else {}
        record = {
            "id": self.metadata["name"],
            "candidate": result.candidate,
            "model": {**self.model, **adapters},
            **creation_record(format),
            **self.metadata,
            "light": None if result.lighting is None else result.lighting.to_json(),
            "changed_outside": result.changed_outside,
            "versions": {"pics": __version__},
        }
        try:
            write_composite(path, result.stored, record, format)
        except BadSample as error:
            raise ValueError(f"{path}: {error.detail}") from None

    @property
    def layers(self) -> list[Layers]:
        """Of each picture.

        Raises:
            ValueError: the call did not ask for layers.
        """
        return [result.layers for result in self.results]

    def save_layers(self, folder: str | Path, number: int = 0) -> None:
        """Write the layers of a picture: a folder of PNGs, which `pics merge-layers` reads, and FOLDER.ora beside it.

        Args:
            folder: made where it is missing; of one that `save_layers` wrote the layers are replaced. Any other must
                not hold files of their names, as a sample folder does.
            number: of the picture in `images`.

        Raises:
            ValueError: the call did not ask for layers.
            PicsError: they cannot be written, or would replace other files.
        """
        layers = self.results[number].layers
        refuse_other_files(Path(folder))
        write_layers(Path(folder), layers)
