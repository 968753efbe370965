"""The whole compositor, small but real: saving and loading, pictures that depend on seed and sample alone, memory."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import nn

from pics_cli.core.conditioning.network_inputs import NetworkInputs, prepare_network_inputs
from pics_cli.core.images.geometry import Box
from pics_cli.core.model.config import Link, ModelConfig
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.gate_trace import GateTrace
from pics_cli.core.model.offload import ModelOffloader, PartReader
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.tiny_model import tiny_model
from pics_cli.core.model.unet import InteractionUNet
from pics_cli.core.runtime.files import file_sha256
from pics_cli.errors import PicsError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PARTIAL: list[Box] = [(10, 10, 80, 80), (50, 30, 120, 90)]
NESTED: list[Box] = [(5, 5, 140, 95), (40, 30, 100, 70)]
APART: list[Box] = [(5, 5, 60, 95), (80, 5, 140, 95)]
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def tiny() -> PicsModel:
    return tiny_model()


@pytest.fixture(scope="module")
def saved(tiny: PicsModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder; not to be changed."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny.save_pretrained(folder)
    return folder


def sample(boxes: list[Box], seed: int = 0) -> NetworkInputs:
    random = np.random.default_rng(seed)
    background = random.integers(0, 256, (100, 150, 3), np.uint8)
    references = [random.integers(0, 256, (40, 30, 3), np.uint8) for _ in boxes]
    return prepare_network_inputs(background, boxes, references, size=128, reference_size=56)


def noise(pipeline: PicsModel, *keys: str, candidates: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.stack([torch.stack([pipeline.noise(seed, key, j) for j in range(candidates)]) for key in keys])


def picture(pipeline: PicsModel, boxes: list[Box] = PARTIAL, seed: int = 0) -> np.ndarray:
    return pipeline([sample(boxes)], noise(pipeline, "a", seed=seed), steps=2)


def greys_apart(ours: np.ndarray, theirs: np.ndarray) -> int:
    return int(np.abs(ours.astype(int) - theirs.astype(int)).max())


def test_saved_and_loaded_model_paints_the_same_picture(tiny: PicsModel, saved: Path) -> None:
    expected = picture(tiny)
    assert expected.shape == (1, 1, 128, 128, 3)
    assert expected.dtype == np.uint8
    assert expected.std() > 10  # something that differences would show in
    loaded = PicsModel.from_pretrained(saved)
    assert loaded.config == tiny.config
    # Where weights lie in memory decides how some CPUs add up.
    assert np.abs(picture(loaded).astype(int) - expected).max() <= 1
    assert greys_apart(picture(loaded, seed=1), expected) > 10
    assert greys_apart(picture(loaded, NESTED), expected) > 10


def test_model_folder_is_laid_out_as_diffusers_does(saved: Path) -> None:
    index = json.loads((saved / "model_index.json").read_text())
    parts = {name for name, value in index.items() if isinstance(value, list) and name != "_class_name"}
    assert parts == {"unet", "controlnet", "image_encoder", "projector", "vae", "scheduler"}
    assert {path.name for path in saved.iterdir()} == {
        *parts, "model_index.json", "pics.json", "pipeline.py", "README.md"
    }  # fmt: skip
    assert {path.name for path in (saved / "projector").iterdir()} == {
        "config.json", "diffusion_pytorch_model.safetensors", "pics_cli.py"
    }  # fmt: skip
    assert not [path for path in saved.rglob("*") if path.suffix in (".bin", ".pt", ".ckpt")]
    assert ModelConfig.load(saved).image_size == 128
    assert index["pics"] == json.loads((saved / "pics.json").read_text())


def test_loading_in_another_precision(tiny: PicsModel, saved: Path) -> None:
    loaded = PicsModel.from_pretrained(saved, dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    assert {p.dtype for part in loaded.parts.values() for p in part.parameters()} == {torch.bfloat16}
    expected = picture(tiny).astype(float)
    assert np.abs(picture(loaded) - expected).mean() < 0.1 * expected.std()


def test_noise_depends_on_its_four_arguments_alone(tiny: PicsModel) -> None:
    first = tiny.noise(3, "sample", 1, 2)
    assert first.dtype == torch.float32
    assert first.shape == (4, 16, 16)
    assert torch.equal(tiny_model(seed=1).noise(3, "sample", 1, 2), first)
    for other in ((4, "sample", 1, 2), (3, "sampl", 1, 2), (3, "sample", 2, 2), (3, "sample", 1, 3)):
        assert abs(float((tiny.noise(*other) * first).mean())) < 0.2
    assert not torch.equal(tiny.noise(0, "1", 11), tiny.noise(0, "11", 1))
    many = torch.stack([tiny.noise(0, str(key)) for key in range(50)]).double()
    assert abs(float(many.mean())) < 0.02
    assert abs(float(many.std()) - 1) < 0.02
    assert abs(float((many**4).mean()) - 3) < 0.1  # the fourth moment of a normal distribution


def test_batch_of_candidates_equals_one_by_one(tiny: PicsModel) -> None:
    samples = [sample(boxes, seed) for seed, boxes in enumerate((PARTIAL, APART, NESTED))]
    start = noise(tiny, "a", "b", "c", candidates=2)
    together = tiny(samples, start, steps=2)
    assert together.shape == (3, 2, 128, 128, 3)
    for b, one in enumerate(samples):
        for j in range(2):
            alone = tiny([one], start[b : b + 1, j : j + 1], steps=2)
            assert greys_apart(together[b, j], alone[0, 0]) <= 1


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 0, 1)])
def test_swapping_objects_changes_nothing(tiny: PicsModel, order: tuple[int, ...]) -> None:
    one = sample([*PARTIAL, (30, 20, 90, 95)])
    swapped = one._replace(masks=one.masks[list(order)], references=one.references[list(order)])
    start = noise(tiny, "a")
    assert greys_apart(tiny([one], start, steps=2), tiny([swapped], start, steps=2)) <= 1


@pytest.mark.parametrize("objects", [1, 3])
def test_any_number_of_objects(tiny: PicsModel, objects: int) -> None:
    boxes = [*PARTIAL, (30, 20, 90, 95)][:objects]
    assert picture(tiny, boxes).shape == (1, 1, 128, 128, 3)


def test_what_is_not_said_comes_from_the_configuration(tiny: PicsModel) -> None:
    one, start, seen = [sample(PARTIAL)], noise(tiny, "a"), []
    default = tiny(one, start, callback_on_step_end=lambda number, count, *_: seen.append((number, count)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (tiny.config.steps, tiny.config.guidance, tiny.config.scheduler) == (4, 5.0, "dpm++")
    np.testing.assert_array_equal(tiny(one, start, steps=4, guidance=5.0, scheduler="dpm++"), default)
    for other in ({"guidance": 2.0}, {"scheduler": "ddim"}, {"steps": 3}):
        assert greys_apart(tiny(one, start, **other), default) > 1


def test_gate_bias_matters_in_overlaps_and_nowhere_else(tiny: PicsModel) -> None:
    bias = torch.tensor([[0.0, 100.0]])
    for boxes, changes in ((PARTIAL, True), (APART, False)):
        one, start = [sample(boxes)], noise(tiny, "a")
        assert (greys_apart(tiny(one, start, steps=2, order_bias=bias), tiny(one, start, steps=2)) > 0) == changes


def test_trace_tells_which_object_the_gate_favoured(tiny: PicsModel) -> None:
    samples = [sample(boxes) for boxes in (PARTIAL, APART)]
    trace = GateTrace()
    traced = tiny(samples, noise(tiny, "a", "b"), steps=2, trace=trace)
    alpha = trace.mean_weights(2, 128)
    assert alpha.shape == (2, 2, 128, 128)
    known = ~alpha.isnan().any(1)
    # Latents of 16 × 16 and 8 × 8: each token of an overlap shows as its square of pixels.
    for row, one in enumerate(samples):
        overlap = torch.from_numpy(one.masks.all(0))
        levels = [overlap[::step, ::step].repeat_interleave(step, 0).repeat_interleave(step, 1) for step in (8, 16)]
        assert torch.equal(known[row], levels[0] | levels[1])
    assert known[0].any()
    assert not known[1].any()
    torch.testing.assert_close(alpha.sum(1)[known], torch.ones(int(known.sum())))
    np.testing.assert_array_equal(tiny(samples, noise(tiny, "a", "b"), steps=2), traced)


def test_a_correction_of_the_hint_paints_the_hint_where_it_is_nothing() -> None:
    """correct_hint: the output is what is to be added to the hint's own latent."""
    corrects = tiny_model(prediction_type="sample", correct_hint=True)
    for parameter in corrects.unet.conv_out.parameters():
        parameter.data.zero_()
    one = sample(APART)
    hint = torch.from_numpy(one.control_image).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        expected = corrects.vae.decode(corrects.vae.encode(hint).latent_dist.mode()).sample
    expected = ((expected + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1).numpy()
    found = corrects([one], noise(corrects, "a"), steps=3)
    assert greys_apart(found[:, 0], expected) <= 1


class Standin(ModelOffloader):
    """Stands for a device: what is fetched are copies, and at home every weight is nan, so that its use would show."""

    def watch(self) -> None:
        self.present: set[str] = set()
        self.phases: list[set[str]] = []
        self.names = {id(part): name for name, part in self.parts.items()}
        self.copies = {id(t): t.detach().clone() for part in self.parts.values() for t in tensors(part)}
        for part in self.parts.values():
            for tensor in tensors(part):
                if tensor.is_floating_point():
                    tensor.data.fill_(torch.nan)

    def _to_device(self, part: nn.Module) -> None:
        self.present.add(self.names[id(part)])
        self.phases.append(set(self.present))
        for tensor in tensors(part):
            self._host_tensors[id(tensor)] = tensor.data
            tensor.data = self.copies[id(tensor)]

    def _to_host(self, part: nn.Module) -> None:
        self.present.remove(self.names[id(part)])
        super()._to_host(part)


def tensors(part: nn.Module) -> list[torch.Tensor]:
    return [*part.parameters(), *part.buffers()]


def watched(**overrides: Any) -> tuple[PicsModel, Standin]:
    pipeline = tiny_model(memory="sequential", **overrides)
    standin = Standin(pipeline.parts, pipeline.device, "sequential")
    standin.watch()
    pipeline._offloader = standin
    return pipeline, standin


@pytest.mark.parametrize("memory", ["sequential", "offload", "auto"])
def test_on_a_cpu_parts_are_read_from_disk_when_they_are_used(
    tiny: PicsModel, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    """Without --memory so does a full-size model; the pictures are the same."""
    if memory == "auto":
        monkeypatch.setattr(ModelConfig, "full_size", property(lambda _config: True))
    model = PicsModel.from_pretrained(saved, memory=memory)
    assert model.memory == ("offload" if memory == "offload" else "sequential")
    assert all(value.is_meta for part in model.parts.values() for value in tensors(part))
    held = list[set[str]]()
    real = PartReader.use

    @contextlib.contextmanager
    def watched_use(self: PartReader, *names: str) -> Iterator[None]:
        with real(self, *names):
            held.append({name for name, part in model.parts.items() if not any(t.is_meta for t in tensors(part))})
            yield

    monkeypatch.setattr(PartReader, "use", watched_use)
    assert greys_apart(picture(model), picture(tiny)) <= 1  # as above
    assert held[:3] == [{"image_encoder", "projector"}, {"unet", "controlnet"}, {"vae"}]
    assert all(value.is_meta for part in model.parts.values() for value in tensors(part))
    with pytest.raises(ValueError, match="cannot be saved"):
        model.save_pretrained(tmp_path / "copy")
    with pytest.raises(PicsError, match="--compile"):
        model.compile()


@pytest.mark.parametrize("corrects", [False, True])
def test_sequential_memory_holds_only_what_a_phase_needs(corrects: bool) -> None:
    options: dict[str, Any] = {"prediction_type": "sample", "correct_hint": True} if corrects else {}
    pipeline, standin = watched(**options)
    addresses = {name: [t.data_ptr() for t in tensors(part)] for name, part in pipeline.parts.items()}
    expected = picture(tiny_model(**options))
    np.testing.assert_array_equal(picture(pipeline), expected)
    full = [
        phase for phase, after in zip(standin.phases, [*standin.phases[1:], set()], strict=True) if not phase < after
    ]
    networks = [{"image_encoder", "projector"}, *[{"vae"}] * corrects, {"unet", "controlnet"}, {"vae"}]
    assert full == networks
    assert standin.present == set()
    assert addresses == {name: [t.data_ptr() for t in tensors(part)] for name, part in pipeline.parts.items()}


def test_sequential_memory_is_given_back_when_the_device_is_full() -> None:
    class SmallDevice(ModelOffloader):
        def _to_device(self, part: nn.Module) -> None:
            if part is self.parts["unet"]:
                raise torch.OutOfMemoryError
            super()._to_device(part)

    parts = {"controlnet": nn.Linear(2, 2), "unet": nn.Linear(2, 2)}
    offloader = SmallDevice(parts, torch.device("cpu"), "sequential")
    with pytest.raises(torch.OutOfMemoryError), offloader.use("controlnet", "unet"):
        pass
    assert not offloader._host_tensors  # the next use takes the tensors of main memory again


def test_sequential_memory_is_given_back_when_something_fails() -> None:
    def stop(*_progress: object) -> None:
        raise KeyboardInterrupt

    pipeline, standin = watched()
    with pytest.raises(KeyboardInterrupt):
        pipeline([sample(PARTIAL)], noise(pipeline, "a"), steps=2, callback_on_step_end=stop)
    assert standin.present == set()
    assert all(t.isnan().all() for t in tensors(pipeline.unet) if t.is_floating_point())


@pytest.mark.parametrize("memory", ["resident", "sequential", "offload"])
def test_memory_modes_paint_the_same_picture(tiny: PicsModel, saved: Path, memory: str) -> None:
    loaded = PicsModel.from_pretrained(saved, memory=memory)
    assert loaded.memory == memory
    expected = picture(tiny)
    first = picture(loaded)
    assert np.abs(first.astype(int) - expected).max() <= 1  # as above
    np.testing.assert_array_equal(picture(loaded), first)


def test_values_that_are_no_numbers_are_no_picture(saved: Path) -> None:
    pipeline = PicsModel.from_pretrained(saved)
    pipeline.unet.conv_out.weight.fill_(float("nan"))
    with pytest.raises(PicsError, match="no numbers") as error:
        picture(pipeline)
    assert error.value.exit_code == 1


@pytest.mark.parametrize("memory", ["sequential", "offload"])
def test_graphs_need_weights_that_stay(saved: Path, memory: str) -> None:
    with pytest.raises(PicsError, match=f"--compile: .* memory is {memory}"):
        PicsModel.from_pretrained(saved, memory=memory).compile()


@pytest.mark.slow
def test_compiled_equals_eager(tiny: PicsModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of different masks, so that the padded index lists are captured too; the graphs run without inductor,
    whose own compilation takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    shape = dict(
        block_out_channels=(16,), layers_per_block=1, attention_levels=(False,), head_width=8, context_width=48,
        norm_groups=8,
    )  # fmt: skip
    torch.manual_seed(0)
    unet, controlnet = InteractionUNet(**shape), BackgroundControlNet(hint_widths=(8, 8, 8, 8), **shape)
    for zero in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
        nn.init.normal_(zero.weight, std=0.2)
    others: dict[str, Any] = {name: part for name, part in tiny.parts.items() if name not in ("unet", "controlnet")}
    small = PicsModel(tiny.config, unet, controlnet, **others, scheduler=tiny.scheduler)
    samples, start = [sample(PARTIAL), sample(NESTED)], noise(small, "a", "b")
    expected = small(samples, start, steps=2)
    small.compile()
    assert greys_apart(small(samples, start, steps=2), expected) <= 1


def edit(file: str = "pics.json", **values: object) -> Change:
    """Set keys of a json."""

    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def truncate(name: str) -> Change:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1000])


def remove_folder(name: str) -> Change:
    return lambda folder: shutil.rmtree(folder / name)


def remove_file(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def make_pipe(name: str) -> Change:
    """A pipe into which nobody writes, in place of a file."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def nest(name: str) -> Change:
    return lambda folder: (folder / name).write_text("[" * 100_000) and None


def reweigh(name: str, key: str, value: torch.Tensor | None) -> Change:
    """Change one tensor of a safetensors file, or leave it out."""

    def change(folder: Path) -> None:
        weights = load_file(folder / name)
        assert key in weights or key == "blend_mlp.0.weight"
        weights = {k: v for k, v in weights.items() if k != key}
        save_file(weights if value is None else {**weights, key: value}, folder / name, {"format": "pt"})

    return change


WEIGHTS = {
    "unet": ("unet/diffusion_pytorch_model.safetensors", "conv_in.weight"),
    "controlnet": ("controlnet/diffusion_pytorch_model.safetensors", "controlnet_mid_block.weight"),
    "image_encoder": ("image_encoder/model.safetensors", "layernorm.weight"),
    "projector": ("projector/diffusion_pytorch_model.safetensors", "bias"),
    "vae": ("vae/diffusion_pytorch_model.safetensors", "quant_conv.weight"),
}
FAULTS: list[tuple[str, Change, list[str]]] = [
    ("no pics.json", remove_file("pics.json"), ["not a model folder of pics", "no pics.json"]),
    ("newer", edit(version=99), ["pics.json", "version 99", "newer"]),
    (
        "unknown keys",
        edit(stepz=3, tau=-1.0),
        ["stepz: unknown key, nearest: steps", "tau: got -1.0, expected 0 < value"],
    ),
    ("missing scheduler", remove_folder("scheduler"), ["{folder}/scheduler"]),
    (
        "a text for a number in scheduler",  # torch's message has the word memory in it
        edit("scheduler/scheduler_config.json", num_train_timesteps="x"),
        ["{folder}/scheduler: cannot be loaded: ", "linspace"],
    ),
    (
        "scheduler's is a pipe",
        make_pipe("scheduler/scheduler_config.json"),
        ["scheduler: cannot be loaded: ", "no file"],
    ),
    ("nested beyond measure", nest("vae/config.json"), ["{folder}/vae: cannot be loaded: "]),
]
for part, (file, weight) in WEIGHTS.items():
    FAULTS += [
        (f"missing {part}", remove_folder(part), ["{folder}/" + part, "missing"]),
        (f"weights of {part} are a pipe", make_pipe(file), ["{folder}/" + part, f"{Path(file).name} is no file"]),
        (f"configuration of {part} is a pipe", make_pipe(f"{part}/config.json"), ["config.json is no file"]),
        (f"no weights of {part}", remove_file(file), ["{folder}/" + part]),
        (f"truncated {part}", truncate(file), ["{folder}/" + part]),
        (f"weight missing from {part}", reweigh(file, weight, None), ["{folder}/" + part, weight]),
        (f"weight of another shape in {part}", reweigh(file, weight, torch.zeros(3, 5)), ["{folder}/" + part, weight]),
        (
            f"unknown weight in {part}",
            reweigh(file, "blend_mlp.0.weight", torch.zeros(2)),
            ["{folder}/" + part, "blend_mlp.0.weight"],
        ),
    ]


@pytest.mark.parametrize(("change", "expected"), [pytest.param(*fault[1:], id=fault[0]) for fault in FAULTS])
def test_faults_of_a_model_folder(saved: Path, tmp_path: Path, change: Change, expected: list[str]) -> None:
    """Each message names the place, what is wrong with it, and what to do; a weight that does not fit is named."""
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    change(folder)
    with pytest.raises(PicsError) as error:
        PicsModel.from_pretrained(folder)
    for text in expected:
        assert text.format(folder=folder) in error.value.message
    assert "huggingface" not in error.value.message
    assert error.value.hint


def test_faults_of_the_name(saved: Path, tmp_path: Path) -> None:
    for name, text in ((tmp_path / "nowhere", "no such folder"), (saved / "pics.json", "is a file, expected a folder")):
        with pytest.raises(PicsError) as error:
            PicsModel.from_pretrained(name)
        assert error.value.message == f"--model {name}: {text}"
        assert error.value.hint


def copy_with_a_link(saved: Path, out: Path, **link: object) -> None:
    """The model with its encoder elsewhere."""
    shutil.copytree(saved, out)
    shutil.rmtree(out / "image_encoder")
    edit(links={"image_encoder": link})(out)


def same_encoder(found: PicsModel, expected: PicsModel) -> None:
    ours, theirs = found.image_encoder.state_dict(), expected.image_encoder.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


def test_a_linked_part_is_loaded_from_where_it_lies_and_checked(tiny: PicsModel, saved: Path, tmp_path: Path) -> None:
    shared, folder = tmp_path / "shared", tmp_path / "model"
    shutil.copytree(saved / "image_encoder", shared / "dinov2")
    weights = shared / "dinov2" / "model.safetensors"
    copy_with_a_link(saved, folder, source=str(shared), folder="dinov2", sha256={weights.name: file_sha256(weights)})
    same_encoder(PicsModel.from_pretrained(folder), tiny)

    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(PicsError) as error:
        PicsModel.from_pretrained(folder)
    assert error.value.message.startswith(f"{weights.parent}: ")
    assert f"{weights.name} has sha256 " in error.value.message

    weights.unlink()
    with pytest.raises(PicsError) as error:
        PicsModel.from_pretrained(folder)
    assert f"{weights.name} is gone" in error.value.message

    shutil.rmtree(shared)
    with pytest.raises(PicsError) as error:
        PicsModel.from_pretrained(folder)
    assert "links.image_encoder" in error.value.message


def test_a_link_to_the_hub_downloads_nothing(
    tiny: PicsModel, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model folder of somebody's names a repository: only its user fetches it."""
    folder, cache = tmp_path / "model", tmp_path / "hub"
    copy_with_a_link(saved, folder, source="owner/name@v1", folder="dinov2")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    with pytest.raises(PicsError) as error:
        PicsModel.from_pretrained(folder)
    assert "links.image_encoder: the part lies in the repository owner/name@v1" in error.value.message
    assert "hf download owner/name --include 'dinov2/*' --revision v1" in str(error.value.hint)
    commit = "a" * 40
    (cache / "models--owner--name/refs").mkdir(parents=True)
    (cache / "models--owner--name/refs/v1").write_text(commit)
    shutil.copytree(saved / "image_encoder", cache / "models--owner--name/snapshots" / commit / "dinov2")
    same_encoder(PicsModel.from_pretrained(folder), tiny)


def test_a_part_that_was_linked_is_written(saved: Path, tmp_path: Path) -> None:
    pipeline = PicsModel.from_pretrained(saved)
    pipeline.config = replace(pipeline.config, links={"image_encoder": Link(source="owner/name")})
    pipeline.save_pretrained(tmp_path / "model")
    assert ModelConfig.load(tmp_path / "model").links == {}
    same_encoder(PicsModel.from_pretrained(tmp_path / "model"), pipeline)
