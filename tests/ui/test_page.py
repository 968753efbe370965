"""The page in a real browser: from nothing to the downloads with the mouse, and every mistake a person can make."""

from __future__ import annotations

import io
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser

from helpers.browser import chromium
from helpers.photographs import photograph
from helpers.ui_browser import Film, served
from helpers.ui_pages import huge_png, png, warm
from pics_cli.core.inference.inputs import BUNDLED_SAMPLES
from pics_cli.core.inference.layer_files import merge_files
from pics_cli.core.inference.record import read_record
from pics_cli.ui.server import Server

pytestmark = pytest.mark.browser


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served(Server(warm("pics-mini"))) as address:
        yield address


def test_from_an_empty_page_to_the_downloads(browser: Browser, address: str, tmp_path: Path) -> None:
    film = Film(browser, address, tmp_path / "film")
    page = film.page
    film.shot("01_empty")
    sample = BUNDLED_SAMPLES / "egg_in_cup"
    film.drop("#stage", "table.jpg", (sample / "image.jpg").read_bytes())
    page.wait_for_selector("#background:not([hidden])")
    film.drop("#object-drop", "cup.png", (sample / "object_0.png").read_bytes())
    page.wait_for_selector("#objects li:nth-child(1)")
    toy = png(Image.fromarray(photograph(240)[0]))
    page.set_input_files("#object-files", {"name": "toy on grass.png", "mimeType": "image/png", "buffer": toy})
    page.wait_for_selector("#objects li:nth-child(2)")
    assert "grabcut" in page.inner_text("#objects li:nth-child(2)")
    assert "Draw a box for object 0, cup.png" in page.inner_text("#tip")
    film.shot("02_uploaded")

    # Boxes: drawn, moved by the middle, resized by a corner, moved by a key.
    film.drag(film.place("#boxes", 0.25, 0.3), film.place("#boxes", 0.5, 0.5), film.place("#boxes", 0.75, 0.85))
    film.drag(film.place("#boxes", 0.2, 0.05), film.place("#boxes", 0.45, 0.5))
    drawn = film.box(0)
    assert np.allclose(drawn, [96, 115, 192, 211], atol=2), drawn
    film.drag(film.place("#boxes", 0.65, 0.7), film.place("#boxes", 0.7, 0.7))
    assert np.allclose(film.box(0), [115, 115, 192, 211], atol=2)
    film.drag(film.place('.handle[data-side="se"]', 0.5, 0.5), film.place("#boxes", 0.7, 0.9))
    moved = film.box(0)
    assert np.allclose(moved, [115, 115, 154, 230], atol=3), moved
    page.keyboard.press("ArrowLeft")
    assert film.box(0) == [moved[0] - 1, *moved[1:]]
    film.shot("03_boxes")

    # A cut-out, corrected; and what stays in front.
    before = page.get_attribute("#objects li:nth-child(2) .thumb", "src")
    page.click("#objects li:nth-child(2) >> text=Brush")
    page.wait_for_selector("#brush[open]")
    film.drag(film.place("#brush-canvas", 0.1, 0.1), film.place("#brush-canvas", 0.2, 0.15))
    page.click("#brush-remove")
    film.drag(film.place("#brush-canvas", 0.45, 0.45), film.place("#brush-canvas", 0.55, 0.5))
    film.shot("04_brush")
    page.click("#brush-done")
    film.until("before => document.querySelectorAll('.thumb')[1].getAttribute('src') !== before", before)
    page.click("#keep")
    page.wait_for_selector("#brush[open]")
    film.drag(film.place("#brush-canvas", 0.3, 0.8), film.place("#brush-canvas", 0.7, 0.82))
    film.shot("05_keep")
    page.click("#brush-done")
    page.wait_for_selector(".kept")

    # Order: by dragging the second to the front, then by words.
    film.drag(film.place("#objects li:nth-child(2) .grip", 0.5, 0.5), film.place("#objects li:nth-child(1)", 0.1, 0.1))
    assert page.inner_text("#objects li:nth-child(1) .name").startswith("1")
    assert page.input_value("#order") == "listed"
    page.select_option("#relation-a", "1")
    page.select_option("#relation", "in")
    page.select_option("#relation-b", "0")
    page.click("#relate")
    assert page.inner_text("#objects li:nth-child(1) .name").startswith("0")
    page.fill("#num", "2")
    page.fill("#seed", "4")
    page.check("#layers")
    page.check("#explain")
    film.shot("06_ordered")

    film.composite()
    assert "changed outside the boxes: 0 pixels; layers recombine: 0 values differ" in page.inner_text("#made")
    film.shot("07_result")
    film.drag(film.place("#divider", 0.5, 0.5), film.place("#compare-area", 0.2, 0.5))
    assert abs(float(page.input_value("#divide")) - 20) < 1
    page.click('[data-zoom="1"]')
    assert page.evaluate("document.getElementById('after').getBoundingClientRect().width") == 384
    page.click('[data-zoom="2"]')
    page.click("#candidates button:nth-child(2)")
    page.click("#explained summary")
    film.until("[...document.querySelectorAll('#maps img')].every((each) => each.naturalWidth)")
    film.shot("08_zoom_and_maps", full_page=True)

    picture = film.download("#download-png")
    (tmp_path / "picture.png").write_bytes(picture)
    record = read_record(tmp_path / "picture.png")
    assert record is not None
    assert (record["seed"], record["candidate"], record["order"], record["cutouts"][0]) == (4, 1, [1, 0], "alpha")
    after, back = np.asarray(Image.open(io.BytesIO(picture))), np.asarray(Image.open(sample / "image.jpg"))
    assert after.shape == back.shape
    with zipfile.ZipFile(io.BytesIO(film.download("#download-sample"))) as file:
        assert set(file.namelist()) == {
            f"picture/{name}"
            for name in ("image.jpg", "object_0.png", "object_0_mask.png", "object_1.png", "object_1_mask.png",
                         "keep.png", "command.txt")
        }  # fmt: skip
        kept = np.asarray(Image.open(io.BytesIO(file.read("picture/keep.png"))))
    assert kept.any()
    assert np.array_equal(after[kept], back[kept])

    with zipfile.ZipFile(io.BytesIO(film.download("#download-layers"))) as file:
        file.extractall(tmp_path)
    assert (tmp_path / "layers/layers_picture_1.ora").is_file()
    merged = merge_files(tmp_path / "layers/layers_picture_1", tmp_path / "merged.png")
    assert merged.unchanged
    assert np.array_equal(np.asarray(Image.open(tmp_path / "merged.png")), after)

    # All of it is there after a reload; a second page is its own, even where it gets the first one's memory.
    boxes = film.box(0), film.box(1)
    page.reload()
    page.wait_for_selector("body[data-shown]")
    assert (film.box(0), film.box(1)) == boxes
    assert (page.input_value("#seed"), page.input_value("#order")) == ("4", "listed")
    assert page.locator(".kept").count() == 1
    with film.context.expect_page() as opened:
        page.evaluate("() => void open('/')")
    other = opened.value
    other.wait_for_selector("body[data-ready]")
    assert other.locator("#objects li").count() == 0
    names = [tab.evaluate("sessionStorage.getItem('pics-session')") for tab in (page, other)]
    assert names[0] != names[1]
    page.reload()
    page.wait_for_selector("body[data-shown]")
    page.once("dialog", lambda dialog: dialog.dismiss())  # an example would replace all of it
    page.click("#show-draw")
    page.click("#example-list button:nth-child(1)")
    assert (film.box(0), film.box(1)) == boxes
    assert film.said == []
    assert film.asked
    assert not [url for url in film.asked if not url.startswith((address, f"blob:{address}"))]


def test_every_mistake_is_told_and_nothing_is_lost(browser: Browser, tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    server = Server(warm(folder, memory="sequential"))
    with served(server) as address:
        film = Film(browser, address, tmp_path / "mistakes")
        page = film.page
        page.click("#composite")
        assert film.error().startswith("error: there is no background")
        film.shot("11_nothing")
        sample = BUNDLED_SAMPLES / "egg_in_cup"
        film.drop("#stage", "notes.txt", b"no picture at all")
        assert "notes.txt: not a picture of a known kind" in film.error()
        film.drop("#stage", "panorama.png", huge_png())
        film.until("document.getElementById('error').textContent.includes('panorama.png: decoding')")
        film.shot("12_200_megapixels")
        film.drop("#stage", "table.jpg", (sample / "image.jpg").read_bytes())
        page.wait_for_selector("#background:not([hidden])")
        page.click("#composite")
        assert "there is no object" in film.error()
        film.drop("#object-drop", "cup.png", (sample / "object_0.png").read_bytes())
        page.wait_for_selector("#objects li")
        page.click("#composite")
        assert "object 0, cup.png, has no box" in film.error()
        film.shot("13_no_box")
        for k, value in enumerate((300, 100, 150, 150)):
            page.locator("#objects .place input").nth(k).fill(str(value))
        page.click("#composite")
        film.until("document.getElementById('error').textContent.includes('leaves the background')")
        film.shot("14_box_outside")
        page.locator("#objects .place input").nth(0).fill("100")
        page.fill("#num", "9")
        page.click("#composite")
        film.until("document.getElementById('error').textContent.includes('--num: 9 is not in the range')")
        page.fill("#num", "1")
        shutil.rmtree(folder)
        page.click("#composite")
        film.until("document.getElementById('error').textContent.includes('the model folder is not complete')")
        film.shot("15_model_deleted")
        assert page.inner_text("#model") == "model"
        assert film.box(0) == [100, 100, 150, 150]
        page.reload()
        page.wait_for_selector("#objects li")
        assert film.box(0) == [100, 100, 150, 150]
    page.click("#composite")
    assert "the server does not answer" in film.error()
    film.shot("16_server_gone")
    assert film.box(0) == [100, 100, 150, 150]
    assert film.said == []


def test_waiting_in_the_queue_and_cancelling_at_the_width_of_a_phone(browser: Browser, tmp_path: Path) -> None:
    server = Server(warm("pics-mini"))
    going = threading.Event()
    plain = server.model.composite

    def held(job: Any, samples: Any, progress: Any, check: Callable[[], None]) -> Any:
        while not going.wait(0.02):
            check()
        return plain(job, samples, progress, check)

    server.model.composite = held  # type: ignore[method-assign, assignment]
    with served(server) as address:
        phone = {"viewport": {"width": 375, "height": 740}, "has_touch": True, "color_scheme": "dark"}
        films = [Film(browser, address, tmp_path / "phone", **phone) for _ in range(2)]
        for film in films:
            film.page.tap("#example-list button:nth-child(6)")
            film.page.wait_for_selector("#objects li:nth-child(2)")
            film.page.tap("#composite")
            film.page.wait_for_selector("#cancel:not([hidden])")
        first, second = (film.page for film in films)
        films[1].until("document.getElementById('status').textContent === 'waiting: 1 before you in the queue'")
        films[1].shot("21_waiting")
        first.tap("#cancel")
        films[0].until("document.getElementById('status').textContent === 'cancelled'")
        going.set()
        second.wait_for_selector("body[data-shown]")
        films[1].shot("22_phone_result", full_page=True)
        second.tap("#show-draw")
        films[1].shot("23_phone", full_page=True)
        for view in ("#show-draw", "#show-result"):
            second.tap(view)
            assert second.evaluate("document.documentElement.scrollWidth") == 375
        assert [film.said for film in films] == [[], []]
