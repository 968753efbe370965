"""Sections of a training recipe: one class for each mapping of the file."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic.dataclasses import dataclass

from pics_cli.core.recipes.validation import CONFIG, NOT_EMPTY, Name, Text, UserPath, between, require

Fraction = Annotated[float, between(0, 1, True)]
PositiveInt = Annotated[int, between(1, math.inf, True)]
NonNegativeInt = Annotated[int, between(0, math.inf, True)]
PositiveFloat = Annotated[float, between(0, math.inf, False)]
NonNegativeFloat = Annotated[float, between(0, math.inf, True)]
TrainedParts = Literal["published", "experts", "full", "lora"]
Attention = Literal["attn1", "attn2", "attn_bg"]
Timesteps = Literal["published", "uniform", "high_noise"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
BelowOne = Annotated[float, require(lambda value: 0 <= value < 1, "0 <= value < 1")]
EpochShare = Annotated[float, require(lambda share: 0 < share <= 1, "0 < value <= 1: a share of every epoch")]
Ratios = Annotated[
    tuple[float, float], require(lambda pair: 1 <= pair[0] <= pair[1] <= 4, "[low, high] with 1 <= low <= high <= 4")
]


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class AugmentSettings:
    """How references and boxes are varied: the paper's geometry-aware augmentation, in and out of the plane."""

    flip: Fraction = 0.5
    """Share of the references that are mirrored left to right."""
    rotation: Annotated[float, between(0, 180, True)] = 10.0
    """Degrees by which a reference is turned in its plane at most."""
    perspective: Annotated[float, between(0, 60, True)] = 20.0
    """Degrees by which it is turned out of its plane at most."""
    scale: Ratios = (1.1, 1.4)
    """Side of the reference over the longer side of the object in it, drawn between these two."""
    brightness: Annotated[float, between(0, 1, True)] = 0.1
    """Most that is added to or taken from its values, as a share of white."""
    contrast: Annotated[float, between(0, 1, True)] = 0.1
    """Most by which its values are stretched or squeezed around their mean, as a share."""
    exposure: Annotated[float, between(0, 4, True)] = 0.0
    """Stops by which a reference is lighter or darker than it was, at most."""
    temperature: Annotated[
        tuple[float, float],
        require(
            lambda pair: 1500 <= pair[0] <= 5500 <= pair[1] <= 20000,
            "[low, high] with 1500 <= low <= 5500 <= high <= 20000",
        ),
    ] = (5500.0, 5500.0)
    """Colour temperatures of its light, in kelvin, lowest and highest; 5500 leaves it as it is."""
    relit: Fraction = 0.4
    """Share of the references whose exposure and temperature are anywhere in these ranges; the others nearly fit their
    scene, as those that people choose do."""
    dirt: Fraction = 0.0
    """Share of the references with blur, grain, JPEG's blocks or an outline that is cut a little wrong."""
    light_jitter: Annotated[float, between(0, 90, True)] = 10.0
    """For a model with shadows: degrees by which the lamp's direction is off at most, its height by half of that."""
    light_dropout: Fraction = 0.25
    """Likewise: share of the samples whose lamp the model is not told."""
    shadow_room: Annotated[float, between(0, 2, True)] = 0.5
    """Likewise: by which share of their sides regions are wider for shadows alone, at most; half of them are not."""
    alternate: Fraction = 1.0
    """Share of the references taken from the object's alternative view, where the data has one."""
    absent: Fraction = 0.0
    """Share of the samples, where the data has the background alone, that show no object and are to become that."""
    crop: Literal["full", "auto"] = "full"
    """What the network sees of a picture: all of it, as published, or the square around the regions that `pics infer`
    takes by default."""
    box_growth: Ratios = (1.0, 1.2)
    """Side of the region over that of the object's box, drawn between these two for each side."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class TrainingSet:
    """Shards that take part in the mixture."""

    shards: UserPath
    """Folder of .tar files, or files with {00000..00010}, * or ? in their names; under data.root unless it is an
    absolute path, a http(s) address or a `pipe:` command. {split} stands for train, and for val where there is such a
    folder."""
    repeat: PositiveFloat = 1.0
    """How often each sample is seen in an epoch."""
    recipe: Name | None = None
    """Dataset recipe that builds these shards, for the message where they are missing."""
    fetch: Text | None = None
    """Where shards made by others can be fetched, for the same message."""
    augment: AugmentSettings | None = None
    """How its references are varied; none: as the recipe says for all."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class DataSettings:
    """The mixture, and how it is read."""

    root: UserPath = "data"
    """Folder that the shards are looked for in."""
    sets: Annotated[dict[Name, TrainingSet], NOT_EMPTY]
    """The sets of shards, by name."""
    epoch_share: EpochShare = 1.0
    """Share of every epoch's samples that is used."""
    workers: Annotated[int, between(0, 256, True)] = 4
    """Processes that read samples, for each GPU; 0: the training process itself."""
    cache_gb: PositiveFloat = 50.0
    """Room for shards fetched from elsewhere, in GB, for all of a machine's processes together."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ModelShape:
    """A new network of a size of one's own, from random weights, with a small encoder of the references."""

    block_out_channels: Annotated[tuple[PositiveInt, ...], NOT_EMPTY] = (64, 128)
    """Channels of each level of the UNet."""
    layers_per_block: PositiveInt = 1
    """Residual blocks of a level."""
    attention_levels: Annotated[tuple[bool, ...], NOT_EMPTY] = (True, True)
    """Which levels have interaction blocks; the middle always has one."""
    head_width: PositiveInt = 32
    """Channels of an attention head, of all attentions but the gate's."""
    norm_groups: PositiveInt = 16
    """Groups of the group norms."""
    context_width: PositiveInt = 128
    """D, width of an object's tokens."""
    hint_widths: Annotated[tuple[PositiveInt, ...], NOT_EMPTY] = (16, 32, 64, 64)
    """Channels of the hint embedding's convolutions; all but the first halve the resolution."""
    encoder_width: PositiveInt = 128
    """Width of the encoder of the references (a DINOv2 with random weights)."""
    encoder_layers: PositiveInt = 3
    """Layers of that encoder."""
    encoder_heads: PositiveInt = 4
    """Attention heads of that encoder."""
    encoder_patch: PositiveInt = 14
    """Side of that encoder's patches, in pixels."""
    patch: PositiveInt = 8
    """Side of the pixel block that one latent position holds, without any loss: the place of an autoencoder."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ModelSettings:
    """What training starts from; what is not said here is as the base model has it, else as published."""

    base: UserPath | None = None
    """Stable Diffusion in diffusers' layout, or a model of pics to go on from: folder or repository; none: 2.1-base."""
    dinov2: UserPath | None = None
    """DINOv2: folder, repository or the original file; none: ViT-g/14."""
    shape: ModelShape | None = None
    """A new network of this shape instead, from random weights."""
    image_size: PositiveInt | None = None
    """S, side of the square the network sees."""
    objects: PositiveInt | None = None
    """K, number of objects it is meant for."""
    reference_size: PositiveInt | None = None
    """Side of the square reference."""
    hint: Literal["background", "collage", "overlay", "layers"] | None = None
    """What the control image shows in the boxes."""
    fill: Annotated[float, between(0.5, 1, True)] | None = None
    """Share of a region's sides that an object takes where the control image shows it; the rest is room for its
    shadow."""
    share_grid: PositiveInt | None = None
    """With hint layers on pixels: blend weights (and changes of light) of a latent position, across and down."""
    share_sharpness: PositiveFloat | None = None
    """Factor on the logits of the blend weights when pictures are made, not in training."""
    prediction_type: Literal["epsilon", "v_prediction", "sample"] | None = None
    """What the network predicts."""
    correct_hint: bool | None = None
    """Whether its output is a residual that is added to the latent of the control image (prediction_type sample)."""
    input_scaling: Literal["none", "signal"] | None = None
    """Scaling of the noisy input: `signal` multiplies by √ᾱ_t."""
    noise_schedule: Literal["published", "zero_terminal_snr"] | None = None
    """`zero_terminal_snr`: nothing of the target is left in the input at the last timestep; for new networks."""
    shadows: bool | None = None
    """With hint layers on pixels: shadow maps of the objects in the control image; changes fade at regions' borders."""
    latent_scale: PositiveFloat | None = None
    """Factor on the latent."""
    scheduler: Literal["ddim", "dpm++", "unipc", "euler", "heun"] | None = None
    """Scheduler that `pics infer` uses where the user names none."""
    steps: PositiveInt | None = None
    """Denoising steps, likewise."""
    guidance: Annotated[float, between(1, math.inf, True)] | None = None
    """Guidance weight, likewise; 1: no unconditional branch."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class LoraSettings:
    """The adapter that `train: lora` trains: W + alpha / rank · B A in place of each projection W of an attention."""

    rank: PositiveInt = 16
    """Rows of A and columns of B; at most the width of the model's narrowest attention."""
    alpha: PositiveFloat | None = None
    """With the rank, the factor on B A; none: the rank, so that it is 1."""
    attentions: Annotated[tuple[Attention, ...], NOT_EMPTY] = ("attn1", "attn2", "attn_bg")
    """Which of an interaction block: `attn1` among the positions, `attn2` to the objects, `attn_bg` from where objects
    overlap to all positions."""

    @property
    def scale(self) -> float:
        """The value of alpha."""
        return float(self.rank if self.alpha is None else self.alpha)


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ObjectiveSettings:
    """The loss that training minimises."""

    loss: Literal["l2", "l1", "relative_l1"] = "l2"
    """Distance of the prediction from its target; `relative_l1`: over the target's brightness around it, so that a
    shadow on dark ground counts as much as on pale (prediction_type sample, on pixels)."""
    light_weight: NonNegativeFloat = 0.0
    """Weight of a further term: how well the model estimates the picture's light (model.shadows)."""
    timesteps: Timesteps = "published"
    """`published`: 30 % of [0, 1000), 70 % of [0, 500); `uniform`; `high_noise`: the noisiest with `noisiest`."""
    noisiest: Fraction = 0.7
    """With `high_noise`: share of the samples that get the noisiest timestep; the others are uniform."""
    dropout: Fraction = 0.1
    """Share of the samples whose objects are all replaced by the unconditional context."""
    min_snr: PositiveFloat | None = None
    """γ of min-SNR-γ weighting (Hang et al., ICCV 2023); none: no weighting."""
    region_weight: PositiveFloat = 1.0
    """Weight of the loss inside the regions against outside."""
    overlap_weight: PositiveFloat = 1.0
    """Weight inside where regions overlap against where they do not: what decides which object is in front."""
    share_weight: NonNegativeFloat = 0.0
    """Weight of a further term: cross-entropy of the blend weights against the layers that show the object that is
    really seen there, by the masks, weighted alike (hint layers)."""
    gradient: NonNegativeFloat = 0.0
    """Weight of a further term: L1 of the difference in gradients of the picture, weighted alike (prediction_type
    sample, on pixels)."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class OptimizerSettings:
    """AdamW and its learning rate."""

    learning_rate: PositiveFloat = 1e-5
    """At its highest."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: as it is, or down to 0 at the last step."""
    warmup: NonNegativeInt = 1000
    """Steps in which it rises from 0."""
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    """Of AdamW."""
    weight_decay: NonNegativeFloat = 0.01
    """Of AdamW."""
    epsilon: PositiveFloat = 1e-8
    """Of AdamW."""
    clip: PositiveFloat | None = 1.0
    """Largest norm of the gradient; none: not clipped."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class EmaSettings:
    """A moving average of the trained weights, which validation and export use."""

    enabled: bool = True
    """Whether it is kept."""
    decay: Fraction = 0.9999
    """At most; early on it is (1 + step) / (10 + step)."""
    device: Literal["same", "cpu"] = "same"
    """Where it lies: `cpu` saves GPU memory and costs time."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ValidationSettings:
    """Validation while it trains, on samples it never trains on."""

    every: PositiveInt = 1000
    """Steps between two validations."""
    samples: PositiveInt = 32
    """Samples of all sets together, of their `val` shards where there are some, else held out of those for training."""
    bins: Annotated[int, between(1, 50, True)] = 5
    """Parts of the noise schedule that the loss is reported for."""
    sheet: NonNegativeInt = 4
    """Samples of which inputs, target and result are drawn."""
    steps: PositiveInt | None = None
    """Denoising steps for that; none: the model's."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class CheckpointSettings:
    """When checkpoints are saved, and which are kept."""

    every: PositiveInt = 1000
    """Steps between two checkpoints."""
    keep: PositiveInt = 2
    """Number of newest checkpoints that are kept."""
    keep_every: PositiveInt | None = None
    """Checkpoints whose step this divides are kept, too."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class LogSettings:
    """What is recorded besides what the terminal shows."""

    every: PositiveInt = 10
    """Steps between two lines of log.jsonl and points in TensorBoard."""
    wandb: bool = False
    """Whether Weights & Biases gets them, too."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ExportSettings:
    """The model folder written at the end."""

    dtype: Literal["fp32", "bf16", "fp16"] = "bf16"
    """Precision of its weights."""
