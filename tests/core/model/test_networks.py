"""UNet and background ControlNet: diffusers' own walk over the layers, the plain path, batches and candidates."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any, cast

import pytest
import torch
from diffusers import ControlNetModel, Transformer2DModel, UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from helpers.diffusers_networks import diffusers_options
from pics_cli.core.images.geometry import Box
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.interaction import InteractionBlock, ObjectContexts
from pics_cli.core.model.layers import transformer_layers
from pics_cli.core.model.regions import Regions
from pics_cli.core.model.sampling import Denoiser
from pics_cli.core.model.unet import InteractionUNet
from reference_block import ReferenceDenoiser

SIZE, SIDE = 64, 8  # of the picture and the latent: levels of 8, 4 and 2 tokens a side
M, D = 5, 16
T = torch.tensor([601])
Networks = tuple[InteractionUNet, BackgroundControlNet]

# (widths, layers per block, attention at each level); the middle always has attention
SHAPES = [
    ((16, 32), 1, (True, True)),
    ((16, 32), 2, (False, True)),
    ((16, 16, 32), 1, (True, True, False)),
    ((16,), 1, (True,)),
]


@cache
def networks(shape: int = 0) -> Networks:
    """A pair with random weights, none zero, and sharp gates, so that an error in any branch shows."""
    widths, layers, attention = SHAPES[shape]
    options = dict(
        block_out_channels=widths, layers_per_block=layers, attention_levels=attention, head_width=8,
        context_width=D, norm_groups=8,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape)
        pair = InteractionUNet(**options), BackgroundControlNet(hint_widths=(8, 8, 8, 8), **options)
        for network in pair:
            for parameter in network.parameters():
                if not parameter.any():
                    nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
            for block in blocks(network):
                with torch.no_grad():
                    block.gate_q.weight *= 6
    for network in pair:
        network.eval().requires_grad_(False)
    return pair


def blocks(network: nn.Module) -> list[InteractionBlock]:
    return [transformer.block for transformer in transformer_layers(network)]


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Relative L2."""
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def masks_of(samples: Sequence[Sequence[Box]]) -> Tensor:
    """bool [B, K, S, S] of boxes in pixels."""
    masks = torch.zeros(len(samples), len(samples[0]), SIZE, SIZE, dtype=torch.bool)
    for row, boxes in enumerate(samples):
        for k, (x0, y0, x1, y1) in enumerate(boxes):
            masks[row, k, y0:y1, x0:x1] = True
    return masks


APART = [(4, 4, 28, 60), (36, 4, 60, 60)]
PARTIAL = [(4, 8, 44, 56), (20, 16, 60, 64)]
NESTED = [(4, 4, 60, 60), (20, 20, 44, 44)]
SAME = [(8, 8, 56, 48), (8, 8, 56, 48)]
SMALL = [(0, 0, 40, 40), (33, 33, 39, 47)]  # overlaps in pixels, in no latent level
BATCH = (PARTIAL, APART, NESTED)


def draw(masks: Tensor, candidates: int = 1, seed: int = 0) -> dict[str, Any]:
    """Inputs of a denoiser for these masks, but for the networks; and latents [B · n, 4, 8, 8]."""
    random = torch.Generator().manual_seed(seed)
    samples, objects = masks.shape[:2]
    return {
        "hint": torch.randn(samples, 4, SIZE, SIZE, generator=random),
        "contexts": torch.randn(samples, objects, M, D, generator=random),
        "null": torch.randn(M, D, generator=random),
        "order_bias": torch.randn(samples, objects, generator=random),
        "masks": masks,
        "latent": torch.randn(samples * candidates, 4, SIDE, SIDE, generator=random),
    }


def denoiser(
    inputs: dict[str, Any], pair: Networks | None = None, plain: bool = False, **options: Any
) -> Denoiser | ReferenceDenoiser:
    given = {name: value for name, value in inputs.items() if name != "latent"}
    kind = ReferenceDenoiser if plain else Denoiser
    return kind(*(pair or networks()), **{"size": (SIDE, SIDE), "guidance": 5.0, **given, **options})


@st.composite
def boxes(draw: st.DrawFn, objects: int) -> list[Box]:
    """Boxes in a 64 × 64 picture: a known arrangement of two, or any; of some, nothing is left at 8 × 8 or 2 × 2."""
    if objects == 2 and draw(st.booleans()):
        return draw(st.sampled_from([APART, PARTIAL, NESTED, SAME, SMALL]))
    found = []
    for _ in range(objects):
        x0, y0 = draw(st.integers(0, 60)), draw(st.integers(0, 60))
        found.append((x0, y0, draw(st.integers(x0 + 2, SIZE)), draw(st.integers(y0 + 2, SIZE))))
    return found


@st.composite
def cases(draw_: st.DrawFn) -> dict[str, Any]:
    objects, samples = draw_(st.integers(1, 4)), draw_(st.integers(1, 3))
    return {
        "masks": masks_of([draw_(boxes(objects)) for _ in range(samples)]),
        "shape": draw_(st.integers(0, len(SHAPES) - 1)),
        "candidates": draw_(st.integers(1, 3)),
        "guided": draw_(st.booleans()),
        "biased": draw_(st.booleans()),
        "uniform": draw_(st.booleans()),
        "seed": draw_(st.integers(0, 99)),
    }


@settings(max_examples=20, deadline=None)
@given(case=cases())
def test_fast_path_equals_plain_path(case: dict[str, Any]) -> None:
    """Routed, cached, folded, both branches together: the same numbers as the equations as they stand."""
    candidates, pair = case["candidates"], networks(case["shape"])
    inputs = draw(case["masks"], candidates, case["seed"])
    if not case["guided"]:
        inputs["null"] = None
    if not case["biased"]:
        inputs["order_bias"] = None
    fast = denoiser(inputs, pair, candidates=candidates, static_shapes=case["uniform"])
    plain = denoiser(inputs, pair, candidates=candidates, plain=True)
    for ours, theirs in zip(fast.residuals(T), plain.residuals(T), strict=True):
        assert distance(ours, theirs) < 1e-5
    assert distance(fast(inputs["latent"], T), plain(inputs["latent"], T)) < 1e-5


class StockBlock(InteractionBlock):
    """An interaction block where diffusers' own forward methods expect a BasicTransformerBlock."""

    place_: tuple[ObjectContexts, Regions]

    def forward(self, hidden_states: Tensor, **others: Any) -> Tensor:  # type: ignore[override]
        assert set(others) >= {"encoder_hidden_states", "timestep"}
        objects, regions = self.place_
        side = int(hidden_states.shape[1] ** 0.5)
        return super().forward(hidden_states, objects, regions.table(side, side))


def stock(kind: Any, network: nn.Module, objects: ObjectContexts, regions: Regions, **options: Any) -> Any:
    """diffusers' own network with the interaction blocks, and the same weights."""
    known: Any = network.config
    shape = ("block_out_channels", "layers_per_block", "attention_levels", "head_width", "context_width", "norm_groups")
    twin = kind(**diffusers_options(**{name: known[name] for name in shape}), **options).eval()
    theirs = (module for module in twin.modules() if isinstance(module, Transformer2DModel))
    for ours, transformer in zip(blocks(network), theirs, strict=True):
        block = StockBlock(ours.norm1.weight.numel(), ours.attn1.heads, 8, D, ours.tau)
        block.place_ = objects, regions
        transformer.transformer_blocks[0] = block
    report = twin.load_state_dict(network.state_dict(), strict=False)
    assert not report.unexpected_keys
    assert set(report.missing_keys) <= {"conv_in.weight", "conv_in.bias"}
    return twin


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@torch.no_grad()
def test_equals_diffusers_own_forward(shape: int) -> None:
    """Stock ControlNet and UNet with our blocks; its input convolution zero, so that the latent does not matter."""
    unet, controlnet = pair = networks(shape)
    inputs = draw(masks_of([PARTIAL, NESTED]))
    inputs["null"] = None
    ours = denoiser(inputs, pair)
    objects, regions = ObjectContexts(inputs["contexts"], inputs["order_bias"]), Regions(inputs["masks"])
    options = {"conditioning_channels": 4, "conditioning_embedding_out_channels": (8, 8, 8, 8)}
    control = stock(ControlNetModel, controlnet, objects, regions, **options)
    for parameter in control.conv_in.parameters():
        parameter.zero_()
    unused = torch.zeros(2, 1, D)
    for latent in (inputs["latent"], torch.randn_like(inputs["latent"])):
        down, middle = control(latent, T, unused, inputs["hint"], return_dict=False)
        for found, expected in zip(ours.residuals(T), (*down, middle), strict=True):
            assert distance(found, expected) < 1e-6
    up = ["CrossAttnUpBlock2D" if here else "UpBlock2D" for here in reversed(SHAPES[shape][2])]
    twin = stock(UNet2DConditionModel, unet, objects, regions, up_block_types=up)
    expected = twin(
        inputs["latent"], T, unused, down_block_additional_residuals=down, mid_block_additional_residual=middle
    )
    assert distance(ours(inputs["latent"], T), expected.sample) < 1e-6


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
@pytest.mark.parametrize("guided", [False, True])
def test_batch_of_different_masks_equals_single_runs(guided: bool, plain: bool) -> None:
    """In the ControlNet's residuals and in the prediction."""
    inputs = draw(masks_of(BATCH))
    if not guided:
        inputs["null"] = None
    together = denoiser(inputs, plain=plain)
    residuals, prediction = together.residuals(T), together(inputs["latent"], T)
    for row in range(len(BATCH)):
        one = {name: value[row : row + 1] for name, value in inputs.items() if name != "null"}
        alone = denoiser({**one, "null": inputs["null"]}, plain=plain)
        for ours, theirs in zip(residuals, alone.residuals(T), strict=True):
            assert distance(ours[row :: len(BATCH)], theirs) < 1e-5
        assert distance(prediction[row], alone(one["latent"], T)[0]) < 1e-5


def test_each_sample_has_its_own_masks() -> None:
    """What the research code gets wrong: there, a batch uses the first sample's masks for all."""
    inputs = draw(masks_of([PARTIAL, APART]))
    wrong = {**inputs, "masks": inputs["masks"][[0, 0]]}
    ours, theirs = (denoiser(one) for one in (inputs, wrong))
    assert distance(ours.residuals(T)[-1][1], theirs.residuals(T)[-1][1]) > 1e-3
    found, other = (one(inputs["latent"], T) for one in (ours, theirs))
    assert distance(found[0], other[0]) < 1e-5
    assert distance(found[1], other[1]) > 1e-3


def test_candidates_share_the_residuals_of_their_composite() -> None:
    """n pictures of each composite at once equal n runs: the ControlNet sees no latent and runs once."""
    n = 3
    inputs = draw(masks_of(BATCH), n)
    together = denoiser(inputs, candidates=n)
    assert all(len(residual) == 2 * len(BATCH) for residual in together.residuals(T))
    prediction = together(inputs["latent"], T).unflatten(0, (-1, n))
    alone = denoiser(inputs)
    for j in range(n):
        latent = inputs["latent"].unflatten(0, (-1, n))[:, j]
        assert distance(prediction[:, j], alone(latent, T)) < 1e-5


def test_guidance_equals_two_separate_branches() -> None:
    """eps_u + w (eps_c - eps_u), though both branches share all that precedes the first cross-attention."""
    inputs = draw(masks_of(BATCH))
    conditional, unconditional = (
        denoiser({**inputs, "null": None, "contexts": contexts})(inputs["latent"], T)
        for contexts in (inputs["contexts"], inputs["null"].expand_as(inputs["contexts"]))
    )
    for weight in (1.0, 5.0):
        expected = unconditional + weight * (conditional - unconditional)
        assert distance(denoiser(inputs, guidance=weight)(inputs["latent"], T), expected) < 1e-5
    assert distance(conditional, unconditional) > 1e-2


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1)])
def test_swapping_objects_with_their_masks_changes_nothing(order: tuple[int, ...]) -> None:
    inputs = draw(masks_of([[*PARTIAL, (12, 30, 50, 50)]]))
    swapped = {**inputs, **{name: inputs[name][:, order] for name in ("contexts", "masks", "order_bias")}}
    assert distance(denoiser(swapped)(inputs["latent"], T), denoiser(inputs)(inputs["latent"], T)) < 1e-5


def test_constants_made_once_equal_those_made_in_every_step() -> None:
    inputs = draw(masks_of(BATCH))
    held, made = denoiser(inputs), denoiser(inputs, cache=False)
    for timestep in (torch.tensor([801]), torch.tensor([1])):
        assert distance(made(inputs["latent"], timestep), held(inputs["latent"], timestep)) < 1e-6


def test_timesteps_of_their_own_equal_single_runs() -> None:
    """As in training: one branch, each sample with its own timestep."""
    inputs = draw(masks_of(BATCH))
    inputs["null"] = None
    timesteps = torch.tensor([1, 400, 999])
    together = denoiser(inputs)(inputs["latent"], timesteps)
    for row in range(len(BATCH)):
        assert distance(together[row], denoiser(inputs)(inputs["latent"], timesteps[row : row + 1])[row]) < 1e-5


def test_bf16_stays_near_float32() -> None:
    inputs = draw(masks_of(BATCH))
    inputs["order_bias"] = None
    exact = denoiser(inputs, guidance=1.5)(inputs["latent"], T)
    pair = networks.__wrapped__()
    for network in pair:
        network.to(torch.bfloat16)
    halved = {name: value.bfloat16() for name, value in inputs.items() if name not in ("masks", "order_bias")}
    found = denoiser({**inputs, **halved}, pair, guidance=1.5)(halved["latent"], T)
    assert found.dtype == torch.bfloat16
    assert distance(found, exact) < 0.1


def test_gradients_of_a_batch_equal_the_plain_paths() -> None:
    """Through UNet and ControlNet, two samples of different masks; every parameter that can matter gets one.

    What a softmax (all keys moved alike) cannot see is left out, and so are constants that a group norm takes away.
    """
    inputs = draw(masks_of([PARTIAL, APART]))
    inputs.update(null=None, order_bias=None)
    grads = []
    for plain in (False, True):
        pair = networks.__wrapped__()
        for network in pair:
            network.requires_grad_()
        denoiser(inputs, pair, plain=plain, cache=False)(inputs["latent"], T).square().mean().backward()
        grads.append({f"{i}.{name}": cast(Tensor, p.grad) for i in (0, 1) for name, p in pair[i].named_parameters()})
    fast, plain_ = grads
    assert all(gradient is not None for gradient in fast.values())
    scale = max(float(gradient.norm()) for gradient in plain_.values())
    for name, gradient in plain_.items():
        if gradient.norm() > 1e-5 * scale:
            assert distance(fast[name], gradient) < 1e-4, name
        else:
            assert fast[name].norm() < 2e-5 * scale, name


def test_controlnet_has_no_input_convolution() -> None:
    """Its hint embedding replaces the latent's; otherwise the names are those of diffusers' class."""
    controlnet = networks()[1]
    names = {name.partition(".")[0] for name in controlnet.state_dict()}
    assert names == {
        "time_embedding", "controlnet_cond_embedding", "down_blocks", "controlnet_down_blocks", "mid_block",
        "controlnet_mid_block",
    }  # fmt: skip


def test_levels_and_attention_must_agree() -> None:
    with pytest.raises(ValueError, match="2 attention_levels for 3 block_out_channels"):
        InteractionUNet(block_out_channels=(8, 8, 8), attention_levels=(True, False))


def test_layout_of_the_weights_changes_nothing() -> None:
    """torch's group norm in channels-last layout loses digits where a group's mean is large; ours must not."""
    unet, controlnet = copy.deepcopy(networks())
    for network in (unet, controlnet):
        for name, parameter in network.named_parameters():
            if name.endswith(("conv_in.bias", "conv1.bias", "conv2.bias")):
                nn.init.constant_(parameter, 30.0)
    inputs = draw(masks_of([PARTIAL, NESTED]))
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        for network in (unet, controlnet):
            network.to(memory_format=layout)
        found.append(denoiser(inputs, (unet, controlnet), plain=layout is torch.contiguous_format)(inputs["latent"], T))
    # torch's own norm is 1e-4 away; convolutions in the two layouts differ by up to 3e-5 on some CPUs.
    assert distance(found[1], found[0]) < 3e-5
