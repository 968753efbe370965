"""The encoder of references against transformers' own class, and files that both read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Dinov2Config, Dinov2Model

from pics_cli.core.model.dinov2 import Dinov2Encoder

SHAPE: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 28}


def transformers_model(**options: Any) -> Dinov2Model:
    """With random weights, none of them zero or one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Dinov2Model(Dinov2Config(**{**SHAPE, **options})).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, 0.5, 0.3)
    return model


def pictures() -> Tensor:
    return torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", [{}, {"use_swiglu_ffn": True}, {"qkv_bias": False, "mlp_ratio": 2}])
@torch.no_grad()
def test_features_are_those_of_transformers(tmp_path: Path, options: dict[str, Any]) -> None:
    """Read from what transformers has written; and transformers reads what this one writes."""
    theirs = transformers_model(**options)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Dinov2Encoder.from_pretrained(tmp_path / "theirs")
    expected = theirs(pixel_values=pictures()).last_hidden_state
    torch.testing.assert_close(ours(pictures()).last_hidden_state, expected, rtol=1e-4, atol=1e-4)
    assert {ours.config[name] for name in SHAPE} == set(SHAPE.values())

    ours.save_pretrained(tmp_path / "ours")
    again, report = Dinov2Model.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    torch.testing.assert_close(again(pixel_values=pictures()).last_hidden_state, expected, rtol=1e-5, atol=1e-5)
    for name in (*SHAPE, *options):
        assert getattr(again.config, name) == getattr(theirs.config, name)


def test_new_weights_are_drawn_as_transformers_draws_them() -> None:
    """Deviation 0.02 cut off at 2, biases 0, norms and layer scales 1; positions not zero."""
    torch.manual_seed(0)
    ours = Dinov2Encoder(hidden_size=192, num_hidden_layers=2, num_attention_heads=3, image_size=112)
    theirs = Dinov2Model(Dinov2Config(hidden_size=192, num_hidden_layers=2, num_attention_heads=3, image_size=112))
    for part, expected in (
        ("mlp.fc1.weight", theirs.encoder.layer[0].mlp.fc1.weight),
        ("position_embeddings", theirs.embeddings.position_embeddings),
        ("projection.weight", theirs.embeddings.patch_embeddings.projection.weight),
    ):
        found = next(value for name, value in ours.named_parameters() if name.endswith(part))
        assert float(found.detach().std()) == pytest.approx(float(expected.detach().std()), rel=0.1)
        assert found.shape == expected.shape
    for name, value in ours.named_parameters():
        if name.endswith((".bias", "mask_token")):
            assert not value.any(), name
        if ("norm" in name and name.endswith("weight")) or "lambda1" in name:
            assert value.eq(1).all(), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "vit"}, "model_type is vit, expected dinov2"),
        ({"hidden_act": "relu"}, "hidden_act is relu, expected gelu"),
        ({"drop_path_rate": 0.1}, "drop_path_rate is 0.1, expected 0.0"),
        ({"num_attention_heads": 5}, "5 do not divide hidden_size 24"),
    ],
)
def test_what_it_cannot_compute_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    Dinov2Encoder(**SHAPE).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ValueError, match=message):
        Dinov2Encoder.from_pretrained(tmp_path)


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"pictures of \[56, 56\], expected a side of 28"):
        Dinov2Encoder(**SHAPE)(torch.zeros(1, 3, 56, 56))
