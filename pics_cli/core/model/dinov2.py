"""DINOv2 (Oquab et al., TMLR 2024), the encoder of the references: the features of transformers' `Dinov2Model`.

Files are those that every version of transformers reads and writes, and parameters are named as in them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pics_cli.core.model.saved_module import CONFIG_FILE, SavedModule, keep_arguments

# What transformers' configurations say besides, and the only value that is known here.
_FIXED = {
    "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "drop_path_rate": 0.0,
}  # fmt: skip
_ARCHITECTURE = "Dinov2Model"


class Features(NamedTuple):
    """What the encoder gives, by transformers' name.

    Attributes:
        last_hidden_state: [B, 1 + patches, width], after the final norm: class token first, then patches row by row.
    """

    last_hidden_state: Tensor


class Dinov2Encoder(SavedModule):
    """A vision transformer with a layer scale; arguments as those of transformers' `Dinov2Config`.

    Args:
        hidden_size: width of the tokens.
        num_hidden_layers, num_attention_heads: of the transformer.
        mlp_ratio: inner width of the feed-forwards over that of the tokens; with `use_swiglu_ffn` two thirds of it,
            rounded up to a multiple of 8.
        use_swiglu_ffn: feed-forwards are gated.
        image_size: side of the pictures, of which the position table is.
        patch_size: side of the patches.
        num_channels: of the pictures.
        qkv_bias: the attentions' projections have a bias.
        layer_norm_eps, layerscale_value, initializer_range: of the norms, and of new weights.
        use_mask_token: it has the token for hidden patches, which is unused.

    Raises:
        ValueError: heads do not divide the width.
    """

    weights_name = "model.safetensors"

    @keep_arguments
    def __init__(
        self,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        mlp_ratio: int = 4,
        use_swiglu_ffn: bool = False,
        image_size: int = 224,
        patch_size: int = 14,
        num_channels: int = 3,
        qkv_bias: bool = True,
        layer_norm_eps: float = 1e-6,
        layerscale_value: float = 1.0,
        initializer_range: float = 0.02,
        use_mask_token: bool = True,
    ) -> None:
        super().__init__()
        if hidden_size % num_attention_heads:
            raise ValueError(f"num_attention_heads: {num_attention_heads} do not divide hidden_size {hidden_size}")
        self.embeddings = _Embeddings(hidden_size, image_size, patch_size, num_channels, use_mask_token)
        hidden = int(hidden_size * mlp_ratio)
        layers = (
            _Layer(hidden_size, num_attention_heads, hidden, use_swiglu_ffn, qkv_bias, layer_norm_eps, layerscale_value)
            for _ in range(num_hidden_layers)
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        self.layernorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self._init_weights(initializer_range)

    def forward(self, pixel_values: Tensor) -> Features:
        """Pictures [B, 3, `image_size`, `image_size`], normalised.

        Raises:
            ValueError: pictures of another size.
        """
        if pixel_values.shape[-2:] != (self.config.image_size,) * 2:
            raise ValueError(
                f"pictures of {list(pixel_values.shape[-2:])}, expected a side of {self.config.image_size}"
            )
        tokens = self.embeddings(pixel_values)
        for layer in self.layers:
            tokens = layer(tokens)
        return Features(self.layernorm(tokens))

    @property
    def layers(self) -> Iterable[nn.Module]:
        """The transformer's layers."""
        layers: Any = self.encoder["layer"]
        return iter(layers)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Dinov2Encoder:
        """Of a configuration of transformers.

        Raises:
            ValueError: of another kind of network, or with layers that are not known here.
        """
        if (kind := config.get("model_type", "dinov2")) != "dinov2":
            raise ValueError(f"{CONFIG_FILE}: model_type is {kind}, expected dinov2")
        for name, value in _FIXED.items():
            if config.get(name, value) != value:
                raise ValueError(f"{CONFIG_FILE}: {name} is {config[name]}, expected {value}")
        return cls(**{name: value for name, value in config.items() if name in cls.arguments()})

    def config_text(self) -> str:
        """The contents of `config.json`, as transformers reads it."""
        notes = {"architectures": [_ARCHITECTURE], "model_type": "dinov2"}
        return json.dumps({**self.config, **_FIXED, **notes}, indent=2, sort_keys=True) + "\n"

    def _init_weights(self, deviation: float) -> None:
        """Weights of projections and positions normal, cut off at 2; biases zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=deviation)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for table in (self.embeddings.cls_token, self.embeddings.position_embeddings):
            nn.init.trunc_normal_(table, std=deviation)


class _Embeddings(nn.Module):
    """Patches to tokens, with the class token before them and positions added."""

    def __init__(self, width: int, image_size: int, patch_size: int, channels: int, mask_token: bool) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width)) if mask_token else None
        self.patch_embeddings = nn.ModuleDict({"projection": nn.Conv2d(channels, width, patch_size, stride=patch_size)})
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + (image_size // patch_size) ** 2, width))

    def forward(self, pictures: Tensor) -> Tensor:
        pictures = pictures.to(self.position_embeddings.dtype)
        patches = self.patch_embeddings["projection"](pictures).flatten(2).transpose(1, 2)
        return torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1) + self.position_embeddings


class _Layer(nn.Module):
    """Attention and feed-forward, each scaled and added."""

    def __init__(
        self, width: int, heads: int, hidden: int, gated: bool, qkv_bias: bool, eps: float, scale: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = _Attention(width, heads, qkv_bias)
        self.layer_scale1 = _LayerScale(width, scale)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = _GatedFeedForward(width, hidden) if gated else _FeedForward(width, hidden)
        self.layer_scale2 = _LayerScale(width, scale)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.layer_scale1(self.attention(self.norm1(tokens))) + tokens
        out: Tensor = self.layer_scale2(self.mlp(self.norm2(tokens))) + tokens
        return out


class _Attention(nn.Module):
    """Self-attention."""

    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict({name: nn.Linear(width, width, bias=bias) for name in ("query", "key", "value")})
        self.output = nn.ModuleDict({"dense": nn.Linear(width, width)})

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = (
            projection(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for projection in self.attention.values()
        )
        attended = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.output["dense"](attended.transpose(1, 2).flatten(2))
        return out


class _LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self, width: int, value: float) -> None:
        super().__init__()
        self.lambda1 = nn.Parameter(torch.full((width,), value))

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens * self.lambda1


class _FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return out


class _GatedFeedForward(nn.Module):
    """SwiGLU (Shazeer, "GLU Variants Improve Transformer")."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        self.weights_in, self.weights_out = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        gate, projected = self.weights_in(tokens).chunk(2, dim=-1)
        out: Tensor = self.weights_out(F.silu(gate) * projected)
        return out
