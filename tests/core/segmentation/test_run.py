"""Runs over a small dataset: every box has its label, interrupted runs end as whole ones, several share a folder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from segment_anything import SamPredictor

from helpers.detection import make_dataset, save_tiny, tiny_sam
from helpers.making import build_folder
from helpers.two_ranks import in_threads
from pics_cli.core.datasets.labels import LabelledImage, block_path, read_block, stats_path
from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.images.image_io import decode_image
from pics_cli.core.images.masks import decode_segmentation
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.runtime.locks import single_writer
from pics_cli.core.runtime.ranks import Ranks
from pics_cli.core.segmentation.annotator import AnnotationProgress
from pics_cli.core.segmentation.blocks import AnnotationJob, encoder_batch_size
from pics_cli.core.segmentation.run import AnnotationReport, annotate
from pics_cli.errors import PicsError


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("sam"))


def job_of(recipe: Path, folder: Path, sam: Path, **options: Any) -> AnnotationJob:
    source = DatasetSplit(load_dataset(recipe), "train", recipe.parent / "raw")
    return AnnotationJob(
        source, folder, sam=str(sam), **{"batch_images": 2, "device": "cpu", "dtype": "fp32", **options}
    )


def run(job: AnnotationJob, ranks: Ranks | None = None) -> AnnotationReport:
    return annotate(job, ranks or Ranks(), AnnotationProgress())


def lines(folder: Path) -> list[LabelledImage]:
    return [each for path in sorted(folder.glob("*.jsonl.gz")) for each in read_block(path)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_every_box_has_its_mask(tmp_path: Path, sam: Path) -> None:
    """In order, with its own id and score; the mask is the predictor's."""
    recipe = make_dataset(tmp_path, 5)
    report = run(job_of(recipe, tmp_path / "labels", sam))
    assert report.manifest["complete"]
    assert report.segmented == {"pictures": 5, "boxes": 15}
    found = lines(tmp_path / "labels")
    assert [each.image_id for each in found] == [10, 11, 12, 13, 14]
    given = json.loads((tmp_path / "raw/boxes.json").read_text())["annotations"]
    predictor = SamPredictor(tiny_sam())
    for picture in found:
        mine = [each for each in given if each["image_id"] == picture.image_id]
        assert [each.id for each in picture.objects] == [each["id"] for each in mine]
        rgb = decode_image((tmp_path / "raw/pictures" / picture.file_name).read_bytes()).rgb
        assert rgb.shape[:2] == (picture.height, picture.width)
        predictor.set_image(rgb)
        for each, theirs in zip(picture.objects, mine, strict=True):
            x, y, w, h = theirs["bbox"]
            assert each.box == (x, y, x + w, y + h)
            assert each.category == {1: "cup", 2: "bowl"}[theirs["category_id"]]
            logits, scores, _ = predictor.predict(box=np.array(each.box), return_logits=True)
            best = int(np.argmax(scores))
            assert each.score == pytest.approx(scores[best], abs=2e-4)
            whole = {"size": [picture.height, picture.width], "counts": each.counts}
            mask = decode_segmentation(whole, picture.height, picture.width)
            clear = np.abs(logits[best]) > 1e-4
            assert np.array_equal(mask.full()[clear], (logits[best] > 0)[clear])
            assert (each.area, each.tight) == (mask.area, mask.box)


def test_build_shards_reads_them(tmp_path: Path, sam: Path) -> None:
    recipe = make_dataset(tmp_path, 5)
    labels = tmp_path / "raw/labels/train"
    run(job_of(recipe, labels, sam))
    manifest, out = build_folder(recipe, tmp_path / "raw", tmp_path / "shards", pairs__contained="keep")
    objects = [each for picture in lines(labels) for each in picture.objects]
    assert manifest["input"]["format"] == "sam"
    assert manifest["samples"] + sum(manifest["skipped"].values()) == 5
    if manifest["samples"]:
        from pics_cli.core.shards.shard_files import read_shard

        _, members = next(iter(read_shard(out / manifest["shards"][0]["file"])))
        meta = json.loads(members["json"])
        chosen = {each["annotation_id"]: each["mask"] for each in meta["objects"]}
        scores = {each.id: each.score for each in objects}
        assert all(mask == {"source": "sam", "score": scores[number]} for number, mask in chosen.items())
    best = max(each.score for each in objects)
    none, _ = build_folder(recipe, tmp_path / "raw", tmp_path / "none", source__sam__min_score=min(best + 0.01, 1.0))
    assert none["samples"] == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_ranges_give_what_one_run_gives(tmp_path: Path, sam: Path, workers: int) -> None:
    """The folder ends byte-identical, whatever the order and however many blocks a range has."""
    recipe = make_dataset(tmp_path, 7)
    whole = run(job_of(recipe, tmp_path / "whole", sam))
    assert whole.manifest["pictures"] == 7
    for rows in ((4, 6), (0, 4), (6, None)):
        part = run(job_of(recipe, tmp_path / "parts", sam, rows=rows, workers=workers))
        assert part.manifest["complete"] is (rows == (6, None))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    again = run(job_of(recipe, tmp_path / "parts", sam))
    assert not again.segmented
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_missing_block_is_made_again(tmp_path: Path, sam: Path) -> None:
    recipe = make_dataset(tmp_path, 7)
    run(job_of(recipe, tmp_path / "labels", sam))
    before = contents(tmp_path / "labels")
    stats_path(tmp_path / "labels", 1).unlink()
    block_path(tmp_path / "labels", 2).write_bytes(b"cut off")  # of a block whose marker is there: not looked at
    report = run(job_of(recipe, tmp_path / "labels", sam))
    assert report.segmented["pictures"] == 2
    after = contents(tmp_path / "labels")
    assert after.pop("00002.jsonl.gz") == b"cut off"
    assert after == {name: data for name, data in before.items() if name != "00002.jsonl.gz"}


def test_bad_pictures_are_listed_and_can_be_tried_again(tmp_path: Path, sam: Path) -> None:
    recipe = make_dataset(tmp_path, 6)
    first, second = (tmp_path / f"raw/pictures/p{number}.jpg" for number in (1, 4))
    kept = first.read_bytes()
    first.write_bytes(kept[: len(kept) // 2])
    second.rename(tmp_path / "elsewhere.jpg")
    report = run(job_of(recipe, tmp_path / "labels", sam))
    assert report.manifest["bad_pictures"] == {"missing_image": 1, "truncated_image": 1}
    assert report.manifest["pictures"] == 4
    assert [each.image_id for each in lines(tmp_path / "labels")] == [10, 12, 13, 15]
    first.write_bytes(kept)
    (tmp_path / "elsewhere.jpg").rename(second)
    again = run(job_of(recipe, tmp_path / "labels", sam, retry=True))
    assert again.segmented == {"pictures": 2, "boxes": 6}
    assert [each.image_id for each in lines(tmp_path / "labels")] == [10, 11, 12, 13, 14, 15]
    whole = run(job_of(recipe, tmp_path / "whole", sam))
    assert whole.manifest["bad_pictures"] == again.manifest["bad_pictures"] == {}
    first.unlink()
    second.unlink()
    with pytest.raises(PicsError, match="2 bad pictures, more than --max-bad 1"):
        run(job_of(recipe, tmp_path / "strict", sam, max_bad=1))


def test_a_plain_run_tries_bad_pictures_again(tmp_path: Path, sam: Path) -> None:
    """The whole pictures folder was not there: nothing of that stays."""
    recipe = make_dataset(tmp_path, 4)
    (tmp_path / "raw/pictures").rename(tmp_path / "away")
    none = run(job_of(recipe, tmp_path / "labels", sam))
    assert (none.manifest["pictures"], none.manifest["bad_pictures"]) == (0, {"missing_image": 4})
    (tmp_path / "away").rename(tmp_path / "raw/pictures")
    assert run(job_of(recipe, tmp_path / "labels", sam)).manifest["pictures"] == 4
    run(job_of(recipe, tmp_path / "whole", sam))
    assert contents(tmp_path / "labels") == contents(tmp_path / "whole")


def test_bad_records_are_judged_before_anything_is_begun(tmp_path: Path, sam: Path) -> None:
    """Of the whole dataset, whatever part of it a run makes."""
    recipe = make_dataset(tmp_path, 6)
    path = tmp_path / "raw/boxes.json"
    data = json.loads(path.read_text())
    data["annotations"] += [{"id": 900 + n, "image_id": 10, "category_id": 1} for n in range(101)]
    path.write_text(json.dumps(data))
    with pytest.raises(PicsError, match="101 bad records, more than --max-bad 100"):
        run(job_of(recipe, tmp_path / "labels", sam, rows=(4, None)))
    assert not (tmp_path / "labels").exists()
    (tmp_path / "raw/pictures/p5.jpg").unlink()
    report = run(job_of(recipe, tmp_path / "labels", sam, rows=(4, None), max_bad=101))
    assert report.manifest["bad_pictures"] == {"missing_image": 1}


def test_overwriting_a_range_leaves_the_rest(tmp_path: Path, sam: Path) -> None:
    recipe = make_dataset(tmp_path, 6)
    run(job_of(recipe, tmp_path / "labels", sam))
    before = contents(tmp_path / "labels")
    block_path(tmp_path / "labels", 0).write_bytes(b"damaged")
    block_path(tmp_path / "labels", 2).write_bytes(b"damaged, too")
    report = run(job_of(recipe, tmp_path / "labels", sam, rows=(0, 4), overwrite=True))
    assert report.segmented["pictures"] == 4
    after = contents(tmp_path / "labels")
    assert after.pop("00002.jsonl.gz") == b"damaged, too"
    assert after == {name: data for name, data in before.items() if name != "00002.jsonl.gz"}
    with pytest.raises(PicsError, match="--range would leave a mixture"):
        run(job_of(recipe, tmp_path / "labels", sam, rows=(0, 4), overwrite=True, multimask=False))
    with single_writer(tmp_path / "labels", ".00001.lock"), pytest.raises(PicsError, match="another writer is at work"):
        run(job_of(recipe, tmp_path / "labels", sam, overwrite=True, multimask=False))
    assert contents(tmp_path / "labels") == after | {"00002.jsonl.gz": b"damaged, too"}
    assert run(job_of(recipe, tmp_path / "labels", sam, overwrite=True, multimask=False)).manifest["complete"]


def test_begun_anew_meanwhile(tmp_path: Path, sam: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever ends last does not put its own manifest over labels of another kind."""
    recipe = make_dataset(tmp_path, 4)
    job = job_of(recipe, tmp_path / "labels", sam)

    def other(found: Any, *_: Any) -> Any:
        path = tmp_path / "labels/manifest.json"
        path.write_text(path.read_text().replace('"best"', '"off"'))
        return found

    monkeypatch.setattr(
        "pics_cli.core.segmentation.annotator._BlockRunner._check_name", lambda _self, found: other(found)
    )
    with pytest.raises(PicsError, match="begun anew with other settings meanwhile"):
        run(job)


def test_a_file_without_pictures(tmp_path: Path, sam: Path) -> None:
    with pytest.raises(PicsError, match=r"boxes.json: lists no picture") as error:
        run(job_of(make_dataset(tmp_path, 0), tmp_path / "labels", sam))
    assert error.value.hint == "is this another dataset's file?"


@pytest.mark.parametrize(
    ("rows", "whole"),
    [((1, 2), "0:2"), ((1, 5), "0:6"), ((3, None), "2:7"), ((0, 5), "0:6"), ((2, 3), "2:4"), ((5, 7), "4:7")],
)
def test_a_range_that_cuts_a_block(tmp_path: Path, sam: Path, rows: tuple[int, int | None], whole: str) -> None:
    """Other pictures than asked for were made, or none."""
    recipe = make_dataset(tmp_path, 7)
    job = job_of(recipe, tmp_path / "labels", sam, rows=rows)
    with pytest.raises(PicsError) as error:
        run(job)
    text = (
        f"--range {job.range_text}: labels are made in blocks of 2 pictures: expected multiples of 2, or 7 as the end"
    )
    assert error.value.message == f"{text}, such as {whole}"
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize(("rows", "made"), [((2, 4), 2), ((6, 7), 1), ((4, 100), 3), ((6, None), 1)])
def test_a_range_makes_what_it_says(tmp_path: Path, sam: Path, rows: tuple[int, int | None], made: int) -> None:
    report = run(job_of(make_dataset(tmp_path, 7), tmp_path / "labels", sam, rows=rows))
    assert report.segmented["pictures"] == report.manifest["pictures"] == made


@pytest.mark.parametrize(("first", "then"), [("blocks", "published"), ("published", "blocks")])
def test_layouts_are_not_mixed(tmp_path: Path, sam: Path, first: Any, then: Any) -> None:
    recipe = make_dataset(tmp_path, 4)
    run(job_of(recipe, tmp_path / "labels", sam, layout=first))
    with pytest.raises(PicsError, match="labels of another layout"):
        run(job_of(recipe, tmp_path / "labels", sam, layout=then, overwrite=True))


@pytest.mark.parametrize("layout", ["blocks", "published"])
def test_labels_of_the_research_script_are_safe(tmp_path: Path, sam: Path, layout: Any) -> None:
    recipe = make_dataset(tmp_path, 4)
    theirs = tmp_path / "labels/patch3/p1.json"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("{}")
    with pytest.raises(PicsError, match=r"another program \(patch3/p1\.json\)"):
        run(job_of(recipe, tmp_path / "labels", sam, layout=layout, overwrite=True))
    assert [path.name for path in (tmp_path / "labels").rglob("*") if path.is_file()] == ["p1.json"]


def test_names_that_would_hide_or_leave(tmp_path: Path, sam: Path) -> None:
    recipe = make_dataset(tmp_path, 4)
    path = tmp_path / "raw/boxes.json"
    data = json.loads(path.read_text())
    hidden = tmp_path / "raw/pictures/.pics"
    hidden.mkdir()
    (tmp_path / "raw/pictures/p1.jpg").rename(hidden / "manifest.jpg")
    data["images"][1]["file_name"] = ".pics/manifest.jpg"
    path.write_text(json.dumps(data))
    report = run(job_of(recipe, tmp_path / "labels", sam, layout="published"))
    assert report.manifest["bad_pictures"] == {"bad_name": 1}
    assert (report.manifest["pictures"], report.manifest["complete"]) == (3, True)


def test_build_shards_wants_all_labels(tmp_path: Path, sam: Path) -> None:
    recipe = make_dataset(tmp_path, 4)
    folder = tmp_path / "raw/labels/train"
    run(job_of(recipe, folder, sam, layout="published", rows=(0, 2)))
    with pytest.raises(PicsError, match="labels of 2 pictures, and the rest is missing"):
        build_folder(recipe, tmp_path / "raw", tmp_path / "shards")
    other = make_dataset(tmp_path / "other", 4)
    labels = tmp_path / "other/raw/labels/train"
    run(job_of(other, labels, sam))
    stats_path(labels, 1).unlink()
    with pytest.raises(PicsError, match=r"00001\.jsonl\.gz: no such file, or not finished; 1 of the manifest's blocks"):
        build_folder(other, tmp_path / "other/raw", tmp_path / "shards")


def test_agreement_drops_objects(tmp_path: Path, sam: Path) -> None:
    """Masks of random weights have little to do with their boxes."""
    recipe = make_dataset(tmp_path, 5)
    labels = tmp_path / "raw/labels/train"
    run(job_of(recipe, labels, sam))
    best = max(each.agreement for picture in lines(labels) for each in picture.objects)
    none, _ = build_folder(
        recipe, tmp_path / "raw", tmp_path / "none", pairs__contained="keep", source__sam__min_score=0,
        source__sam__min_agreement=min(best + 0.01, 1.0),
    )  # fmt: skip
    assert none["samples"] == 0


def test_blocks_of_other_machines_are_left_until_they_have_been_silent(
    tmp_path: Path, sam: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = make_dataset(tmp_path, 6)
    folder = tmp_path / "labels"
    folder.mkdir()
    lock = {"host": "elsewhere", "pid": 1, "job": None}
    (folder / ".00001.lock").write_text(json.dumps(lock | {"renewed": time.time() - 300}))
    report = run(job_of(recipe, folder, sam))
    assert [line.partition(" (")[0] for line in report.in_use] == [
        f"block 00001: {folder}: another writer is at work here"
    ]
    (folder / ".00001.lock").write_text(json.dumps(lock | {"renewed": time.time() - 660}))
    run(job_of(recipe, folder, sam))
    assert "00001.lock: taken over: pid 1 on elsewhere has not been heard of for 11 minutes" in caplog.text
    run(job_of(recipe, tmp_path / "whole", sam))
    (folder / ".00002.lock").write_text("{}")  # of one that was killed when its block was done
    run(job_of(recipe, folder, sam))
    assert contents(folder) == contents(tmp_path / "whole")


def test_boxes_that_name_nothing_are_counted(tmp_path: Path, sam: Path) -> None:
    recipe = make_dataset(tmp_path, 2)
    path = tmp_path / "raw/boxes.json"
    data = json.loads(path.read_text())
    boxes = ([10, 10, 0, 5], [10, 10, -4, 5], [500, 10, 20, 20], [-20, -20, 60, 60], [4, 4, 30, 30], [5, 5, 20, 20])
    data["annotations"] = [
        {"id": n, "image_id": 10, "bbox": box, "category_id": 9 if n == 4 else 1, "iscrowd": int(n == 5)}
        for n, box in enumerate(boxes)
    ]
    path.write_text(json.dumps(data))
    report = run(job_of(recipe, tmp_path / "labels", sam))
    assert report.manifest["dropped"] == {"no_size": 2, "outside": 1}
    first, second = lines(tmp_path / "labels")
    assert [each.id for each in first.objects] == [3, 4, 5]
    assert first.objects[0].box == (-20, -20, 40, 40)
    assert "clipped" in first.objects[0].flags
    assert "clipped" not in first.objects[1].flags
    assert "unknown_category" in first.objects[1].flags
    assert first.objects[1].category is None
    assert "crowd" in first.objects[2].flags
    assert second.objects == []


def test_two_ranks_share_the_blocks(tmp_path: Path, sam: Path) -> None:
    recipe = make_dataset(tmp_path, 7)
    whole = tmp_path / "whole"
    run(job_of(recipe, whole, sam))
    first, second = in_threads(lambda ranks: run(job_of(recipe, tmp_path / "both", sam), ranks=ranks))
    assert contents(tmp_path / "both") == contents(whole)
    assert first.segmented == second.segmented == {"pictures": 7, "boxes": 21}


def test_a_block_of_another_run_is_left_to_it(tmp_path: Path, sam: Path) -> None:
    recipe = make_dataset(tmp_path, 6)
    folder = tmp_path / "labels"
    folder.mkdir()
    with single_writer(folder, ".00001.lock"):
        report = run(job_of(recipe, folder, sam))
    assert report.segmented["pictures"] == 4
    assert len(report.in_use) == 1
    assert not report.manifest["complete"]
    assert run(job_of(recipe, folder, sam)).segmented["pictures"] == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"dtype": "bf16"}, 'dtype: the folder has "fp32", this run "bf16"'),
        ({"multimask": False}, 'multimask: the folder has "best", this run "off"'),
        ({"layout": "blocks", "sam": "other"}, "weights: the folder has"),
    ],
)
def test_labels_made_otherwise_are_refused(tmp_path: Path, sam: Path, change: dict[str, Any], text: str) -> None:
    recipe = make_dataset(tmp_path, 2)
    run(job_of(recipe, tmp_path / "labels", sam))
    if "sam" in change:
        change = {"sam": str(save_tiny(tmp_path / "other", 5))}
        job = job_of(recipe, tmp_path / "labels", Path(change["sam"]))
    else:
        job = job_of(recipe, tmp_path / "labels", sam, **change)
    before = contents(tmp_path / "labels")
    with pytest.raises(PicsError, match="was made otherwise") as error:
        run(job)
    assert text in error.value.message
    assert contents(tmp_path / "labels") == before


def test_published_layout(tmp_path: Path, sam: Path) -> None:
    recipe = make_dataset(tmp_path, 4)
    folder = tmp_path / "raw/labels/train"
    run(job_of(recipe, folder, sam, layout="published"))
    run(job_of(recipe, tmp_path / "blocks", sam))
    names = sorted(path.name for path in folder.glob("*.json"))
    assert names == ["p0.json", "p1.json", "p2.json", "p3.json"]
    for picture in lines(tmp_path / "blocks"):
        label = json.loads((folder / picture.file_name.replace(".jpg", ".json")).read_text())
        assert label["image_id"] == picture.image_id
        shown = [each for each in picture.objects if each.area]
        assert [each["bbox"][:2] for each in label["annotations"]] <= [list(each.tight[:2]) for each in shown]
    manifest, _ = build_folder(recipe, tmp_path / "raw", tmp_path / "shards")
    assert manifest["input"]["format"] == "labels"


@pytest.mark.parametrize(("asked", "kind", "expected"), [(None, "cpu", 1), (None, "cuda", 4), (3, "cpu", 3)])
def test_pictures_at_once(asked: int | None, kind: str, expected: int, tmp_path: Path, sam: Path) -> None:
    job = job_of(make_dataset(tmp_path, 1), tmp_path / "labels", sam, batch_images=asked)
    assert encoder_batch_size(job, kind) == expected


def test_default_batch_gives_the_same_labels(tmp_path: Path, sam: Path) -> None:
    recipe = make_dataset(tmp_path, 5)
    for name, batch in (("two", 2), ("default", None)):
        run(job_of(recipe, tmp_path / name, sam, batch_images=batch))
    assert contents(tmp_path / "two") == contents(tmp_path / "default")
