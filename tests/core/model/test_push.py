"""Models to the hub: what is refused, what is sent, and what the hub's answers mean; against a hub on this machine."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from diffusers import DiffusionPipeline
from huggingface_hub import constants
from PIL import Image

from helpers.composites import BOXES, composed, make_sample, run
from helpers.fake_hub import TOKEN, FakeHub, connect, fake_hub
from helpers.trainees import LAYERS, small
from pics_cli import PicsPipeline
from pics_cli.core.model import upload as upload_module
from pics_cli.core.model.push import PushPlan, check_repository, plan_push
from pics_cli.core.model.upload import upload
from pics_cli.errors import PicsError

REPO = "me/model"
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder; not to be changed."""
    folder = tmp_path_factory.mktemp("models") / "small"
    small(**{**LAYERS, "steps": 1, "guidance": 1.0, "scheduler": "ddim"}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plan(saved: Path) -> PushPlan:
    """That it is whole and fits together is looked at once."""
    return plan_push(saved, REPO)


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty hub that the client asks, where the user `me` is logged in; the client's cache is the test's own."""
    with fake_hub() as hub:
        connect(hub, tmp_path / "cache", monkeypatch)
        yield hub


def test_what_goes(model: Path) -> None:
    (model / ".cache/huggingface").mkdir(parents=True)
    (model / ".cache/huggingface/note").touch()
    (model / "unet/.DS_Store").touch()
    plan = plan_push(model, REPO)
    assert plan.left_out == [".cache/huggingface/note", "unet/.DS_Store"]
    expected = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert set(plan.sizes) == expected - set(plan.left_out)
    for name, size in plan.sizes.items():
        assert size == (len(plan.card.encode()) if name == "README.md" else (model / name).stat().st_size)
    assert not plan.own_card
    assert f"--model {REPO}" in plan.card
    assert f"--model {REPO}" not in (model / "README.md").read_text()


def test_pushed_it_loads_everywhere(hub: FakeHub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the hub, through diffusers, the Python API and `pics infer`: the picture that the folder gives."""
    for name in ("diffusers.utils.dynamic_modules_utils", "diffusers.utils.constants"):
        monkeypatch.setattr(f"{name}.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    url = upload(plan_push(model, REPO), private=True)
    assert url.startswith(f"{hub.url}/{REPO}/commit/")
    assert hub.commits == [("Upload model", "main")]
    assert hub.private == {REPO}
    there = hub.repositories[REPO]["main"]
    assert {name: there[name] for name in plan_push(model, REPO).files} == {
        path.relative_to(model).as_posix(): path.read_bytes()
        for path in model.rglob("*") if path.is_file() and path.name != "README.md"
    }  # fmt: skip

    make_sample(tmp_path / "samples/two", BOXES)
    sample = tmp_path / "samples/two"
    run(sample.parent, tmp_path / "folder", model, dtype="fp32")
    expected = composed(tmp_path / "folder")["composed_two.png"]
    run(sample.parent, tmp_path / "hub", Path(REPO), dtype="fp32")
    np.testing.assert_array_equal(composed(tmp_path / "hub")["composed_two.png"], expected)
    for pipe in (PicsPipeline.from_pretrained(REPO), DiffusionPipeline.from_pretrained(REPO, trust_remote_code=True)):
        result = pipe(
            sample / "image.png",
            [sample / f"object_{k}.png" for k in range(2)],
            masks=[sample / f"object_{k}_mask.png" for k in range(2)],
            name="two",
            steps=1,
            output_type="np",
        )
        np.testing.assert_array_equal(result.images[0], expected)


def test_push_to_hub_of_a_pipeline(hub: FakeHub, model: Path) -> None:
    pipe = PicsPipeline.from_pretrained(model)
    pipe.push_to_hub(REPO, commit_message="First", revision="v1")
    assert hub.commits == [("First", "v1")]
    assert set(hub.repositories[REPO]) == {"main", "v1"}
    assert hub.repositories[REPO]["v1"]["pics.json"] == (model / "pics.json").read_bytes()
    assert "unet/config.json" not in hub.repositories[REPO]["main"]


def test_what_was_sent_is_not_sent_again(hub: FakeHub, model: Path) -> None:
    """Neither after a failure between the files and the commit, nor when one part has changed."""
    hub.refusals = {r"POST .*/commit/": (412, "a concurrent commit has happened")}
    with pytest.raises(PicsError, match=f"{REPO}: changed in the meantime: a concurrent commit has happened"):
        upload(plan_push(model, REPO))
    sent = list(hub.uploads)
    assert len(sent) == len(set(sent)) == 4  # weights of the parts that have some
    hub.refusals = {}
    upload(plan_push(model, REPO))
    assert hub.uploads == sent
    other = small(**{**LAYERS, "steps": 1, "guidance": 1.0, "scheduler": "ddim"}, seed=5)
    other.unet.load_state_dict(PicsPipeline.from_pretrained(model).unet.state_dict())
    other.save_pretrained(model.with_name("other"))
    upload(plan_push(model.with_name("other"), REPO))
    assert len(hub.uploads) == 4 + 3


@pytest.mark.parametrize(
    ("route", "status", "said", "message", "hint"),
    [
        (r"GET /api/models/", 401, "Invalid credentials", "the hub does not accept your token", "hf auth login"),
        (r"POST /api/repos/create", 403, "no rights", "you may not write there", "is me you, or an organisation"),
        (r"POST .*/preupload/", 403, "Forbidden", "you may not write there", "a token that may write"),
        (r"POST .*/commit/", 403, "storage limit reached", "no room on the hub: .*storage limit reached", "free some"),
        (r"POST .*/lfs/", 413, "too large", "no room on the hub", "free some space"),
        (r"POST .*/commit/", 404, "", "the hub does not find it", "--revision"),
        (r"POST .*/commit/", 400, "bad metadata", r"the hub refuses it \(400\): .*bad metadata", None),
        (r"GET /api/models/", 502, "bad gateway", "the hub cannot be reached", "what was sent is not sent again"),
    ],
)
def test_answers_of_the_hub(
    hub: FakeHub, plan: PushPlan, route: str, status: int, said: str, message: str, hint: str | None
) -> None:
    hub.refusals = {route: (status, said)}
    with pytest.raises(PicsError, match=f"{REPO}: {message}") as error:
        upload(plan)
    assert "\n" not in error.value.message
    assert error.value.exit_code == 2
    assert hint is None or hint in str(error.value.hint)
    assert hub.commits == []


def test_somebody_elses_repository(hub: FakeHub, saved: Path) -> None:
    with pytest.raises(PicsError, match=r"you/model: you may not write there: .*rights"):
        upload(plan_push(saved, "you/model"))


def test_a_public_repository_does_not_pass_for_a_private_one(hub: FakeHub, plan: PushPlan) -> None:
    upload(plan)
    with pytest.raises(PicsError, match=f"{REPO}: is there already, and public, but --private is given"):
        upload(plan, private=True)
    assert len(hub.commits) == 1


def test_without_login(plan: PushPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(PicsError, match="not logged in to the Hugging Face hub") as error:
        upload(plan)
    assert "hf auth login" in str(error.value.hint)


def test_a_hub_that_is_away_or_silent(plan: PushPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PicsError, match=f"{REPO}: the hub cannot be reached"):
        upload(plan)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(upload_module, "SECONDS_TO_ANSWER", 0.5)
        with pytest.raises(PicsError, match=f"{REPO}: the hub cannot be reached"):
            upload(plan)


@pytest.mark.parametrize(
    "name", ["model", "a/b/c", "me/", "/model", "me/mo del", "me/model@v1", "me/a--b", "me/a..b", "me/model.git", ""]
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(PicsError, match="no name of a repository: ") as error:
        check_repository(name)
    assert error.value.message.startswith(f"{name}: ")
    assert "owner/name" in str(error.value.hint)


def write(name: str, text: str = "x") -> Change:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)

    return change


def link(name: str, target: str) -> Change:
    return lambda folder: (folder / name).symlink_to(target)


def edit(file: str, **values: object) -> Change:
    def change(folder: Path) -> None:
        (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **values}))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (write("unet/diffusion_pytorch_model.bin"), "unet/diffusion_pytorch_model.bin: a pickle or checkpoint"),
        (write("last.ckpt"), "last.ckpt: a pickle or checkpoint"),
        (write(".env"), r"\.env: looks like a secret"),
        (write("my_token.txt"), r"my_token.txt: looks like a secret"),
        (write("notes.txt"), "notes.txt: does not belong to a model"),
        (write("checkpoints/step_1/unet.safetensors"), "unet.safetensors: does not belong to a model"),
        (write("pipeline.py", "import os"), "pipeline.py: not the code that pics writes"),
        (write("unet/other.py", "import os"), "unet/other.py: does not belong"),
        (write("README.md", f"my card {TOKEN}"), "README.md: holds what looks like a token"),
        (link("unet/more.safetensors", "/etc/passwd"), "unet/more.safetensors: a link out of the folder"),
        (link("elsewhere", "/tmp"), "elsewhere: a link out of the folder"),
        (link("sheet.png", "nowhere.png"), "sheet.png: no file"),
        (lambda folder: (folder / "pics.json").unlink(), "not a model folder of pics"),
        (lambda folder: shutil.rmtree(folder / "vae"), "vae: missing, the model folder is not complete"),
        (lambda folder: (folder / "model_index.json").unlink(), r"model_index\.json: cannot read"),
        (write("model_index.json", "{"), r"model_index\.json: unreadable"),
        (
            lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").unlink(),
            r"unet: no weights \(\*\.safetensors\)",
        ),
        (
            lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"x" * 100),
            r"unet/diffusion_pytorch_model\.safetensors: damaged",
        ),
        (edit("pics.json", steps=7), r"steps is 7 in pics\.json, but 1 in model_index\.json"),
        (
            edit("pics.json", links={"vae": {"source": "/home/somebody/sd", "folder": "vae", "sha256": {}}}),
            "parts of this model lie elsewhere: vae in /home/somebody/sd",
        ),
        (lambda folder: (folder / "README.md").write_bytes(b"\xff\xfe"), r"README\.md: cannot be read"),
    ],
)
def test_folders_that_are_not_pushed(model: Path, change: Change, message: str) -> None:
    change(model)
    with pytest.raises(PicsError, match=message) as error:
        plan_push(model, REPO)
    assert str(model) in error.value.message
    assert error.value.hint


def test_every_file_that_does_not_belong_is_named_at_once(model: Path) -> None:
    for number in range(30):
        write(f"note_{number:02d}.txt")(model)
    with pytest.raises(PicsError) as error:
        plan_push(model, REPO)
    assert "note_00.txt" in error.value.message
    assert "note_19.txt" in error.value.message
    assert "and 10 more" in error.value.message


def test_links_inside_the_folder_go_as_files(hub: FakeHub, model: Path) -> None:
    weights = model / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(model / "unet/kept.safetensors")
    weights.symlink_to("kept.safetensors")
    upload(plan_push(model, REPO))
    there = hub.repositories[REPO]["main"]
    assert there["unet/diffusion_pytorch_model.safetensors"] == (model / "unet/kept.safetensors").read_bytes()


def test_sheets(model: Path, tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "drawn.PNG", "PNG")
    plan = plan_push(model, REPO, sheet=tmp_path / "drawn.PNG")
    assert plan.files["sheet.png"] == tmp_path / "drawn.PNG"
    assert "](sheet.png)" in plan.card
    shutil.copyfile(tmp_path / "drawn.PNG", model / "sheet.jpg")
    assert "](sheet.jpg)" in plan_push(model, REPO).card
    (tmp_path / "broken.png").write_bytes((tmp_path / "drawn.PNG").read_bytes()[:30])
    for name, message in (("nowhere.png", "no picture"), ("broken.png", "no picture"), ("a.gif", "expected a name")):
        with pytest.raises(PicsError, match=f"--sheet .*{name}: {message}"):
            plan_push(model, REPO, sheet=tmp_path / name)


def test_a_card_of_ones_own_goes_as_it_is(model: Path, tmp_path: Path) -> None:
    (model / "README.md").write_text("My model.\n")
    plan = plan_push(model, REPO)
    assert (plan.card, plan.own_card) == ("My model.\n", True)
    Image.new("RGB", (4, 4)).save(tmp_path / "sheet.png")
    with pytest.raises(PicsError, match=r"README\.md: is your own card, which is not changed"):
        plan_push(model, REPO, sheet=tmp_path / "sheet.png")
