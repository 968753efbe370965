"""What lies in a results folder from before: sheets, temporary files, odd names."""

from __future__ import annotations

from pathlib import Path

from composites import make_sample, run


def test_sheets_do_not_outlive_their_picture(tiny_model: Path, tmp_path: Path) -> None:
    make_sample(tmp_path / "in" / "a")
    output = tmp_path / "out"
    run(tmp_path / "in", output, tiny_model, grid=True, explain=True)
    sheets = sorted(path.name for folder in ("grids", "explain") for path in (output / folder).iterdir())
    assert sheets == ["a_alpha.png", "a_regions.png", "a_routing.png", "grid_a.png"]
    before = (output / "grids" / "grid_a.png").read_bytes()
    run(tmp_path / "in", output, tiny_model, seed=1, overwrite=True)
    assert not any(path for folder in ("grids", "explain") for path in (output / folder).iterdir())
    assert run(tmp_path / "in", output, tiny_model, seed=1, grid=True).made == 0
    assert (output / "grids" / "grid_a.png").read_bytes() != before


def test_temporary_files_of_others_stay(tiny_model: Path, tmp_path: Path) -> None:
    make_sample(tmp_path / "in" / "a")
    output = tmp_path / "out"
    theirs = [output / "models" / "tiny.99.tmp", output / "shards" / "00000.tar.7.tmp"]
    for path in theirs:
        path.mkdir(parents=True)
    (output / "mine.5.tmp").write_text("not ours")
    left = output / "composed" / "composed_a.png.12345.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    run(tmp_path / "in", output, tiny_model)
    assert all(path.exists() for path in (*theirs, output / "mine.5.tmp"))
    assert not left.exists()


def test_odd_names(tiny_model: Path, tmp_path: Path) -> None:
    """A line break in a name, and one that leaves no room for a picture's name beside it, do not stop the others."""
    odd, long = "two\nlines", "n" * 240
    for name in (odd, long, "plain"):
        make_sample(tmp_path / "in" / name)
    report = run(tmp_path / "in", tmp_path / "out", tiny_model, grid=True, explain=True)
    assert [(failure.id, failure.reason) for failure in report.failures] == [(long, "long_name")]
    assert {path.name for path in (tmp_path / "out" / "composed").iterdir()} == {
        f"composed_{odd}.png", "composed_plain.png",
    }  # fmt: skip
