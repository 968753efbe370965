"""Where `--features` finds weights, and what it says of those it cannot use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.backbone_files import published_files
from helpers.tiny_encoders import save_dino
from pics_cli.core.evaluation.network_weights import find_encoder, find_published, find_weights
from pics_cli.core.evaluation.networks import ImageEncoder, Lpips
from pics_cli.errors import PicsError

CPU = torch.device("cpu")


def test_known_names_lie_in_torchs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    kept = tmp_path / "hub/checkpoints/alexnet-owt-7be5be79.pth"
    with pytest.raises(PicsError, match="does not exist, and cannot be fetched: HF_HUB_OFFLINE is set") as error:
        find_published("alexnet")
    assert str(kept) in error.value.message
    assert "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth" in str(error.value.hint)
    kept.parent.mkdir(parents=True)
    kept.write_bytes((published_files() / "alexnet.pth").read_bytes())
    with pytest.raises(PicsError, match="not with the 7be5be79 of its name: damaged, or another file"):
        find_published("alexnet")


def test_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(PicsError, match=r"inception-2015-12-05-6726825d\.pth does not exist, and cannot be fetched"):
        find_published("inception")
    assert not list((tmp_path / "hub/checkpoints").iterdir())


def test_published_weights_that_cannot_be_used(tmp_path: Path) -> None:
    assert find_published("facebook/dinov2-base") is None
    with pytest.raises(PicsError, match=r"gone\.pth: no such file"):
        find_published(str(tmp_path / "gone.pth"))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(PicsError, match="neither Inception's weights for FID nor AlexNet's for LPIPS"):
        find_published(str(tmp_path / "other.pth"))
    (tmp_path / "cut.pth").write_bytes((published_files() / "alexnet.pth").read_bytes()[:1000])
    with pytest.raises(PicsError, match=r"a damaged checkpoint|not a checkpoint"):
        find_published(str(tmp_path / "cut.pth"))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(PicsError, match=r"a damaged checkpoint|not a checkpoint"):
        find_published(str(tmp_path / "text.pth"))
    with pytest.raises(PicsError, match="of the kind of"):
        find_weights([str(published_files() / "alexnet.pth"), str(published_files() / "alexnet.pth")])
    state = torch.load(published_files() / "alexnet.pth", weights_only=True)
    del state["features.3.bias"]
    torch.save(state, tmp_path / "part.pth")
    weights = find_published(str(tmp_path / "part.pth"))
    assert weights
    with pytest.raises(PicsError, match=r"part\.pth: not the weights of lpips: Missing key"):
        Lpips(weights, CPU)


def test_encoders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(PicsError, match="no such folder"):
        find_encoder(str(tmp_path / "nowhere"))
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(PicsError, match="model_type 'bert', expected one of dinov2"):
        find_encoder(str(tmp_path / "bert"))
    (tmp_path / "bert/config.json").write_text("[" * 100_000)
    with pytest.raises(PicsError, match=r"no config\.json that could be read: .*nested too deeply"):
        find_encoder(str(tmp_path / "bert"))
    save_dino(tmp_path / "dino")
    state = load_file(tmp_path / "dino/model.safetensors")
    first = next(iter(state))
    save_file({name: value for name, value in state.items() if name != first}, tmp_path / "dino/model.safetensors",
              {"format": "pt"})  # fmt: skip
    with pytest.raises(PicsError, match="not its weights"):
        ImageEncoder(find_encoder(str(tmp_path / "dino")), CPU)
    (tmp_path / "dino/model.safetensors").write_bytes(b"cut")
    with pytest.raises(PicsError, match="cannot be read"):
        ImageEncoder(find_encoder(str(tmp_path / "dino")), CPU)
    (tmp_path / "dino/model.safetensors").unlink()
    with pytest.raises(PicsError, match=r"no \.safetensors file"):
        find_encoder(str(tmp_path / "dino"))
