"""Inception for FID and AlexNet for LPIPS: against the packages that define them, with the same random weights."""

from __future__ import annotations

from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from backbone_files import save_alexnet, save_inception
from PIL import Image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import FrechetInceptionDistance

from making import smooth
from pics_cli.core.evaluation.distances import frechet
from pics_cli.core.evaluation.image_encoders import find_all
from pics_cli.core.evaluation.published_networks import Backbone, Inception, Lpips, find_backbone
from pics_cli.errors import PicsError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    save_inception(folder / "inception.pth")
    save_alexnet(folder / "alexnet.pth")
    return folder


def found(path: Path) -> Backbone:
    one = find_backbone(str(path))
    assert one is not None
    return one


def test_inception(files: Path) -> None:
    one = found(files / "inception.pth")
    assert one.kind == "inception"
    model = Inception(one, CPU)
    pictures = [smooth(60, 80, seed) for seed in range(4)]
    features = model(pictures)
    assert features.shape == (4, 2048)
    assert features.dtype == np.float32
    squares = np.stack([np.asarray(Image.fromarray(p).resize((299, 299), Image.Resampling.BICUBIC)) for p in pictures])
    theirs = FeatureExtractorInceptionV3(
        "x", ["2048"], feature_extractor_weights_path=str(files / "inception.pth")
    )(torch.from_numpy(squares).permute(0, 3, 1, 2))[0].numpy()  # fmt: skip
    np.testing.assert_allclose(features, theirs, rtol=1e-5)
    np.testing.assert_allclose(model(pictures[:1]), features[:1], rtol=1e-3, atol=1e-4)
    assert np.ptp(features, axis=0).max() > 1e-3  # pictures differ by it
    assert model([]).shape == (0, 2048)


def test_fid_is_torchmetrics() -> None:
    """Of the same features: torchmetrics takes any network, here one that hands them through."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, (40, 12)), rng.normal(0.3, 1.4, (50, 12))

    class Through(torch.nn.Module):
        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features.flatten(1)

    metric = FrechetInceptionDistance(feature=Through(), input_img_size=(1, 1, 12))
    metric.set_dtype(torch.float64)
    metric.update(torch.from_numpy(a), real=True)
    metric.update(torch.from_numpy(b), real=False)
    assert frechet(b, a) == pytest.approx(float(metric.compute()), rel=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (130, 101)])
def test_lpips_is_its_own_packages(files: Path, size: tuple[int, int]) -> None:
    one, other = smooth(*size, 1), smooth(*size, 2)
    whole, parts = Lpips(found(files / "alexnet.pth"), CPU)(one, other) or pytest.fail("no figure")
    state = torch.load(files / "alexnet.pth", weights_only=True)
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
    same, _ = Lpips(found(files / "alexnet.pth"), CPU)(one, one) or pytest.fail("no figure")
    assert same == 0


def test_small_pictures_have_none(files: Path) -> None:
    assert Lpips(found(files / "alexnet.pth"), CPU)(smooth(63, 90, 1), smooth(63, 90, 2)) is None


def test_known_names_lie_in_torchs_cache(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    kept = tmp_path / "hub/checkpoints/alexnet-owt-7be5be79.pth"
    with pytest.raises(PicsError, match="is not there, and cannot be fetched: HF_HUB_OFFLINE is set") as error:
        find_backbone("alexnet")
    assert str(kept) in error.value.message
    assert "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth" in str(error.value.hint)
    kept.parent.mkdir(parents=True)
    kept.write_bytes((files / "alexnet.pth").read_bytes())
    with pytest.raises(PicsError, match="not with the 7be5be79 of its name: damaged, or another file"):
        find_backbone("alexnet")


def test_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(PicsError, match=r"inception-2015-12-05-6726825d\.pth is not there, and cannot be fetched"):
        find_backbone("inception")
    assert not list((tmp_path / "hub/checkpoints").iterdir())


def test_what_is_none(files: Path, tmp_path: Path) -> None:
    assert find_backbone("facebook/dinov2-base") is None
    with pytest.raises(PicsError, match=r"gone\.pth: no such file"):
        find_backbone(str(tmp_path / "gone.pth"))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(PicsError, match="neither Inception's weights for FID nor AlexNet's for LPIPS"):
        find_backbone(str(tmp_path / "other.pth"))
    (tmp_path / "cut.pth").write_bytes((files / "alexnet.pth").read_bytes()[:1000])
    with pytest.raises(PicsError, match="cannot be read as weights"):
        find_backbone(str(tmp_path / "cut.pth"))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(PicsError, match="cannot be read as weights"):
        find_backbone(str(tmp_path / "text.pth"))
    with pytest.raises(PicsError, match="of the kind of"):
        find_all([str(files / "alexnet.pth"), str(files / "alexnet.pth")])
    state = torch.load(files / "alexnet.pth", weights_only=True)
    del state["features.3.bias"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(PicsError, match=r"part\.pth: not the weights of lpips: Missing key"):
        Lpips(found(tmp_path / "part.pth"), CPU)
