"""Segment Anything models: their hyperparameters, finding their weights, and reading them without executing pickles."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from pics_cli.core.model.hub import cached_sha256
from pics_cli.core.model.weight_files import read_weights
from pics_cli.core.runtime.files import load_json, read_file
from pics_cli.core.segmentation.checkpoints import CHECKPOINTS, DOWNLOAD, FOLDER
from pics_cli.errors import PicsError, abbreviate

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_OFFICIAL_NAME = re.compile(r"sam_vit_[hlb]_([0-9a-f]{6})\.pth")
# Mean and deviation of SAM's training images by channel, in grey levels.
_MEAN, _DEVIATION = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


@dataclass(frozen=True, kw_only=True)
class SamShape:
    """Hyperparameters of a SAM model; the defaults are those that all official ones share.

    Attributes:
        width, depth, heads: of the image encoder.
        globals: blocks of the encoder with global attention.
        side: of the square input, in pixels.
        patch, window: of the encoder, in pixels and in patches.
        prompt_width, decoder_heads, decoder_mlp: of prompts and mask decoder.
    """

    width: int
    depth: int
    heads: int
    globals: tuple[int, ...]
    side: int = 1024
    patch: int = 16
    window: int = 14
    prompt_width: int = 256
    decoder_heads: int = 8
    decoder_mlp: int = 2048


SHAPES = {
    "vit_h": SamShape(width=1280, depth=32, heads=16, globals=(7, 15, 23, 31)),
    "vit_l": SamShape(width=1024, depth=24, heads=16, globals=(5, 11, 17, 23)),
    "vit_b": SamShape(width=768, depth=12, heads=12, globals=(2, 5, 8, 11)),
}

# For tests and benchmarks: runs in seconds.
TINY = SamShape(
    width=32, depth=2, heads=2, globals=(1,), side=128, patch=16, window=4, prompt_width=32, decoder_heads=2,
    decoder_mlp=64,
)  # fmt: skip


@dataclass(frozen=True)
class SamCheckpoint:
    """A model's weights on disk.

    Attributes:
        name: of the model, or its folder, as the user gave it.
        path: file of the weights.
        sha256: hex digest of that file.
    """

    name: str
    shape: SamShape
    path: Path
    sha256: str


def build_sam(shape: SamShape) -> Any:
    """segment-anything's own network of this shape, with random weights."""
    cells = shape.side // shape.patch
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=shape.side, patch_size=shape.patch, embed_dim=shape.width, depth=shape.depth,
            num_heads=shape.heads, mlp_ratio=4, out_chans=shape.prompt_width, qkv_bias=True, use_rel_pos=True,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), window_size=shape.window,
            global_attn_indexes=shape.globals,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=shape.prompt_width, image_embedding_size=(cells, cells), input_image_size=(shape.side,) * 2,
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3, transformer_dim=shape.prompt_width, iou_head_depth=3, iou_head_hidden_dim=256,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=shape.prompt_width, mlp_dim=shape.decoder_mlp, num_heads=shape.decoder_heads
            ),
        ),
        pixel_mean=_MEAN,
        pixel_std=_DEVIATION,
    ).eval()  # fmt: skip


def save_sam(sam: Any, shape: SamShape, folder: Path) -> None:
    """Write a model of any shape as a folder that `--sam` takes."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(asdict(shape), indent=1) + "\n")
    save_file({name: value.contiguous() for name, value in sam.state_dict().items()}, folder / WEIGHTS)


def find_checkpoint(name: str, checkpoint: Path | None) -> SamCheckpoint:
    """Find a model's weights, and check those of an official file name by their sha256.

    Args:
        name: of an official model, or a folder with config.json and model.safetensors.
        checkpoint: its weights, .pth or .safetensors; None: the official file in `checkpoints/` of the working
            directory, or the folder's own.

    Raises:
        PicsError: unknown name; weights missing; an official file whose sha256 does not match its name.
    """
    if name in SHAPES:
        path = checkpoint or Path(FOLDER, CHECKPOINTS[name])
        if not path.is_file():
            raise PicsError(
                f"{path}: no such checkpoint of Segment Anything ({name})",
                f"get {DOWNLOAD.format(CHECKPOINTS[name])}, put it into {FOLDER}/, or name it with --checkpoint FILE",
            )
        shape = SHAPES[name]
    else:
        shape, path = _read_shape(name), checkpoint or Path(name, WEIGHTS)
        if not path.is_file():
            raise PicsError(f"{path}: no such file", "name the model's weights with --checkpoint FILE")
    digest = cached_sha256(path)
    official = _OFFICIAL_NAME.fullmatch(path.name)
    if official and not digest.startswith(official.group(1)):
        raise PicsError(
            f"{path}: its sha256 begins with {digest[:6]}, not with the {official.group(1)} of its name: damaged, or "
            "another file",
            f"fetch it again: {DOWNLOAD.format(path.name)}",
        )
    return SamCheckpoint(name, shape, path, digest)


def load_sam(checkpoint: SamCheckpoint, device: torch.device, dtype: torch.dtype) -> Any:
    """Load a model onto a device: the image encoder in this precision, prompt encoder and mask decoder in float32.

    Raises:
        PicsError: the file cannot be read, or holds the weights of another model.
    """
    with torch.device("meta"):
        sam = build_sam(checkpoint.shape)
    state = read_weights(checkpoint.path, "is this a checkpoint of SAM 1?")
    expected = {name: value.shape for name, value in sam.state_dict().items()}
    actual = {name: value.shape for name, value in state.items()}
    if expected != actual:
        unknown = [name for name in actual if name not in expected]
        missing = [name for name in expected if name not in actual]
        misshapen = [name for name in expected if name in actual and expected[name] != actual[name]]
        differences = [
            f"{what} {abbreviate(names, 1)}"
            for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", misshapen))
            if names
        ]
        patches = state.get("image_encoder.patch_embed.proj.weight")
        width = 0 if patches is None else patches.shape[0]
        matching = [name for name, shape in SHAPES.items() if width == shape.width]
        hint = f"these look like the weights of --sam {matching[0]}" if matching else "is this a checkpoint of SAM 1?"
        raise PicsError(f"{checkpoint.path}: not the weights of {checkpoint.name}: {'; '.join(differences)}", hint)
    sam.load_state_dict(state, assign=True)
    # Buffers that are not part of a checkpoint.
    sam.pixel_mean, sam.pixel_std = (torch.tensor(values).view(-1, 1, 1) for values in (_MEAN, _DEVIATION))
    sam = sam.float().to(device).requires_grad_(False)
    sam.image_encoder.to(dtype)
    return sam


def _read_shape(name: str) -> SamShape:
    path = Path(name, CONFIG)
    if not path.is_file():
        raise PicsError(
            f"--sam {name}: expected {', '.join(SHAPES)}, or a folder with {CONFIG} and {WEIGHTS}",
            "weights in a file: --sam vit_b --checkpoint FILE"
            if Path(name).is_file()
            else f"such as --sam vit_b with {CHECKPOINTS['vit_b']} in {FOLDER}/",
        )
    try:
        given = load_json(read_file(path))
        return SamShape(**{**given, "globals": tuple(given["globals"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        allowed = ", ".join(SamShape.__dataclass_fields__)
        raise PicsError(f"{path}: not the shape of a model: {error}", f"it has these keys: {allowed}") from None
