"""Figures of `check_golden.py`: what the research network gave, and how far this one is from it.

B: samples, K: objects, M: object tokens, D: context width, N: tokens, S: picture size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from pics_cli.core.conditioning.network_inputs import prepare_network_inputs
from pics_cli.core.model import layers
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.dinov2 import Dinov2Encoder
from pics_cli.core.model.image_encoder import encode_null_reference, encode_references
from pics_cli.core.model.interaction import InteractionBlock, ObjectContexts
from pics_cli.core.model.key_mapping import KeyMapping, TensorSource, map_dinov2_keys, map_projector_keys, map_unet_keys
from pics_cli.core.model.load_weights import (
    CheckpointPart,
    build_on_meta,
    dinov2_options,
    load_mapped_weights,
    mapping_errors,
    network_options,
)
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.regions import Regions, RegionTable
from pics_cli.core.model.sampling import Denoiser, denoise
from pics_cli.core.model.schedulers import make_scheduler, published_scheduler
from pics_cli.core.model.unet import InteractionUNet
from pics_cli.core.model.weight_files import open_checkpoint
from pics_cli.errors import PicsError
from reference_block import ReferenceDenoiser, reference_blocks

LIMIT = 1e-5
GREY_LEVELS = 1
BETAS = "linspace(sqrt(0.00085), sqrt(0.012), 1000)**2"
_HINT = "is the folder laid out like the project's golden numbers?"


class Figure(NamedTuple):
    """One line: distances of the plain path (None where there is one path only) and of the fast one."""

    name: str
    plain: float | None
    fast: float
    limit: float = LIMIT

    @property
    def good(self) -> bool:
        """Within the limit; not-a-number is not."""
        return all(value <= self.limit for value in (self.plain, self.fast) if value is not None)


class Golden:
    """One file of golden numbers: tensors on the device, and settings.

    Raises:
        PicsError: the file, a tensor or a setting is missing.
    """

    def __init__(self, folder: Path, name: str, device: str) -> None:
        self.path, self.device = folder / f"{name}.safetensors", device
        if not self.path.is_file():
            raise PicsError(f"{self.path}: missing", _HINT)
        self.checkpoint = open_checkpoint(self.path)
        with safe_open(self.path, framework="pt") as file:
            self._settings: dict[str, str] = file.metadata() or {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.checkpoint.shapes:
            raise PicsError(f"{self.path}: tensor {name} is missing", _HINT)
        return self.checkpoint.read(name).to(self.device)

    def setting(self, name: str) -> str:
        if name not in self._settings:
            raise PicsError(f"{self.path}: {name} is missing in its metadata", _HINT)
        return self._settings[name]

    def matching(self, prefix: str) -> list[str]:
        """The tensors whose names begin so, in order."""
        names = sorted(name for name in self.checkpoint.shapes if name.startswith(prefix))
        if not names:
            raise PicsError(f"{self.path}: there are no tensors {prefix}*", _HINT)
        return names

    def part(self, prefix: str) -> CheckpointPart:
        return CheckpointPart(self.checkpoint, prefix)

    def fill(self, module: nn.Module, mapping: KeyMapping, part: CheckpointPart) -> Any:
        """The module with the golden weights, on the device."""
        if problems := mapping_errors(type(module).__name__, module, mapping, part):
            raise PicsError("\n".join(problems), _HINT)
        load_mapped_weights(module, mapping, part, torch.float32)
        return module.to(self.device).eval()


def check_all(folder: Path, device: str = "cpu") -> Iterator[Figure]:
    """Every figure of a folder of golden numbers.

    Raises:
        PicsError: a file, tensor or setting is missing; no such device.
    """
    if device != "cpu" and not torch.cuda.is_available():
        raise PicsError(f"--device {device}: no CUDA device is available", "leave --device out")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    checks = {"block": check_block, "net": check_network, "encoder": check_encoder, "compose": check_compose}
    files = {name: Golden(folder, name, device) for name in checks}
    with torch.inference_mode():
        for name, check in checks.items():
            yield from check(files[name])


def distance(actual: Tensor, reference: Tensor) -> float:
    """Relative L2 distance of the worst sample."""
    if actual.shape != reference.shape:
        raise PicsError(f"an output has shape {tuple(actual.shape)}, the golden one {tuple(reference.shape)}", _HINT)
    apart, size = ((values.double().flatten(1)).norm(dim=1) for values in (actual - reference, reference))
    return float((apart / size.where(size > 0, 1)).max())  # max keeps not-a-number


def compare(
    name: str, run: Callable[[slice, bool], Sequence[Tensor]], expected: Sequence[Tensor], labels: Sequence[str]
) -> Iterator[Figure]:
    """Figures of several outputs, one sample at a time and all at once. `run`: rows, plain or not → outputs."""
    count = len(expected[0])
    for way, rows in (("alone", [slice(b, b + 1) for b in range(count)]), ("batch", [slice(0, count)])):
        paths = []
        for plain in (True, False):
            parts = [run(some, plain) for some in rows]
            paths.append([torch.cat(outputs) for outputs in zip(*parts, strict=True)])
        for label, plain_output, fast_output, reference in zip(labels, *paths, expected, strict=True):
            yield Figure(f"{name}{label}, {way}", distance(plain_output, reference), distance(fast_output, reference))


def check_block(golden: Golden) -> Iterator[Figure]:
    """The interaction block: all tokens, and overlap tokens alone, where the others would hide an error."""
    hidden, contexts = golden["in.hidden"], _objects(golden["in.context"])
    part = golden.part("weights.")
    heads, head_width, tau = (float(golden.setting(name)) for name in ("heads", "head_dim", "tau"))
    block: Any = build_on_meta(
        lambda: InteractionBlock(hidden.shape[-1], int(heads), int(head_width), contexts.shape[-1], tau),
        str(golden.path),
    )
    block = golden.fill(
        block, KeyMapping({key: TensorSource(key) for key in part if not key.startswith("blend_mlp.")}), part
    )
    for words, mask, out in (
        ("overlapping masks", "in.mask", "out.hidden"),
        ("disjoint masks", "in.mask_disjoint", "out.hidden_disjoint"),
    ):
        cover, expected = golden[mask] > 0.5, golden[out]
        overlap = cover.sum(-1) > 1

        def run(rows: slice, plain: bool, cover: Tensor = cover) -> tuple[Tensor]:
            table, objects = RegionTable(cover[rows]), ObjectContexts(contexts[rows])
            caches = None if plain else [block.make_cache(objects, table)]
            with reference_blocks(plain):
                return (block(hidden[rows], replace(objects, caches=caches), table),)

        yield from compare("block, ", run, [expected], [words])
        if overlap.any():
            # Zeros elsewhere leave only the overlap tokens in both norms.
            only = overlap[..., None]
            yield from compare(
                "block, ",
                lambda rows, plain, only=only, run=run: (run(rows, plain)[0] * only[rows],),  # type: ignore[misc]
                [expected * only],
                [f"{words}, overlap tokens"],
            )


def check_network(golden: Golden, converted: PicsModel | None = None) -> Iterator[Figure]:
    """ControlNet residuals, ε, and the latent after a guided DDIM run.

    Args:
        golden: numbers of a UNet and a ControlNet.
        converted: in float32, from a checkpoint with these weights; None: they are taken from `golden`.
    """
    head_width = json.loads(golden.setting("config")).get("num_head_channels", -1)
    if head_width < 1:
        raise PicsError(f"{golden.path}: metadata: config has no num_head_channels", _HINT)
    prefixes = ("model.diffusion_model.", "control_model.")
    unet, controlnet = (
        (converted.unet, converted.controlnet)
        if converted is not None
        else (_network(golden, prefix, head_width) for prefix in prefixes)
    )
    contexts, null = (_objects(golden[f"in.{name}"]) for name in ("context", "uncond_context"))
    masks = (golden["in.mask"] > 0.5).permute(0, 3, 1, 2)
    hint, latent, timestep = golden["in.hint"], golden["in.latent"], golden["in.timestep"]
    size = (latent.shape[2], latent.shape[3])

    def evaluate(rows: slice, plain: bool) -> list[Tensor]:
        regions, objects = Regions(masks[rows]), ObjectContexts(contexts[rows])
        both = [
            objects if plain else replace(objects, caches=layers.make_caches(network, objects, regions, *size))
            for network in (controlnet, unet)
        ]
        with reference_blocks(plain):
            residuals = controlnet(controlnet.embed_hint(hint[rows]), timestep[rows], both[0], regions)
            return [*residuals, unet(latent[rows], timestep[rows], both[1], regions, residuals)]

    names = golden.matching("out.control.")
    labels = [*(f"ControlNet residual {name.rpartition('.')[2]}" for name in names), "noise prediction"]
    expected = [golden[name] for name in (*names, "out.eps")]
    yield from compare("network, ", evaluate, expected, labels)

    steps = golden["out.ddim_timesteps"].tolist()
    if golden.setting("betas") != BETAS or float(golden.setting("eta")) != 0:
        raise PicsError(f"{golden.path}: metadata: expected betas {BETAS} and eta 0", _HINT)
    scheduler = make_scheduler("ddim", published_scheduler(), "epsilon", len(steps))
    scheduler.set_timesteps(len(steps), device=golden.device)
    yield Figure("guided DDIM, timesteps", None, float(scheduler.timesteps.tolist() != steps), 0)

    def guided_ddim(rows: slice, plain: bool) -> tuple[Tensor]:
        scheduler.set_timesteps(len(steps), device=golden.device)
        kind = ReferenceDenoiser if plain else Denoiser
        predict = kind(
            unet,
            controlnet,
            hint=hint[rows],
            contexts=contexts[rows],
            null=null[rows],
            masks=masks[rows],
            size=size,
            guidance=float(golden.setting("guidance")),
        )
        return (denoise(predict, scheduler, golden["in.ddim_noise"][rows], torch.float32),)

    yield from compare("guided DDIM, ", guided_ddim, [golden["out.ddim_latent"]], [f"{len(steps)} steps"])


def _network(golden: Golden, prefix: str, head_width: int) -> Any:
    part = golden.part(f"weights.{prefix}")
    options = network_options(part, head_width)
    kind = BackgroundControlNet if "hint_channels" in options else InteractionUNet
    return golden.fill(build_on_meta(lambda: kind(**options), str(golden.path)), map_unet_keys(part), part)


def check_encoder(golden: Golden) -> Iterator[Figure]:
    """DINOv2's tokens, and contexts after the projector."""
    images = golden["in.image"]
    part, projection = (golden.part(f"weights.cond_stage_model.{name}.") for name in ("model", "projector"))
    width, size = part["cls_token"][-1], images.shape[-1]
    options = dinov2_options(part, width // int(golden.setting("heads")), size)
    module = build_on_meta(lambda: Dinov2Encoder(**options), str(golden.path))
    encoder = golden.fill(module, map_dinov2_keys(part, size // options["patch_size"]), part)
    out, inside = projection["weight"]
    projector = golden.fill(
        build_on_meta(lambda: nn.Linear(inside, out), ""), map_projector_keys(projection), projection
    )
    same = nn.Linear(inside, inside, device=golden.device)
    nn.init.eye_(same.weight)
    nn.init.zeros_(same.bias)
    yield Figure("encoder, tokens", None, distance(encode_references(encoder, same, images), golden["out.tokens"]))
    yield Figure(
        "encoder, contexts", None, distance(encode_references(encoder, projector, images), golden["out.context"])
    )
    null = encode_null_reference(encoder, projector, size, torch.device(golden.device))
    yield Figure("encoder, unconditional context", None, distance(null[None], golden["out.uncond_context"]))


def check_compose(golden: Golden) -> Iterator[Figure]:
    """Preprocessing of every case: grey levels of hint and references, pixels of the masks."""
    for case in golden.setting("cases").split(","):

        def read(name: str, case: str = case) -> Any:
            return golden[f"{case}.{name}"].cpu().numpy()

        count = len(golden.matching(f"{case}.in.box"))
        boxes = [tuple(read(f"in.box{k}").tolist()) for k in range(count)]
        inputs = prepare_network_inputs(
            read("in.background"),
            boxes,
            [read(f"in.reference{k}") for k in range(count)],
            size=len(read("out.hint_rgb")),
            reference_size=len(read("out.reference0")),
        )
        yield Figure(
            f"preprocessing {case}, hint, grey levels", None, _levels(inputs.control_image, read("out.hint_rgb")), 1
        )
        for k in range(count):
            levels = _levels(inputs.references[k], read(f"out.reference{k}"))
            yield Figure(f"preprocessing {case}, reference {k}, grey levels", None, levels, GREY_LEVELS)
        wrong = float((inputs.control_mask != read("out.hint_mask")).sum())
        yield Figure(f"preprocessing {case}, hint's mask, pixels", None, wrong, 0)
        for k in range(count):
            wrong = float((inputs.masks[k] != (read(f"out.mask{k}") > 0.5)).sum())
            yield Figure(f"preprocessing {case}, mask {k}, pixels", None, wrong, 0)


def _levels(actual: Any, reference: Any) -> float:
    if actual.shape != reference.shape:
        raise PicsError(f"a picture has shape {actual.shape}, the golden one {reference.shape}", _HINT)
    return float(np.abs(actual.astype(int) - reference.astype(int)).max())


def _objects(context: Tensor) -> Tensor:
    """[B, M, D, K] to [B, K, M, D]."""
    return context.permute(0, 3, 1, 2).contiguous()
