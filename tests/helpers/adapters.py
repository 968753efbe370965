"""Adapters of random matrices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pics_cli.core.inference.record import model_fingerprint
from pics_cli.core.model.adapters import AdapterConfig, save_adapter
from pics_cli.core.model.pics_model import PicsModel

ENDS = tuple(
    f"{attention}.{projection}"
    for attention in ("attn1", "attn2", "attn_bg")
    for projection in ("to_q", "to_k", "to_v", "to_out.0")
)


def make_adapter(
    out: Path, model: Path, *, rank: int = 4, alpha: float = 8.0, seed: int = 0, ends: Sequence[str] = ENDS
) -> Path:
    """An adapter folder of a model folder, strong enough to be seen."""
    network, draw, tensors = PicsModel.from_pretrained(model), torch.Generator().manual_seed(seed), {}
    for part in ("unet", "controlnet"):
        for name, layer in network.parts[part].named_modules():
            if name.endswith(tuple(ends)):
                for letter, shape in (("A", (rank, layer.in_features)), ("B", (layer.out_features, rank))):
                    values = torch.randn(shape, generator=draw) * shape[1] ** -0.5
                    tensors[f"{part}.{name}.lora_{letter}.weight"] = values
    out.mkdir(parents=True)
    fingerprint = model_fingerprint(model)
    save_adapter(out, AdapterConfig(rank, alpha, tuple(ends), str(model), fingerprint, 12, "ab", "0"), tensors)
    return out
