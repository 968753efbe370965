"""Learnt features and LPIPS: against the packages that define them, with the same random weights."""

from __future__ import annotations

from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from helpers.backbone_files import published_files
from helpers.making import smooth
from helpers.tiny_encoders import save_clip, save_dino
from pics_cli.core.evaluation.network_weights import NetworkWeights, find_encoder, find_published
from pics_cli.core.evaluation.networks import (
    ImageEncoder,
    Inception,
    Lpips,
    cosine_similarity,
    pad_references,
)
from pics_cli.core.images.cutouts import pad_to_square

CPU = torch.device("cpu")


def find(path: Path) -> NetworkWeights:
    weights = find_published(str(path))
    assert weights is not None
    return weights


@pytest.mark.parametrize("kind", ["dino", "clip"])
def test_as_transformers_has_it(kind: str, tmp_path: Path) -> None:
    model = (save_dino if kind == "dino" else save_clip)(tmp_path / kind)
    found = find_encoder(str(tmp_path / kind))
    assert found.kind == kind
    pictures = [smooth(40, 56, 1), smooth(90, 30, 2)]
    features = ImageEncoder(found, CPU)(pictures)
    side = 28 if kind == "dino" else 32
    batch = np.stack([np.asarray(Image.fromarray(p).resize((side, side), Image.Resampling.BICUBIC)) for p in pictures])
    mean, deviation = (np.array(each) for each in ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3)))
    pixels = torch.from_numpy(((batch / 255 - mean) / deviation).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        out = model(pixel_values=pixels)
    expected = (out.last_hidden_state[:, 0] if kind == "dino" else out.image_embeds).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-5)
    own = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(cosine_similarity(features, features[::-1]), [own[0] @ own[1]] * 2, atol=1e-5)
    assert features.dtype == np.float32
    assert len(ImageEncoder(found, CPU)([])) == 0


def test_crops() -> None:
    found = pad_to_square(np.zeros((3, 6, 3), np.uint8))
    assert found.shape == (6, 6, 3)
    assert (found[1:4] == 0).all()
    assert (found[[0, 4, 5]] == 255).all()
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2, :, 3] = 255
    (crop,) = pad_references([rgba])
    assert (crop[:2] == 0).all()
    assert (crop[2:] == 255).all()


def test_inception() -> None:
    weights = find(published_files() / "inception.pth")
    assert weights.kind == "inception"
    model = Inception(weights, CPU)
    pictures = [smooth(60, 80, seed) for seed in range(4)]
    features = model(pictures)
    assert features.shape == (4, 2048)
    assert features.dtype == np.float32
    squares = np.stack([np.asarray(Image.fromarray(p).resize((299, 299), Image.Resampling.BICUBIC)) for p in pictures])
    theirs = FeatureExtractorInceptionV3(
        "x", ["2048"], feature_extractor_weights_path=str(published_files() / "inception.pth")
    )(torch.from_numpy(squares).permute(0, 3, 1, 2))[0].numpy()  # fmt: skip
    np.testing.assert_allclose(features, theirs, rtol=1e-5)
    np.testing.assert_allclose(model(pictures[:1]), features[:1], rtol=1e-3, atol=1e-4)
    assert np.ptp(features, axis=0).max() > 1e-3  # pictures differ by it
    assert model([]).shape == (0, 2048)


@pytest.mark.parametrize("size", [(64, 96), (130, 101)])
def test_lpips_is_its_own_packages(size: tuple[int, int]) -> None:
    one, other = smooth(*size, 1), smooth(*size, 2)
    whole, parts = Lpips(find(published_files() / "alexnet.pth"), CPU)(one, other) or pytest.fail("no figure")
    state = torch.load(published_files() / "alexnet.pth", weights_only=True)
    a, b = (lpips.im2tensor(each) for each in (one, other))
    for spatial in (False, True):
        theirs = lpips.LPIPS(net="alex", pnet_rand=True, spatial=spatial, verbose=False)
        for slice_ in (theirs.net.slice1, theirs.net.slice2, theirs.net.slice3, theirs.net.slice4, theirs.net.slice5):
            for name, layer in slice_.named_children():
                if f"features.{name}.weight" in state:
                    layer.weight.data = state[f"features.{name}.weight"]
                    layer.bias.data = state[f"features.{name}.bias"]
        expected = theirs(a, b).detach()[0, 0].numpy()
        np.testing.assert_allclose(parts if spatial else whole, expected.squeeze(), atol=1e-5)
    assert whole > 1e-3
    assert parts.shape == size
    same, _ = Lpips(find(published_files() / "alexnet.pth"), CPU)(one, one) or pytest.fail("no figure")
    assert same == 0


def test_small_pictures_have_none() -> None:
    assert Lpips(find(published_files() / "alexnet.pth"), CPU)(smooth(63, 90, 1), smooth(63, 90, 2)) is None
