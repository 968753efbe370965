"""The model card of a model folder, `README.md`: a YAML header for the hub, and text. Its facts come from the files."""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from safetensors import SafetensorError, safe_open

from pics_cli.core.model import licences
from pics_cli.core.model.bundled import BUNDLED_NAME, FILES_FILE, MODELS
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.describe_folder import PIPELINE_FILE
from pics_cli.core.model.licences import Licence, licence_of
from pics_cli.core.runtime.files import AtomicFile, load_json, read_file
from pics_cli.errors import PicsError, read_error, reason_of

CARD_FILE, CONVERSION_FILE, TRAINING_FILE = "README.md", "conversion.json", "training.json"
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
TAGS = ["image-compositing", "pics", "controlnet"]
_TEMPLATE = Path(__file__).with_name("model_card.md.j2")
_MARK = re.compile(r"\n<!-- written by pics, sha256 ([0-9a-f]{64}): replaced for as long as it is unchanged -->\n")
_HINTS = {
    "background": "the background with empty boxes",
    "collage": "the boxes filled smoothly, with the references pasted over",
    "overlay": "the background with the references pasted over",
    "layers": "three layers, the background with references back to front, front to back, and without",
}
_BUNDLED_LIMITS = [
    "It has never seen a photograph but for textures and panoramas: glossy and translucent things, hair and people it "
    "pastes well and shades by habit.",
    "Its estimate of the light was trained on few scenes. On photographs it is often unsure, and objects then have "
    "contact shadows only; `--light` says where the lamp is.",
    "Of three or more objects, the middle one of a stack is in front of all others in neither of the two pastes.",
]


@dataclass(frozen=True)
class Figures:
    """What `pics eval` measured.

    Attributes:
        dataset: name of the evaluation.
        cases: number of them.
        table: of means by method, Markdown.
        metrics: name, title and mean of each metric of the model.
    """

    dataset: str
    cases: int
    table: str
    metrics: tuple[tuple[str, str, float], ...]


def model_card(
    folder: Path, *, name: str | None = None, figures: Figures | None = None, sheet: str | None = None
) -> str:
    """The text of a model's card.

    Args:
        folder: the model folder.
        name: its repository on the hub; None: not known yet.
        figures: measured of this model.
        sheet: name of a picture of samples that will lie beside the card.

    Raises:
        PicsError: no model folder, or a file of it that cannot be read.
    """
    config = ModelConfig.load(folder)
    conversion, training = (_read_json(folder / file) for file in (CONVERSION_FILE, TRAINING_FILE))
    autoencoder = (_read_json(folder / "vae" / "config.json") or {}).get("_class_name")
    bundled = _is_bundled(folder)
    title = name.rpartition("/")[2] if name else BUNDLED_NAME if bundled else "PICS model"
    licence = licences.BUNDLED if bundled else licence_of(
        config, has_vae=autoencoder != "PixelAutoencoder", conversion=conversion
    )  # fmt: skip
    text = ModelCard.from_template(
        _card_data(folder, config, training, licence, title, figures),
        template_str=_TEMPLATE.read_text(encoding="utf-8"),
        name=title,
        model=name or "FOLDER",
        about="The model that comes with the package: small enough for a CPU, trained on drawn and path-traced scenes "
        "whose truth is known." if bundled else None,
        untrained=not (config.trained_steps or conversion),
        sheet=sheet,
        rows=list(_rows(folder, config)),
        for_diffusers=(folder / PIPELINE_FILE).is_file(),
        training=list(_training_lines(config, conversion, training)),
        figures=figures,
        limits=[*_limits(config), *(_BUNDLED_LIMITS if bundled else [])],
        licence=None if licence is None else licence.text,
    ).content  # fmt: skip
    text = f"{text.rstrip()}\n"
    return f"{text}\n<!-- written by pics, sha256 {_sha256(text)}: replaced for as long as it is unchanged -->\n"


def write_card(folder: Path) -> None:
    """Write the card of a model folder, unless there is one."""
    if not (folder / CARD_FILE).exists():
        with AtomicFile(folder / CARD_FILE) as file:
            file.write(model_card(folder).encode())


def read_own_card(folder: Path) -> str | None:
    """The card of a model folder where somebody wrote or changed it; None: there is none, or one that pics wrote."""
    try:
        text = read_file(folder / CARD_FILE).decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise PicsError(
            f"{folder / CARD_FILE}: cannot be read: {reason_of(error)}", "a model card is text in UTF-8"
        ) from None
    found = _MARK.search(text)
    return None if found and _sha256(_MARK.sub("", text)) == found[1] else text


def keep_own_card(old: Path, new: Path) -> None:
    """Copy a card that somebody wrote, and the pictures beside it, from a model folder to the one that replaces it."""
    if read_own_card(old) is None:
        return
    for path in [old / CARD_FILE, *sorted(old.iterdir())]:
        if path.name == CARD_FILE or path.suffix.lower() in PICTURES:
            shutil.copyfile(path, new / path.name)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _card_data(
    folder: Path,
    config: ModelConfig,
    training: Mapping[str, Any] | None,
    licence: Licence | None,
    title: str,
    figures: Figures | None,
) -> ModelCardData:
    """The YAML header; what is not known is left out."""
    measured = [] if figures is None else [
        EvalResult("image-to-image", figures.dataset, figures.dataset, metric, value, metric_name=title)
        for metric, title, value in figures.metrics
    ]  # fmt: skip
    return ModelCardData(
        license=None if licence is None else licence.id,
        license_name=None if licence is None else licence.name,
        license_link=None if licence is None else licence.link,
        library_name="diffusers" if (folder / PIPELINE_FILE).is_file() else "pics-cli",
        pipeline_tag="image-to-image",
        base_model=[base.partition("@")[0] for base in config.base_models] or None,
        datasets=sorted((training or {}).get("data", {})) or None,
        tags=TAGS,
        model_name=title if measured else None,
        eval_results=measured or None,
    )


def _rows(folder: Path, config: ModelConfig) -> Iterator[tuple[str, str]]:
    count, size, types = _weights(folder)
    yield "what it sees", f"a square of {config.image_size}×{config.image_size} pixels around the objects"
    yield "weights", f"{count / 1e6:,.1f} million parameters, {size / 1e6:,.1f} MB, {' and '.join(sorted(types))}"
    pixels = f"the pixels themselves, {config.downsampling}×{config.downsampling} of them at a position"
    latent = f"{config.latent_channels} channels, {config.downsampling} times smaller than the picture"
    yield "latent", pixels if config.on_pixels else latent
    shadows = "; and shadow maps of the objects" if config.shadows else ""
    yield "control image", _HINTS[config.hint] + shadows
    yield "objects", f"any number; trained with {config.objects}" if config.trained_steps else "any number"
    guidance = "no guidance" if config.guidance == 1 else f"guidance {config.guidance:g}"
    yield "sampling", f"{config.scheduler}, {config.steps} step{'s' * (config.steps > 1)}, {guidance}"
    if config.fill < 1:
        yield "regions", f"an object takes {config.fill:.0%} of its region's sides, the rest is room for its shadow"


def _training_lines(
    config: ModelConfig, conversion: Mapping[str, Any] | None, training: Mapping[str, Any] | None
) -> Iterator[str]:
    if conversion is not None:
        files = ", ".join(f"`{source['name']}`" for source in conversion.get("sources", {}).values())
        yield f"Converted from a checkpoint of the PICS research code: {files}."
    if config.base_models:
        yield f"Started from {', '.join(f'`{base}`' for base in config.base_models)}."
    if config.trained_steps:
        batch = f" of {training['batch_size']} samples" if training else ""
        yield f"{config.trained_steps:,} optimiser steps{batch}."
    for name, shards in sorted((training or {}).get("data", {}).items()):
        yield f"Trained on `{name}`: {shards['samples']:,} samples, contents sha256 `{shards['contents'][:16]}…`."
    named = {shards["contents"] for shards in (training or {}).get("data", {}).values()}
    if others := [contents for contents in config.trained_on if contents not in named]:
        listed = ", ".join(f"`{contents[:16]}…`" for contents in others)
        yield f"{'Before that on s' if named else 'S'}ets of shards whose contents have the sha256 {listed}."
    if config.recipe_hash is not None:
        recipe = f" `{training['recipe']}`," if training else ""
        yield f"Recipe{recipe} hash `{config.recipe_hash}`."


def _limits(config: ModelConfig) -> Iterator[str]:
    yield "It is told where each object goes; it does not choose places, and reads no text."
    if config.hint == "background" or not config.correct_hint:
        yield (
            f"What it paints is seen at {config.image_size}×{config.image_size} and enlarged where the square is "
            "larger than that: fine detail of references, such as lettering, is not kept."
        )
    else:
        yield (
            "It takes an object's pose from its reference: where the place needs another view, the object keeps the "
            "view of its reference."
        )
    if config.shadows:
        yield "Shadows end in their regions, and lie on level ground: they do not bend at what they climb."


def _weights(folder: Path) -> tuple[int, int, set[str]]:
    """Number of parameters, bytes and data types of the weights in a model folder.

    Raises:
        PicsError: a damaged file.
    """
    count, size, types = 0, 0, set[str]()
    for path in sorted(folder.glob("*/*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                tensors = [file.get_slice(key) for key in file.keys()]  # noqa: SIM118
                for tensor in tensors:
                    count += math.prod(tensor.get_shape())
                    types.add(tensor.get_dtype().lower())
        except (SafetensorError, OSError) as error:
            raise PicsError(f"{path}: damaged: {error}", "copy or convert the model again") from None
        size += path.stat().st_size
    return count, size, types


def _is_bundled(folder: Path) -> bool:
    try:
        return read_file(folder / FILES_FILE) == (MODELS / BUNDLED_NAME / FILES_FILE).read_bytes()
    except OSError:
        return False


def _read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file."""
    try:
        data = load_json(read_file(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise read_error(path, error) from None
    except ValueError as error:
        raise PicsError(f"{path}: unreadable: {error}", "copy the model folder again") from None
    if not isinstance(data, dict):
        raise PicsError(f"{path}: got {type(data).__name__}, expected a JSON object", "copy the model folder again")
    return data
