"""Computing layers again for the gradient: the same numbers, in less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pics_cli.core.model.interaction import ObjectContexts
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.regions import Regions
from pics_cli.core.model.tiny_model import tiny_model
from pics_cli.core.training.memory_estimate import MemoryCounter


@pytest.fixture(scope="module")
def tiny() -> PicsModel:
    pipeline = tiny_model()
    for network in (pipeline.unet, pipeline.controlnet):
        network.requires_grad_().train()
    return pipeline


def predict(pipeline: PicsModel, contexts: Tensor, precision: torch.dtype | None = None) -> Tensor:
    """Three samples: overlapping, apart, and none at all."""
    draw = torch.Generator().manual_seed(0)
    masks = torch.zeros(3, 2, 128, 128, dtype=torch.bool)
    masks[0, 0, :80, :80] = masks[0, 1, 40:, 40:] = masks[1, 0, :40] = masks[1, 1, 80:] = True
    timesteps, objects, regions = torch.tensor([1, 400, 999]), ObjectContexts(contexts), Regions(masks)
    hint, latent = torch.randn(3, 4, 128, 128, generator=draw), torch.randn(3, 4, 16, 16, generator=draw)
    with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
        residuals = pipeline.controlnet(pipeline.controlnet.embed_hint(hint), timesteps, objects, regions)
        return pipeline.unet(latent, timesteps, objects, regions, residuals)


def step(pipeline: PicsModel, recompute: bool, **options: Any) -> tuple[Tensor, dict[str, Tensor], int]:
    """The loss, gradients by name, and the peak of memory."""
    for network in (pipeline.unet, pipeline.controlnet):
        network.gradient_checkpointing = recompute
        network.zero_grad()
    contexts = torch.randn(3, 2, 17, 48, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with MemoryCounter() as counter:
        loss = predict(pipeline, contexts, **options).float().square().mean()
        loss.backward()
    assert contexts.grad is not None
    gradients = {"contexts": contexts.grad}
    for name in ("unet", "controlnet"):
        for key, parameter in pipeline.parts[name].named_parameters(prefix=name):
            assert parameter.grad is not None, key
            gradients[key] = parameter.grad
    return loss.detach(), gradients, counter.peak


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_same_loss_and_gradients_in_less_memory(tiny: PicsModel, precision: torch.dtype | None) -> None:
    loss, gradients, peak = step(tiny, recompute=False, precision=precision)
    same_loss, same, lower = step(tiny, recompute=True, precision=precision)
    assert torch.equal(loss, same_loss)
    assert gradients.keys() == same.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, same[name]), name
    # Gradients themselves are part of both.
    held = sum(gradient.nbytes for gradient in gradients.values())
    assert lower - held < 0.6 * (peak - held)


def test_without_a_gradient_nothing_is_computed_again(tiny: PicsModel) -> None:
    contexts, calls = torch.randn(3, 2, 17, 48), []
    blocks = [module for module in tiny.unet.modules() if type(module).__name__ == "InteractionBlock"]
    hooks = [block.register_forward_hook(lambda *_: calls.append(1)) for block in blocks]
    for network in (tiny.unet, tiny.controlnet):
        network.gradient_checkpointing = True
    with torch.no_grad():
        predict(tiny, contexts)
    assert len(calls) == len(blocks)
    predict(tiny, contexts).square().mean().backward()
    assert len(calls) == 3 * len(blocks)
    for hook in hooks:
        hook.remove()
