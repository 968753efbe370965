"""Outputs that are inputs, by whatever name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pics_cli.core.runtime.outputs import refuse_overwriting, refuse_result_folder
from pics_cli.errors import PicsError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a raw dataset, a picture in it, and links to both."""
    (tmp_path / "raw/photos").mkdir(parents=True)
    (tmp_path / "raw/photos/a.png").write_bytes(b"mine")
    (tmp_path / "link.png").symlink_to("raw/photos/a.png")
    (tmp_path / "hard.png").hardlink_to(tmp_path / "raw/photos/a.png")
    (tmp_path / "elsewhere").symlink_to("raw")
    (tmp_path / "dangling.png").symlink_to("later.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", ["raw/photos/a.png", "raw/x/../photos/a.png", "link.png", "hard.png"])
def test_an_input_by_any_name(here: Path, path: str) -> None:
    (here / "raw/x").mkdir()
    for output, read in ((Path(path), here / "raw/photos/a.png"), (Path("raw/photos/a.png"), Path(path))):
        with pytest.raises(PicsError, match="which this run reads: it would be overwritten") as caught:
            refuse_overwriting([("--out", Path("new")), ("--sheet", output)], [("object_0", read)])
        assert caught.value.message.startswith(f"--sheet {output}: is object_0 {read}")


def test_one_that_is_not_there_yet(here: Path) -> None:
    with pytest.raises(PicsError, match="is --input"):
        refuse_overwriting([("--sheet", Path("dangling.png"))], [("--input", here / "later.png")])


@pytest.mark.parametrize("path", ["raw", "raw/new/sheet.png", "elsewhere/photos/b.png", "elsewhere"])
def test_a_folder_that_stays_untouched(here: Path, path: str) -> None:
    with pytest.raises(PicsError, match=f"^--out {path}: lies in the raw folder raw, where nothing is written$"):
        refuse_overwriting([("--out", Path(path))], [], [("the raw folder", Path("raw"))])


def test_neighbours(here: Path) -> None:
    """Names that begin alike, the folder around, and another file of the same contents."""
    (here / "copy.png").write_bytes(b"mine")
    outputs = [("--out", Path(name)) for name in ("rawer/x", ".", "copy.png", "new.png")]
    refuse_overwriting(outputs, [("object_0", here / "raw/photos/a.png")], [("the raw folder", Path("raw"))])


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("raw", "is the raw folder raw, which this run reads"),
        ("elsewhere", "is the raw folder raw, which this run reads"),
        ("raw/photos", "lies in the raw folder raw, where nothing is written"),
        ("link.png", "is the annotations hard.png, which this run reads"),
    ],
)
def test_results_are_no_part_of_the_dataset(here: Path, path: str, fault: str) -> None:
    with pytest.raises(PicsError, match=f"^--out {path}: {fault}"):
        refuse_result_folder(Path(path), Path(path), Path("raw"), [("the annotations", Path("hard.png"))])


def test_results_may_have_a_folder_of_their_own_in_the_dataset(here: Path) -> None:
    """One that is not there yet, is empty but for hidden files (locks, say), or has a manifest."""
    out = here / "raw/out"
    refuse_result_folder(out, out, Path("raw"))
    out.mkdir()
    (out / ".lock").touch()
    refuse_result_folder(out, out, Path("raw"))
    (out / "00000.tar").touch()
    with pytest.raises(PicsError, match="where nothing is written"):
        refuse_result_folder(out, out, Path("raw"))
    (out / ".pics").mkdir()
    (out / ".pics/manifest.json").touch()
    refuse_result_folder(out, out / ".pics", Path("raw"))
