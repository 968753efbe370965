"""Checkpoints with the research code's names, written the way its classes are built: independent of `rename.py`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

State = dict[str, Tensor]

HEAD_WIDTH, CONTEXT = 16, 48


class Maker:
    """Draws tensors for layers that are given by name, none of them zero; on the `meta` device, their shapes alone."""

    def __init__(self, seed: int = 0, device: str = "cpu", context: int = CONTEXT) -> None:
        self.state: State = {}
        self.device, self.context = device, context
        self._random = torch.Generator().manual_seed(seed)

    def draw(self, name: str, *shape: int, around: float = 0.0) -> None:
        if self.device == "meta":
            self.state[name] = torch.empty(shape, device="meta")
            return
        fan = max(1, torch.Size(shape[1:]).numel())
        self.state[name] = around + torch.randn(shape, generator=self._random) * (fan**-0.5 if len(shape) > 1 else 0.1)

    def linear(self, name: str, out: int, inside: int, bias: bool = True) -> None:
        self.draw(f"{name}.weight", out, inside)
        if bias:
            self.draw(f"{name}.bias", out)

    def conv(self, name: str, out: int, inside: int, size: int = 3) -> None:
        self.draw(f"{name}.weight", out, inside, size, size)
        self.draw(f"{name}.bias", out)

    def norm(self, name: str, width: int) -> None:
        self.draw(f"{name}.weight", width, around=1.0)
        self.draw(f"{name}.bias", width)


def network(
    maker: Maker, prefix: str, widths: Sequence[int], blocks: int, attention: Sequence[bool], *, control: bool = False
) -> None:
    """UNet or ControlNet, as `openaimodel.UNetModel` and `cldm.ControlNet` number their blocks."""
    time = 4 * widths[0]

    def residual(name: str, inside: int, out: int) -> None:
        maker.norm(f"{name}.in_layers.0", inside)
        maker.conv(f"{name}.in_layers.2", out, inside)
        maker.linear(f"{name}.emb_layers.1", out, time)
        maker.norm(f"{name}.out_layers.0", out)
        maker.conv(f"{name}.out_layers.3", out, out)
        if inside != out:
            maker.conv(f"{name}.skip_connection", out, inside, 1)

    def transformer(name: str, width: int) -> None:
        maker.norm(f"{name}.norm", width)
        maker.linear(f"{name}.proj_in", width, width)
        maker.linear(f"{name}.proj_out", width, width)
        interaction_block(maker, f"{name}.transformer_blocks.0.", width)

    maker.linear(f"{prefix}time_embed.0", time, widths[0])
    maker.linear(f"{prefix}time_embed.2", time, time)
    maker.conv(f"{prefix}input_blocks.0.0", widths[0], 4)
    number, skips, width = 1, [widths[0]], widths[0]
    for level, out in enumerate(widths):
        for _ in range(blocks):
            residual(f"{prefix}input_blocks.{number}.0", width, out)
            if attention[level]:
                transformer(f"{prefix}input_blocks.{number}.1", out)
            number, width = number + 1, out
            skips.append(width)
        if level < len(widths) - 1:
            maker.conv(f"{prefix}input_blocks.{number}.0.op", width, width)
            number += 1
            skips.append(width)
    residual(f"{prefix}middle_block.0", width, width)
    transformer(f"{prefix}middle_block.1", width)
    residual(f"{prefix}middle_block.2", width, width)
    if control:
        _control(maker, prefix, widths[0], skips)
        return
    number = 0
    for level, out in reversed(list(enumerate(widths))):
        for block in range(blocks + 1):
            residual(f"{prefix}output_blocks.{number}.0", width + skips.pop(), out)
            width = out
            if attention[level]:
                transformer(f"{prefix}output_blocks.{number}.1", out)
            if level and block == blocks:
                maker.conv(f"{prefix}output_blocks.{number}.{2 if attention[level] else 1}.conv", out, out)
            number += 1
    maker.norm(f"{prefix}out.0", width)
    maker.conv(f"{prefix}out.2", 4, width)


def _control(maker: Maker, prefix: str, width: int, skips: Sequence[int]) -> None:
    hint = (4, 16, 16, 32, 32, 96, 96, 256, width)
    for i, (inside, out) in enumerate(pairwise(hint)):
        maker.conv(f"{prefix}input_hint_block.{2 * i}", out, inside)
    for i, skip in enumerate(skips):
        maker.conv(f"{prefix}zero_convs.{i}.0", skip, skip, 1)
    maker.conv(f"{prefix}middle_block_out.0", skips[-1], skips[-1], 1)


def interaction_block(maker: Maker, name: str, width: int) -> None:
    """One block, with the `blend_mlp` that the research code carries along."""
    context = maker.context
    for attention, keys in (("attn1", width), ("attn2", context), ("attn_bg", width)):
        maker.linear(f"{name}{attention}.to_q", width, width, bias=False)
        maker.linear(f"{name}{attention}.to_k", width, keys, bias=False)
        maker.linear(f"{name}{attention}.to_v", width, keys, bias=False)
        maker.linear(f"{name}{attention}.to_out.0", width, width)
    maker.linear(f"{name}ff.net.0.proj", 8 * width, width)
    maker.linear(f"{name}ff.net.2", width, 4 * width)
    for norm in ("norm1", "norm2", "norm3", "norm2g", "norm2b"):
        maker.norm(f"{name}{norm}", width)
    maker.norm(f"{name}norm_c", context)
    maker.linear(f"{name}gate_q", context, width)
    maker.linear(f"{name}k_proj", context, context, bias=False)
    maker.linear(f"{name}v_proj", context, context, bias=False)
    maker.linear(f"{name}blend_mlp.0", int(1.3 * width), 2 * width)
    maker.linear(f"{name}blend_mlp.2", width, int(1.3 * width))


def autoencoder(maker: Maker, prefix: str, widths: Sequence[int], blocks: int) -> None:
    """As `ldm.modules.diffusionmodules.model` numbers its blocks: the decoder's level 0 is the finest, too."""

    def residual(name: str, inside: int, out: int) -> None:
        maker.norm(f"{name}.norm1", inside)
        maker.conv(f"{name}.conv1", out, inside)
        maker.norm(f"{name}.norm2", out)
        maker.conv(f"{name}.conv2", out, out)
        if inside != out:
            maker.conv(f"{name}.nin_shortcut", out, inside, 1)

    def middle(name: str, width: int) -> None:
        residual(f"{name}.block_1", width, width)
        maker.norm(f"{name}.attn_1.norm", width)
        for layer in ("q", "k", "v", "proj_out"):
            maker.conv(f"{name}.attn_1.{layer}", width, width, 1)
        residual(f"{name}.block_2", width, width)

    last = len(widths) - 1
    maker.conv(f"{prefix}encoder.conv_in", widths[0], 3)
    width = widths[0]
    for level, out in enumerate(widths):
        for block in range(blocks):
            residual(f"{prefix}encoder.down.{level}.block.{block}", width, out)
            width = out
        if level < last:
            maker.conv(f"{prefix}encoder.down.{level}.downsample.conv", width, width)
    middle(f"{prefix}encoder.mid", width)
    maker.norm(f"{prefix}encoder.norm_out", width)
    maker.conv(f"{prefix}encoder.conv_out", 8, width)
    maker.conv(f"{prefix}quant_conv", 8, 8, 1)
    maker.conv(f"{prefix}post_quant_conv", 4, 4, 1)
    maker.conv(f"{prefix}decoder.conv_in", width, 4)
    middle(f"{prefix}decoder.mid", width)
    for level in range(last, -1, -1):
        for block in range(blocks + 1):
            residual(f"{prefix}decoder.up.{level}.block.{block}", width, widths[level])
            width = widths[level]
        if level:
            maker.conv(f"{prefix}decoder.up.{level}.upsample.conv", width, width)
    maker.norm(f"{prefix}decoder.norm_out", width)
    maker.conv(f"{prefix}decoder.conv_out", 3, width)


def dinov2(maker: Maker, prefix: str, width: int, depth: int, *, gated: bool = True, side: int = 37) -> None:
    """The original DINOv2's names; position table of `side` × `side` patches of 14 pixels."""
    maker.draw(f"{prefix}cls_token", 1, 1, width)
    maker.draw(f"{prefix}pos_embed", 1, 1 + side**2, width)
    maker.draw(f"{prefix}mask_token", 1, width)
    maker.conv(f"{prefix}patch_embed.proj", width, 3, 14)
    for i in range(depth):
        block = f"{prefix}blocks.{i}"
        maker.norm(f"{block}.norm1", width)
        maker.norm(f"{block}.norm2", width)
        maker.linear(f"{block}.attn.qkv", 3 * width, width)
        maker.linear(f"{block}.attn.proj", width, width)
        maker.draw(f"{block}.ls1.gamma", width, around=1.0)
        maker.draw(f"{block}.ls2.gamma", width, around=1.0)
        if gated:
            hidden = (int(width * 4 * 2 / 3) + 7) // 8 * 8
            maker.linear(f"{block}.mlp.w12", 2 * hidden, width)
            maker.linear(f"{block}.mlp.w3", width, hidden)
        else:
            maker.linear(f"{block}.mlp.fc1", 4 * width, width)
            maker.linear(f"{block}.mlp.fc2", width, 4 * width)
    maker.norm(f"{prefix}norm", width)


def checkpoint(
    seed: int = 0,
    widths: Sequence[int] = (32, 64),
    blocks: int = 1,
    attention: Sequence[bool] = (True, True),
    gated: bool = True,
) -> State:
    """A whole small checkpoint, with what a Lightning run leaves in it besides."""
    maker = Maker(seed)
    network(maker, "model.diffusion_model.", widths, blocks, attention, control=False)
    network(maker, "control_model.", widths, blocks, attention, control=True)
    autoencoder(maker, "first_stage_model.", (32, 32, 64, 64), 1)
    dinov2(maker, "cond_stage_model.model.", 48, 2, gated=gated)
    maker.linear("cond_stage_model.projector", CONTEXT, 48)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    extra = {
        "betas": betas.float(),
        "sqrt_one_minus_alphas_cumprod": (1 - (1 - betas).cumprod(0)).sqrt().float(),
        "log_one_minus_alphas_cumprod": (1 - (1 - betas).cumprod(0)).log().float(),
        "posterior_mean_coef1": torch.ones(1000),
        "logvar": torch.zeros(1000),
        "model_ema.decay": torch.tensor(0.9999),
        "control_scales": torch.ones(13),
    }
    return {**extra, **maker.state}
