"""The server of `pics ui` in this process: composites as `pics infer` makes them, its words, its limits, its guard."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import stat
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from helpers.composites import BOXES, scene, thing
from helpers.infer_command import typed
from helpers.ui_pages import Page, huge_png, png, warm
from pics_cli.core.inference import worker
from pics_cli.core.inference.inputs import BUNDLED_SAMPLES
from pics_cli.core.inference.warm import WarmModel
from pics_cli.ui import requests, session
from pics_cli.ui.server import Server

WHERE = [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in BOXES]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def mini() -> WarmModel:
    return warm("pics-mini")


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> WarmModel:
    return warm(tiny_model)


@pytest.fixture
def server(tiny: WarmModel) -> Iterator[Server]:
    made = Server(tiny)
    yield made
    made.close()


@pytest.fixture
def client(server: Server) -> TestClient:
    return TestClient(server.app, base_url="http://127.0.0.1")


@pytest.fixture
def page(client: TestClient) -> Page:
    return Page(client)


@pytest.fixture
def drawn(page: Page) -> Page:
    """A page with a background and two objects."""
    page.background(png(scene()))
    for k in range(2):
        page.object(png(thing(k)), f"thing {k}.png")
    return page


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_the_folder_that_is_downloaded_gives_infer_the_same_picture(
    mini: WarmModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An example, one of its objects corrected and another order, as its `command.txt` says."""
    server = Server(mini)
    page = Page(TestClient(server.app, base_url="http://127.0.0.1"))
    state = page.ask("POST", "/examples/egg_in_cup")
    width, height = state["objects"][0]["size"]
    strokes = Image.new("RGBA", (width, height))
    strokes.paste((230, 0, 40, 255), (0, 0, width, height // 4))
    page.ask("PUT", "/objects/0/strokes", content=png(strokes))
    job = page.composite(state["drawing"]["boxes"], order=[1, 0], num=2, seed=3, explain=True)
    assert (job["state"], job["changed"], job["error"]) == ("done", 0, "")
    results = [page.get(f"/jobs/1/results/{k}") for k in range(2)]
    assert [Image.open(io.BytesIO(page.get(f"/jobs/1/explained/{name}"))).format for name in job["explained"]] == [
        "PNG"
    ] * 3
    with zipfile.ZipFile(io.BytesIO(page.get("/jobs/1/sample.zip"))) as file:
        file.extractall(tmp_path)
    assert not [path for path in Image.open(io.BytesIO(results[0])).info["pics"].split('"') if "/tmp" in path]
    server.close()
    monkeypatch.chdir(tmp_path)
    command = shlex.split((tmp_path / "egg_in_cup/command.txt").read_text())
    done = typed(*command[1:], "--device", "cpu", "--explain")
    assert done.exit_code == 0, done.stderr
    for name, data in zip(("composed_egg_in_cup.png", "composed_egg_in_cup_1.png"), results, strict=True):
        assert (tmp_path / "results/egg_in_cup/composed" / name).read_bytes() != b""
        assert np.array_equal(pixels((tmp_path / "results/egg_in_cup/composed" / name).read_bytes()), pixels(data))
    assert not np.array_equal(pixels(results[0]), pixels(results[1]))


def test_what_is_drawn_is_there_after_a_reload(drawn: Page) -> None:
    drawing = {"boxes": {0: WHERE[0]}, "order": [1, 0], "num": 3, "seed": 9, "steps": 2, "guidance": 1.5}
    chosen = {**drawing, "cutout": "none", "fit": "cover", "explain": False, "layers": True}
    drawn.ask("PUT", "/drawing", json=chosen)
    state = drawn.ask("GET", "")
    assert state["drawing"] == {**chosen, "boxes": {"0": list(WHERE[0])}}
    assert [each["label"] for each in state["objects"]] == ["thing 0.png", "thing 1.png"]
    assert state["background"]["size"] == [120, 96]
    drawn.ask("DELETE", "/objects/0")
    state = drawn.ask("GET", "")
    assert (state["drawing"]["boxes"], state["drawing"]["order"]) == ({}, [1])
    assert drawn.object(png(thing(2)))["objects"][-1]["number"] == 2


def test_errors_are_the_words_of_the_command_line(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same mistakes at both: the page shows what the command says, but for names of files."""
    monkeypatch.chdir(tmp_path)
    scene().save("image.png")
    thing(0).save("object_0.png")

    def said(*words: object) -> str:
        done = typed("infer", *words, "--device", "cpu")
        assert done.exit_code == 2 or "failed" in done.stderr
        return done.stderr

    composite = ("POST", "/composite")
    words = page.error(*composite, json={})
    assert words in said()
    assert "nothing to composite" in words
    page.background(png(scene()))
    words = page.error(*composite, json={})
    assert words in said("--background", "image.png")
    assert "no --object" in words
    page.object(png(thing(0)))
    words = page.error(*composite, json={})
    assert words in said("--background", "image.png", "--object", "object_0.png")
    assert "no region" in words
    job = page.composite({0: (100, 0, 30, 30)})
    words = job["error"].removeprefix("error: ")
    given = ("--background", "image.png", "--object", "object_0.png", "--box", "100,0,30,30")
    assert job["state"] == "failed"
    assert words in said(*given)
    assert "leaves the background" in words
    Path("image.png").write_text("no picture")
    words = page.error("PUT", "/background", params={"name": "image.png"}, content=b"no picture")
    assert words.removeprefix("error: ") in said(*given)
    assert "not a picture of a known kind" in words
    Path("image.png").write_bytes(huge_png())
    words = page.error("PUT", "/background", params={"name": "image.png"}, content=huge_png())
    assert words.removeprefix("error: ") in said(*given)
    assert "decoding 20000 x 10000 pixels" in words
    # Nothing of what was drawn is lost, and the background is the one from before.
    state = page.ask("GET", "")
    assert (state["background"]["label"], state["drawing"]["boxes"]) == ("table.png", {"0": [100, 0, 30, 30]})
    assert page.composite({0: WHERE[0]})["state"] == "done"


@pytest.mark.parametrize(
    ("drawing", "words"),
    [
        ({"num": 9}, "--num: 9 is not in the range 1<=x<=8"),
        ({"steps": 0}, "--steps: 0 is not in the range 1<=x<=1000"),
        ({"boxes": {0: [1, 2, 3]}}, "drawing: Expected `array` of length 4, got 3"),
        ({"boxes": {0: [5, 5, 0, 10]}}, "--box 5,5,0,10: width 0 and height 10, both must be at least 1"),
        ({"seed": 10**400}, f"--seed: {10**400} is not in the range"),
        ({"folder": "/etc"}, "drawing: Object contains unknown field `folder`"),
        ({"cutout": "sam"}, "--cutout sam: no weights of Segment Anything"),
    ],
)
def test_numbers_that_will_not_do(
    drawn: Page, drawing: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert words in drawn.error("POST", "/composite", json={"boxes": {0: WHERE[0], 1: WHERE[1]}, **drawing})


def test_no_name_of_a_client_is_a_path(server: Server, page: Page, tmp_path: Path) -> None:
    target = tmp_path / "target"
    page.background(png(scene()), f"../../..{target}")
    state = page.object(png(thing(0)), "..\\..\\etc/passwd")
    assert state["objects"][0]["label"] == "..\\..\\etc/passwd"
    assert not target.exists()
    files = {str(path.relative_to(server.sessions.folder)) for path in server.sessions.folder.rglob("*")}
    own = {"image.png", "object_0.png", "object_0_cut.png"}
    assert files == {"session_1", *(f"session_1/{name}" for name in own)}
    for path in ("/objects/0/..%2f..%2fimage", "/objects/0/picture%00", "/jobs/1/explained/..", "/examples/../egg"):
        answer = page.client.get(f"{page.at}{path}")
        assert answer.status_code in (404, 405), path
    assert page.client.get("/..%2fserver.py").status_code == 404
    assert page.client.get(f"{page.at}/objects/{'9' * 5000}/cut").status_code == 414
    assert page.client.get(f"{page.at}/jobs/1/results/{'9' * 100}").status_code == 404


def test_an_upload_that_is_broken_off_changes_nothing(tiny: WarmModel) -> None:
    server = Server(tiny)
    name, session = server.sessions.new()
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "PUT", "path": f"/api/sessions/{name}/background", "query_string": b"",
        "headers": [(b"host", b"127.0.0.1")],
    }  # fmt: skip
    anyio.run(server.app, scope, receive, send)
    assert sent[0]["status"] == 400
    assert session.background is None
    server.close()


def test_strokes_over_no_background(page: Page) -> None:
    assert "there is no background yet" in page.error("PUT", "/kept", content=png(scene()))


def test_uploads_are_limited(drawn: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_UPLOAD", 1000)
    assert "cup.png: more than 0.001 MB" in drawn.error(
        "POST", "/objects", params={"name": "cup.png"}, content=bytes(1001)
    )
    chunked = iter([bytes(600), bytes(600)])  # without a length
    assert "more than 0.001 MB" in drawn.error("POST", "/objects", content=chunked)
    monkeypatch.undo()
    monkeypatch.setattr(session, "MAX_STORED", 20_000)
    assert "would hold more than 0 MB" in drawn.error("PUT", "/background", content=png(scene((400, 300))))
    assert drawn.ask("GET", "")["background"]["size"] == [120, 96]
    monkeypatch.setattr(session, "MAX_OBJECTS", 2)
    assert "the page takes 2" in drawn.error("POST", "/objects", content=png(thing(0)))


def test_a_full_disk_is_told_and_nothing_is_lost(drawn: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        words = drawn.error("PUT", "/background", content=png(scene(seed=5)))
    assert words.startswith("error: image.png: disk full (no space left on device)")
    assert np.array_equal(pixels(drawn.get("/background")), np.asarray(scene()))
    assert drawn.composite(dict(enumerate(WHERE)))["state"] == "done"


def test_a_model_folder_that_is_deleted(tiny_model: Path, tmp_path: Path) -> None:
    """A model that is loaded goes on; one whose parts are read when they are used says what is missing."""
    for memory, state in (("resident", "done"), ("sequential", "failed")):
        folder = shutil.copytree(tiny_model, tmp_path / memory)
        server = Server(warm(folder, memory=memory))
        page = Page(TestClient(server.app, base_url="http://127.0.0.1"))
        page.background(png(scene()))
        page.object(png(thing(0)))
        shutil.rmtree(folder)
        job = page.composite({0: WHERE[0]}, steps=1)
        assert job["state"] == state, job
        if state == "failed":
            assert "missing, the model folder is not complete" in job["error"]
            assert page.ask("GET", "")["drawing"]["boxes"] == {"0": list(WHERE[0])}
        server.close()


def test_five_at_once_are_served_in_order(server: Server, client: TestClient) -> None:
    pages = [Page(client) for _ in range(5)]
    for k, page in enumerate(pages):
        page.background(png(scene(seed=k)))
        page.object(png(thing(k)))
    order = list[int]()
    holding = threading.Event()
    plain = server.model.composite

    def held(job: Any, samples: Any, progress: Any, check: Any) -> Any:
        holding.wait(20)
        order.append(job.options.seed)
        return plain(job, samples, progress, check)

    server.model.composite = held  # type: ignore[method-assign, assignment]
    try:
        for k, page in enumerate(pages):
            page.ask("POST", "/composite", json={"boxes": {0: WHERE[0]}, "seed": k, "steps": 1})
            assert page.ask("GET", "/job")["ahead"] in ((0, 1) if k == 1 else (k,))
        assert "already under way" in pages[2].error("POST", "/composite", json={"boxes": {0: WHERE[0]}})
        assert pages[3].ask("DELETE", "/job")["state"] == "cancelled"
        assert pages[4].ask("GET", "/job")["ahead"] == 3
        holding.set()
        assert [page.finished()["state"] for page in pages] == ["done", "done", "done", "cancelled", "done"]
    finally:
        del server.model.composite
    assert order == [0, 1, 2, 4]
    results = [pixels(page.get("/jobs/1/results/0")) for page in pages if page is not pages[3]]
    for k, result in zip(order, results, strict=True):
        x, y, width, height = WHERE[0]
        away = np.ones(result.shape[:2], np.bool_)
        away[y : y + height, x : x + width] = False
        assert np.array_equal(result[away], np.asarray(scene(seed=k))[away])
    assert pages[3].composite({0: WHERE[0]}, steps=1)["state"] == "done"


def test_cancelling_stops_at_the_end_of_a_step(drawn: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = list[int]()
    reached, going = threading.Event(), threading.Event()

    class Waiting(worker.InferenceProgress):
        @property
        def step(self) -> int:
            return steps[-1] if steps else 0

        @step.setter
        def step(self, value: int) -> None:
            steps.append(value)
            if value == 2:
                reached.set()
                going.wait(20)

    monkeypatch.setattr("pics_cli.ui.session.Job", _with_progress(Waiting))
    drawn.ask("POST", "/composite", json={"boxes": dict(enumerate(WHERE)), "steps": 6})
    assert reached.wait(20)
    assert drawn.ask("DELETE", "/job")["state"] == "running"
    going.set()
    assert drawn.finished()["state"] == "cancelled"
    assert max(steps) == 2
    assert drawn.client.get(f"{drawn.at}/jobs/1/results/0").status_code == 404


def _with_progress(kind: type[worker.InferenceProgress]) -> Any:
    from pics_cli.ui.job import Job

    def made(*arguments: Any) -> Job:
        number, job, sample, folder = arguments
        return Job(number, job, sample, folder, kind())

    return made


def test_a_brush_corrects_a_cutout(drawn: Page) -> None:
    before = pixels(drawn.get("/objects/0/cut"))
    height, width = before.shape[:2]
    assert before[30, 20, 3] == 255
    assert before[0, 0, 3] == 0
    strokes = np.zeros((height, width, 4), np.uint8)
    strokes[25:35, 15:25] = (230, 0, 40, 255)
    strokes[:5, :5] = (0, 200, 60, 255)
    state = drawn.ask("PUT", "/objects/0/strokes", content=png(Image.fromarray(strokes)))
    assert state["objects"][0]["corrected"] is True
    assert state["objects"][0]["bounds"][:2] == [0, 0]
    after = pixels(drawn.get("/objects/0/cut"))
    assert not after[25:35, 15:25, 3].any()
    assert (after[:5, :5, 3] == 255).all()
    untouched = strokes[..., 3] == 0
    assert np.array_equal(after[untouched], before[untouched])
    wrong = png(Image.new("RGBA", (7, 5)))
    assert "brush strokes on thing 0.png is 7x5, its background" in drawn.error(
        "PUT", "/objects/0/strokes", content=wrong
    )
    assert drawn.ask("DELETE", "/objects/0/strokes")["objects"][0]["corrected"] is False
    assert np.array_equal(pixels(drawn.get("/objects/0/cut")), before)


def test_what_stays_in_front_and_a_background_of_another_size(drawn: Page) -> None:
    strokes = Image.new("RGBA", (120, 96))
    strokes.paste((0, 200, 60, 255), (30, 30, 60, 50))
    assert drawn.ask("PUT", "/kept", content=png(strokes))["kept"]
    assert Image.open(io.BytesIO(drawn.get("/kept"))).size == (120, 96)
    job = drawn.composite(dict(enumerate(WHERE)))
    assert job["state"] == "done", job
    result = pixels(drawn.get("/jobs/1/results/0"))
    assert np.array_equal(result[30:50, 30:60], np.asarray(scene())[30:50, 30:60])
    drawn.background(png(scene((200, 150))))
    job = drawn.composite(dict(enumerate(WHERE)))
    assert job["error"].startswith("error: keep.png is 120x96, its background 200x150 (width x height)")
    drawn.ask("DELETE", "/kept")
    assert drawn.composite(dict(enumerate(WHERE)))["state"] == "done"


def test_backgrounds_that_no_browser_shows(page: Page) -> None:
    """Deep TIFF and CMYK JPEG: a PNG is shown, and the result is of the file itself."""
    deep = np.asarray(scene()).astype(np.uint16) * 257
    tiff = cv2.imencode(".tif", deep[..., ::-1])[1].tobytes()
    jpeg = io.BytesIO()
    scene().convert("CMYK").save(jpeg, "JPEG")
    page.object(png(thing(0)))
    for number, (data, name, mode) in enumerate(
        ((tiff, "deep.tif", np.uint16), (jpeg.getvalue(), "print.jpg", np.uint8))
    ):
        page.background(data, name)
        shown = page.client.get(f"{page.at}/background")
        assert shown.headers["content-type"] == "image/png"
        assert np.abs(pixels(shown.content).astype(int) - np.asarray(scene())).mean() < 4
        assert page.composite({0: WHERE[0]}, steps=1)["state"] == "done"
        result = np.frombuffer(page.get(f"/jobs/{number + 1}/results/0"), np.uint8)
        made = cv2.imdecode(result, cv2.IMREAD_UNCHANGED)
        assert made is not None
        assert made.dtype == mode


def test_what_cannot_be_cut_out_can_be_brushed(mini: WarmModel) -> None:
    server = Server(mini)
    page = Page(TestClient(server.app, base_url="http://127.0.0.1"))
    page.background(png(scene()))
    (found,) = page.object(png(Image.new("RGB", (60, 60), (90, 120, 200))), "wall.png")["objects"]
    assert "--cutout none" in found["error"]
    assert found["error"].removeprefix("error: ") in page.error("POST", "/composite", json={"boxes": {0: WHERE[0]}})
    strokes = Image.new("RGBA", (60, 60))
    strokes.paste((0, 200, 60, 255), (10, 10, 50, 50))
    page.ask("PUT", "/objects/0/strokes", content=png(strokes))
    assert page.composite({0: WHERE[0]})["state"] == "done"
    server.close()


def test_requests_of_other_sites_are_refused(tiny: WarmModel) -> None:
    server = Server(tiny)
    client = TestClient(server.app, base_url="http://127.0.0.1:7860")
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert client.get("/", headers={"Host": "evil.example:7860"}).status_code == 421
    assert client.post("/api/sessions", headers={"Origin": "http://evil.example"}).status_code == 403
    for host in ("[", "[x]", "[::1"):
        assert client.get("/", headers={"Host": host}).status_code == 421, host
    for origin in ("null", "", "http://["):
        assert client.post("/api/sessions", headers={"Origin": origin}).status_code == 403, origin
    assert client.get("/api/page", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.post("/api/sessions", headers={"Origin": "http://127.0.0.1:7860"}).status_code == 200
    assert client.get("/api/sessions/guessed").status_code == 404
    server.close()


def test_a_token_is_asked_for_where_there_is_one(tiny: WarmModel) -> None:
    server = Server(tiny, token="secret")
    client = TestClient(server.app, base_url="http://box.local", follow_redirects=False)
    assert client.get("/").status_code == 403
    assert client.get("/?token=wrong").status_code == 403
    assert client.get("/api/page?token=secret").status_code == 403
    answer = client.get("/?token=secret")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "httponly" in answer.headers["set-cookie"].lower()
    assert client.get("/api/page").status_code == 200
    server.close()


def test_uploads_are_private_and_deleted_at_the_end(tiny: WarmModel) -> None:
    server = Server(tiny)
    with TestClient(server.app, base_url="http://127.0.0.1") as client:
        Page(client).background(png(scene()))
        folder = server.sessions.folder
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert list(folder.rglob("image.png"))
    assert not folder.exists()


def test_examples_are_the_bundled_samples(client: TestClient) -> None:
    names = client.get("/api/page").json()["examples"]
    assert names == sorted(path.name for path in BUNDLED_SAMPLES.iterdir())
    assert client.get(f"/api/examples/{names[0]}").headers["content-type"] == "image/jpeg"
    assert client.get("/api/examples/none").status_code == 404
