"""`scripts/check_golden.py`: passes on right numbers, fails on wrong ones, of any shape."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import golden
from golden import Figure, Golden, check_all
from helpers import research
from helpers.in_process import run_script
from pics_cli.core.conditioning.network_inputs import prepare_network_inputs
from pics_cli.errors import PicsError

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_golden.py"
OBJECTS, TOKENS, SIDE, REFERENCE = 3, 5, 64, 56


def boxes(size: int) -> Tensor:
    """Masks [2, size, size, K] of three boxes that overlap, other ones for each sample."""
    masks = torch.zeros(2, size, size, OBJECTS)
    for b in range(2):
        for k in range(OBJECTS):
            low = size // 8 * (k + b)
            masks[b, low : low + size // 2, size // 8 : size // 2 + size // 8 * k, k] = 1
    return masks


def make_block() -> tuple[dict[str, Tensor], dict[str, str]]:
    maker = research.Maker(5)
    research.interaction_block(maker, "weights.", 32)
    maker.draw("in.hidden", 2, 64, 32)
    maker.draw("in.context", 2, TOKENS, research.CONTEXT, OBJECTS)
    apart = torch.zeros(2, 64, OBJECTS)
    for k in range(OBJECTS):
        apart[:, 20 * k : 20 * k + 15, k] = 1
    masks = {"in.mask": boxes(8).flatten(1, 2), "in.mask_disjoint": apart}
    masks["in.mask"][1] = apart[1]  # a sample without overlaps among others
    return {**maker.state, **masks}, {"heads": "2", "head_dim": "16", "tau": "0.5"}


def make_network() -> tuple[dict[str, Tensor], dict[str, str]]:
    maker = research.Maker(6)
    for prefix, control in (("model.diffusion_model.", False), ("control_model.", True)):
        research.network(maker, f"weights.{prefix}", (32, 64), 1, (True, False), control=control)
    maker.draw("in.latent", 2, 4, SIDE // 8, SIDE // 8)
    maker.draw("in.ddim_noise", 2, 4, SIDE // 8, SIDE // 8)
    maker.draw("in.hint", 2, 4, SIDE, SIDE)
    for name in ("context", "uncond_context"):
        maker.draw(f"in.{name}", 2, TOKENS, research.CONTEXT, OBJECTS)
    given = {
        "in.mask": boxes(SIDE),
        "in.timestep": torch.tensor([5, 900]),
        "out.ddim_timesteps": torch.tensor([501, 1]),
    }
    config = json.dumps({"num_head_channels": research.HEAD_WIDTH, "channel_mult": [1, 2]})
    return {**maker.state, **given}, {"config": config, "betas": golden.BETAS, "eta": "0.0", "guidance": "4.0"}


def make_encoder() -> tuple[dict[str, Tensor], dict[str, str]]:
    maker = research.Maker(7)
    research.dinov2(maker, "weights.cond_stage_model.model.", 32, 2, gated=False, side=10)
    maker.linear("weights.cond_stage_model.projector", 24, 32)
    images = torch.rand(2, 3, REFERENCE, REFERENCE, generator=torch.Generator().manual_seed(0))
    return {**maker.state, "in.image": images}, {"heads": "2"}


def make_compose() -> tuple[dict[str, Tensor], dict[str, str]]:
    random = np.random.default_rng(8)

    def picture(height: int, width: int) -> np.ndarray[Any, Any]:
        return random.integers(0, 256, (height, width, 3), dtype=np.uint8)

    background, references = picture(50, 70), [picture(30, 20), picture(10, 40)]
    places = [(3, 4, 30, 40), (20, 10, 60, 45)]
    made = prepare_network_inputs(background, places, references, size=96, reference_size=REFERENCE)
    tensors = {
        "in.background": background,
        "out.hint_rgb": made.control_image,
        "out.hint_mask": made.control_mask,
    }
    for k, (place, reference) in enumerate(zip(places, references, strict=True)):
        tensors |= {f"in.box{k}": np.array(place), f"in.reference{k}": reference}
        tensors |= {f"out.reference{k}": made.references[k], f"out.mask{k}": made.masks[k].astype(np.uint8)}
    return {f"0.{name}": torch.from_numpy(value.copy()) for name, value in tensors.items()}, {"cases": "0"}


def write(folder: Path, name: str, tensors: dict[str, Tensor], settings: dict[str, str]) -> None:
    save_file(
        {key: value.clone(memory_format=torch.contiguous_format) for key, value in tensors.items()},
        folder / f"{name}.safetensors",
        settings,
    )


def fill_in_outputs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the checks with made-up outputs and keep what they computed on the plain path."""
    computed: dict[str, list[Tensor]] = {}

    def keep(name: str, run: Any, expected: Any, labels: Any) -> Iterator[Figure]:
        computed.setdefault(name + labels[0], [value.clone() for value in run(slice(0, 2), True)])
        yield Figure(name, 0, 0)

    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(golden, "compare", keep)
        block, settings = make_block()
        write(
            folder,
            "block",
            {**block, "out.hidden": block["in.hidden"], "out.hidden_disjoint": block["in.hidden"]},
            settings,
        )
        list(golden.check_block(Golden(folder, "block", "cpu")))
        block |= {"out.hidden": computed["block, overlapping masks"][0]}
        block |= {"out.hidden_disjoint": computed["block, disjoint masks"][0]}
        write(folder, "block", block, settings)
        network, settings = make_network()
        shown = {f"out.{name}": torch.zeros(2) for name in ("eps", "ddim_latent", "control.00")}
        write(folder, "net", {**network, **shown}, settings)
        list(golden.check_network(Golden(folder, "net", "cpu")))
        *residuals, eps = computed["network, ControlNet residual 00"]
        network |= {f"out.control.{i:02}": residual for i, residual in enumerate(residuals)}
        network |= {"out.eps": eps, "out.ddim_latent": computed["guided DDIM, 2 steps"][0]}
        write(folder, "net", network, settings)
    encoder, settings = make_encoder()
    found: list[Tensor] = []

    def distance(ours: Tensor, _theirs: Tensor) -> float:
        found.append(ours.clone())
        return 0.0

    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(golden, "distance", distance)
        names = ("out.tokens", "out.context", "out.uncond_context")
        write(folder, "encoder", {**encoder, **{name: torch.zeros(1) for name in names}}, settings)
        list(golden.check_encoder(Golden(folder, "encoder", "cpu")))
        write(folder, "encoder", {**encoder, **dict(zip(names, found, strict=True))}, settings)
    write(folder, "compose", *make_compose())


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the layout of the golden numbers with K = 3, whose outputs are those of the plain path."""
    folder = tmp_path_factory.mktemp("golden")
    with pytest.MonkeyPatch.context() as patch:
        fill_in_outputs(folder, patch)
    return folder


@pytest.fixture(autouse=True)
def _as_cpus_round(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up networks lose more to rounding than the research network's numbers: some CPUs' convolutions add up
    otherwise for one sample than for two, 1.4e-5 apart. What must be equal must be equal still."""
    if "own" in request.fixturenames:

        def good(figure: Figure) -> bool:
            return all(value <= 2 * figure.limit for value in (figure.plain, figure.fast) if value is not None)

        monkeypatch.setattr(Figure, "good", property(good))


def bad(figures: Iterator[Figure]) -> list[str]:
    return [figure.name for figure in figures if not figure.good]


def test_another_layout_of_shapes_passes(own: Path) -> None:
    figures = list(check_all(own))
    assert [figure for figure in figures if not figure.good] == []
    names = " ".join(figure.name for figure in figures)
    for part in (
        "overlap tokens, alone",
        "residual 04, batch",
        "noise prediction",
        "guided DDIM",
        "contexts",
        "mask 1",
    ):
        assert part in names
    fast = [figure.fast for figure in figures if figure.plain is not None]
    assert max(fast) > 0  # two computations, and not one compared with itself


# File → a tensor to spoil → the first figure that must fall.
SPOILT = {
    ("block", "in.mask"): "block, overlapping masks, alone",
    ("block", "out.hidden_disjoint"): "block, disjoint masks, alone",
    ("block", "weights.gate_q.weight"): "block, overlapping masks, alone",
    ("net", "weights.control_model.zero_convs.2.0.weight"): "network, ControlNet residual 02, alone",
    ("net", "out.control.03"): "network, ControlNet residual 03, alone",
    ("net", "weights.model.diffusion_model.out.2.bias"): "network, noise prediction, alone",
    ("net", "out.ddim_timesteps"): "guided DDIM, timesteps",
    ("net", "in.uncond_context"): "guided DDIM, 2 steps, alone",
    ("encoder", "weights.cond_stage_model.model.pos_embed"): "encoder, tokens",
    ("encoder", "weights.cond_stage_model.projector.bias"): "encoder, contexts",
    ("compose", "0.out.hint_rgb"): "preprocessing 0, hint, grey levels",
    ("compose", "0.out.mask1"): "preprocessing 0, mask 1, pixels",
    ("compose", "0.out.hint_mask"): "preprocessing 0, hint's mask, pixels",
}


def rewrite(folder: Path, name: str, key: str, value: Tensor | None) -> None:
    path = folder / f"{name}.safetensors"
    with safe_open(path, framework="pt") as file:
        settings = file.metadata()
    tensors = load_file(path)
    if value is None:
        del tensors[key]
    else:
        tensors[key] = value
    path.unlink()
    save_file(tensors, path, settings)


def spoil(value: Tensor) -> Tensor:
    spoilt = value.clone()
    flat = spoilt.view(-1)
    if value.dtype == torch.uint8:
        flat[len(flat) // 2] = 1 - flat[len(flat) // 2] if value.max() <= 1 else (int(flat[len(flat) // 2]) + 128) % 256
    elif value.is_floating_point():
        few = value.unique().numel() <= 2  # a mask; of other values every second, since norms take constants away
        flat[: len(flat) // 2 : 2] = 1 if few else flat[: len(flat) // 2 : 2] + 0.01
    else:
        flat[0] += 1
    return spoilt


@pytest.mark.parametrize(("name", "key"), SPOILT)
def test_wrong_numbers_fall(own: Path, tmp_path: Path, name: str, key: str) -> None:
    folder = shutil.copytree(own, tmp_path / "golden")
    rewrite(folder, name, key, spoil(load_file(folder / f"{name}.safetensors")[key]))
    checks = {"block": golden.check_block, "net": golden.check_network, "encoder": golden.check_encoder}
    with torch.inference_mode():
        fallen = bad(checks.get(name, golden.check_compose)(Golden(folder, name, "cpu")))
    assert SPOILT[name, key] in fallen


def test_not_a_number_falls(own: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(own, tmp_path / "golden")
    rewrite(folder, "encoder", "weights.cond_stage_model.projector.bias", torch.full((24,), torch.nan))
    assert bad(check_all(folder)) == ["encoder, contexts", "encoder, unconditional context"]


def test_what_is_missing_is_named(own: Path, tmp_path: Path) -> None:
    with pytest.raises(PicsError, match=r"block\.safetensors: missing"):
        list(check_all(tmp_path))
    for name, key, text in (
        ("net", "in.hint", "tensor in.hint is missing"),
        (
            "net",
            "weights.control_model.middle_block.0.in_layers.0.bias",
            "no tensors for: mid_block.resnets.0.norm1.bias",
        ),
        ("encoder", "weights.cond_stage_model.model.cls_token", "cls_token is missing"),
    ):
        folder = shutil.copytree(own, tmp_path / key)
        rewrite(folder, name, key, None)
        with pytest.raises(PicsError, match=text):
            list(check_all(folder))
    folder = shutil.copytree(own, tmp_path / "settings")
    save_file(load_file(folder / "block.safetensors"), tmp_path / "plain.safetensors")
    shutil.move(tmp_path / "plain.safetensors", folder / "block.safetensors")
    with pytest.raises(PicsError, match="heads is missing in its metadata"):
        list(check_all(folder))


def test_golden_numbers(shared_data: Path) -> None:
    assert bad(check_all(shared_data.parent / "golden")) == []


@pytest.mark.parametrize("spoilt", [False, True])
def test_script(own: Path, tmp_path: Path, spoilt: bool) -> None:
    folder = shutil.copytree(own, tmp_path / "golden")
    if spoilt:
        rewrite(folder, "net", "out.eps", spoil(load_file(folder / "net.safetensors")["out.eps"]))
    done = run_script(SCRIPT, "--golden", folder)
    assert done.returncode == int(spoilt), done.stderr
    assert done.stdout.splitlines()[-1].endswith(f"{2 * spoilt} above their limit")
    assert ("ABOVE" in done.stdout) == spoilt


def test_script_tells_what_is_missing(tmp_path: Path) -> None:
    done = run_script(SCRIPT, "--golden", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'block.safetensors'}: missing\n\nhint: ")
