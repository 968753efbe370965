"""The configuration of a model: `pics.json` of a model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from pics_cli.core.model.schedulers import SchedulerName
from pics_cli.core.recipes.validation import CONFIG, RelativePath, between, error_line
from pics_cli.core.runtime.files import load_json, read_file, write_json
from pics_cli.errors import PicsError, reason_of

VERSION = 1
CONFIG_FILE = "pics.json"

PredictionType = Literal["epsilon", "v_prediction", "sample"]
InputScaling = Literal["none", "signal"]
PartName = Literal["unet", "controlnet", "image_encoder", "projector", "vae"]
HintKind = Literal["background", "collage", "overlay", "layers"]
NoiseSchedule = Literal["published", "zero_terminal_snr"]
# What of a repository on the hub is downloaded.
DOWNLOAD_PATTERNS = (
    "*.json",
    *(f"{name}/*.{kind}" for name in (*get_args(PartName), "scheduler") for kind in ("json", "safetensors")),
)
# The narrowest context of a Stable Diffusion (1.x); networks that are trained from nothing are far narrower.
FULL_SIZE_CONTEXT_WIDTH = 768
# Shadow maps of each object; see `conditioning.shadows`.
SHADOW_MAPS = ("cast", "ambient", "contact")
Positive = Annotated[int, between(1, float("inf"), True)]


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Link:
    """A reference to a frozen part in another folder or repository."""

    source: str
    """Folder, or repository (`owner/name` or `owner/name@revision`)."""
    folder: RelativePath = ""
    """Where in it the part lies."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Of its files, checked when it is loaded."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ModelConfig:
    """Shape and meaning of a model; the defaults are the published network's."""

    version: Annotated[int, between(1, VERSION, True)] = VERSION
    """Of this file's format."""
    image_size: Positive = 512
    """S, side of the square the network sees."""
    objects: Positive = 2
    """K it was trained with; it takes any number."""
    object_tokens: Positive = 257
    """M, tokens of an object."""
    context_width: Positive = 1024
    """D, width of an object's tokens."""
    reference_size: Positive = 224
    """Side of the square reference."""
    tau: Annotated[float, between(0, float("inf"), False)] = 0.5
    """Temperature of the interaction gate."""
    latent_channels: Positive = 4
    """Channels of the latent."""
    latent_scale: Annotated[float, between(0, float("inf"), False)] = 0.18215
    """Factor on the autoencoder's latent."""
    downsampling: Positive = 8
    """Pixels a latent position stands for, across and down."""
    prediction_type: PredictionType = "epsilon"
    """What the network predicts."""
    correct_hint: bool = False
    """Whether its output is a residual that is added to the latent of the control image."""
    input_scaling: InputScaling = "none"
    """Scaling of the noisy input: `signal` multiplies by √ᾱ_t."""
    noise_schedule: NoiseSchedule = "published"
    """`zero_terminal_snr`: the published one, rescaled so that nothing of the target is left at the last timestep (Lin
    et al., WACV 2024); with `input_scaling` signal the network's input there is zero."""
    hint: HintKind = "background"
    """What the control image shows in the boxes: nothing; a smooth fill with references; the background with
    references; or three layers (background with references back to front, front to back, without), which the network
    blends by a weight for each pixel, lights, and adds a residual to."""
    share_grid: Positive = 1
    """Blend weights (and changes of light) of a latent position, across and down."""
    share_sharpness: Annotated[float, between(0, float("inf"), False)] = 1.0
    """Factor on the logits of the blend weights when pictures are made. Training by squared differences gives each
    layer the weight that is the chance of it being right, and such blends look half transparent: above 1, one is
    chosen."""
    shadows: bool = False
    """With hint `layers` on pixels: the control image also holds the shadow maps of the objects, and the network says
    how strong and of what tint each is; and what it changes fades to nothing at the regions' borders."""
    fill: Annotated[float, between(0.5, 1, True)] = 1.0
    """Object scale: share of a region's sides that an object takes where the control image shows it; the rest is room
    for its shadow."""
    scheduler: SchedulerName = "dpm++"
    """Scheduler used where the user names none."""
    steps: Positive = 20
    """Denoising steps, likewise."""
    guidance: Annotated[float, between(1, float("inf"), True)] = 5.0
    """Guidance weight, likewise; 1: no unconditional branch."""
    trained_steps: Annotated[int, between(0, float("inf"), True)] = 0
    """Optimiser steps it was trained for; 0: not trained."""
    recipe_hash: str | None = None
    """Of the recipe it was trained with."""
    trained_on: list[str] = field(default_factory=list)
    """Sets of shards it was trained on, its base model's among them: `ShardSet.contents_sha256`, sorted."""
    base_models: list[str] = field(default_factory=list)
    """Repositories on the hub that its weights were started from."""
    links: dict[PartName, Link] = field(default_factory=dict)
    """Frozen parts that lie elsewhere, by name."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.correct_hint and self.prediction_type != "sample":
            raise PydanticCustomError("correction", "prediction_type sample where correct_hint is true")
        if self.hint == "layers" and not self.correct_hint:
            raise PydanticCustomError("layers", "correct_hint true where hint is layers")
        if self.share_grid != 1 and not (self.gain_channels and self.share_grid <= self.downsampling):
            raise PydanticCustomError(
                "grid", "share_grid 1, or at most downsampling where hint is layers and the latent holds pixels"
            )
        if self.shadows and not self.gain_channels:
            raise PydanticCustomError(
                "shadows", "shadows false where hint is not layers, or the latent holds no pixels"
            )
        if self.noise_schedule != "published" and self.prediction_type == "epsilon":
            raise PydanticCustomError("noise", "noise_schedule published where prediction_type is epsilon")
        if self.image_size % self.downsampling:
            raise PydanticCustomError("size", "an image_size that downsampling divides")
        return self

    @property
    def full_size(self) -> bool:
        """Whether the networks are as large as Stable Diffusion's; on a CPU, precision `auto` depends on it."""
        return self.context_width >= FULL_SIZE_CONTEXT_WIDTH

    @property
    def latent_size(self) -> int:
        """Side of the latent."""
        return self.image_size // self.downsampling

    @property
    def hint_layers(self) -> int:
        """L, layers of the control image."""
        return 3 if self.hint == "layers" else 1

    @property
    def logit_channels(self) -> int:
        """Channels of the network's output that are logits of the layers' blend weights; 0 where there is one layer."""
        return self.hint_layers * self.share_grid**2 if self.hint_layers > 1 else 0

    @property
    def gain_channels(self) -> int:
        """Channels that are logarithms of factors on the colours; 0 where the latent does not hold pixels."""
        return 3 * self.share_grid**2 if self.logit_channels and self.on_pixels else 0

    @property
    def strength_channels(self) -> int:
        """Channels that say how strong each shadow map is in each colour."""
        return 3 * len(SHADOW_MAPS) * self.share_grid**2 if self.shadows else 0

    @property
    def on_pixels(self) -> bool:
        """Whether the latent holds the pixels themselves."""
        return self.latent_channels == 3 * self.downsampling**2

    @property
    def window_size(self) -> int:
        """Length in pixels that window sizes are relative to: S, since what the network paints is blurred when it is
        enlarged; a quarter where a residual is applied at the picture's own resolution, which blurs nothing."""
        return self.image_size // 4 if self.correct_hint and self.on_pixels else self.image_size

    @property
    def output_channels(self) -> int:
        """Channels of the network's output."""
        return self.latent_channels + self.logit_channels + self.gain_channels + self.strength_channels

    @property
    def hint_channels(self) -> int:
        """Channels of the hint: the control image's layers and shadow maps, and the kind of each pixel."""
        return 3 * self.hint_layers + self.shadow_channels + 1

    @property
    def shadow_channels(self) -> int:
        """Channels of the control image that are shadow maps: of the objects back to front, then front to back."""
        return 2 * len(SHADOW_MAPS) if self.shadows else 0

    def save(self, folder: Path) -> None:
        """Write `pics.json`."""
        write_json(folder / CONFIG_FILE, asdict(self))

    @classmethod
    def load(cls, folder: Path) -> ModelConfig:
        """Read `pics.json` of a model folder.

        Raises:
            PicsError: no model folder, one of a newer version, or a value that is not allowed.
        """
        path = folder / CONFIG_FILE
        try:
            data = load_json(read_file(path))
        except (FileNotFoundError, NotADirectoryError):
            raise PicsError(
                f"{folder}: not a model folder of pics (no {CONFIG_FILE} in it)",
                run_hint(folder)
                or f"a folder that `--model` takes holds {CONFIG_FILE}, unet/, controlnet/ and more; research "
                "checkpoints: pics convert CKPT OUT",
            ) from None
        except (OSError, ValueError) as error:
            raise PicsError(f"{path}: unreadable: {reason_of(error)}", "copy the model folder again") from None
        if not isinstance(data, dict):
            raise PicsError(f"{path}: got {type(data).__name__}, expected a JSON object", "copy the model folder again")
        version = data.get("version")
        if isinstance(version, int) and version > VERSION:
            raise PicsError(
                f"{path}: version {version} is newer than this pics knows ({VERSION})", "update pics: pip install -U"
            )
        return cls.parse(data, path)

    @classmethod
    def parse(cls, data: dict[str, Any], path: Path) -> ModelConfig:
        """Validate the contents of a `pics.json`.

        Raises:
            PicsError: with every error.
        """
        try:
            return TypeAdapter(cls).validate_json(json.dumps(data), strict=True)
        except ValidationError as error:
            lines = [error_line(cls, path, detail, {}) for detail in error.errors()]
            raise PicsError("\n".join(lines), "was this model saved by another version of pics?") from None


def checked_config(values: Mapping[str, Any], base: ModelConfig | None = None) -> ModelConfig:
    """A configuration of values from the `model` section of a training recipe.

    Args:
        values: of `ModelConfig`.
        base: has the other values; None: they are as published.

    Raises:
        PicsError: with every error.
    """
    try:
        return replace(base or ModelConfig(), **values)
    except ValidationError as error:
        lines = [error_line(ModelConfig, Path("model"), detail, {}) for detail in error.errors()]
        raise PicsError("\n".join(lines), "change the recipe's model section") from None


def run_hint(folder: Path) -> str | None:
    """What to do where a model is looked for in, or right below, the folder of a training run; None: it is none."""
    run = next((path for path in (folder, folder.parent) if (path / "checkpoints").is_dir()), None)
    if run is None:
        return None
    if (run / "model").is_dir():
        return f"{run} is a training run; its model: {run / 'model'}"
    return (
        f"{run} is a training run that has not ended; its newest checkpoint as a model: the command that trains, "
        "with --export models/NAME"
    )
