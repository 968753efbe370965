"""Learnt features: real encoders of transformers, tiny and with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_encoders import save_clip, save_dino

from making import smooth
from pics_cli.core.evaluation.image_encoders import Encoder, cosines, find, reference_crops, square
from pics_cli.errors import PicsError

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["dino", "clip"])
def test_as_transformers_has_it(kind: str, tmp_path: Path) -> None:
    model = (save_dino if kind == "dino" else save_clip)(tmp_path / kind)
    found = find(str(tmp_path / kind))
    assert found.kind == kind
    pictures = [smooth(40, 56, 1), smooth(90, 30, 2)]
    features = Encoder(found, CPU)(pictures)
    side = 28 if kind == "dino" else 32
    batch = np.stack([np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.BICUBIC)) for p in pictures])
    mean, deviation = (np.array(each) for each in ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)))
    pixels = torch.from_numpy(((batch / 255 - mean) / deviation).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        out = model(pixel_values=pixels)
    expected = (out.last_hidden_state[:, 0] if kind == "dino" else out.image_embeds).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-5)
    own = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(cosines(features, features[::-1]), [own[0] @ own[1]] * 2, atol=1e-5)
    assert features.dtype == np.float32
    assert len(Encoder(found, CPU)([])) == 0


def test_crops() -> None:
    found = square(np.zeros((3, 6, 3), np.uint8))
    assert found.shape == (6, 6, 3)
    assert (found[1:4] == 0).all()
    assert (found[[0, 4, 5]] == 255).all()
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2, :, 3] = 255
    (crop,) = reference_crops([rgba])
    assert (crop[:2] == 0).all()
    assert (crop[2:] == 255).all()


def test_what_is_none(tmp_path: Path) -> None:
    with pytest.raises(PicsError, match="no such folder"):
        find(str(tmp_path / "nowhere"))
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(PicsError, match="model_type 'bert', expected one of dinov2"):
        find(str(tmp_path / "bert"))
    save_dino(tmp_path / "dino")
    state = load_file(tmp_path / "dino/model.safetensors")
    first = next(iter(state))
    save_file({name: value for name, value in state.items() if name != first}, tmp_path / "dino/model.safetensors",
              {"format": "pt"})  # fmt: skip
    with pytest.raises(PicsError, match="not its weights"):
        Encoder(find(str(tmp_path / "dino")), CPU)
    (tmp_path / "dino/model.safetensors").write_bytes(b"cut")
    with pytest.raises(PicsError, match="cannot be read"):
        Encoder(find(str(tmp_path / "dino")), CPU)
    (tmp_path / "dino/model.safetensors").unlink()
    with pytest.raises(PicsError, match=r"no \.safetensors file"):
        find(str(tmp_path / "dino"))
