"""`--check` on shards of ours and of the research project's kind, whole and damaged; webdataset reads ours."""

from __future__ import annotations

import io
import json
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import webdataset

from pics_cli.core.shards.shard_files import read_shard


def png(array: np.ndarray, *flags: int) -> bytes:
    return cv2.imencode(".png", array, flags)[1].tobytes()


def published(seed: int) -> dict[str, bytes]:
    """Members as the research project's shards hold them: no json, 8-bit masks."""
    rng = np.random.default_rng(seed)
    members = {"bg.jpg": cv2.imencode(".jpg", rng.integers(0, 255, (40, 60, 3), np.uint8))[1].tobytes()}
    for k in range(2):
        mask = np.zeros((40, 60), np.uint8)
        mask[5 : 20 + k, 8:30] = 255
        members[f"obj{k}.png"] = png(np.full((224, 224, 3), 255, np.uint8))
        members[f"mask{k}.png"] = png(mask)
    return members


Entry = tuple[str, bytes]


def huge_png() -> bytes:
    """A header that claims 100,000 by 100,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(100))
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, pixels, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def entries(keys: Sequence[str]) -> list[Entry]:
    found = []
    for seed, key in enumerate(keys):
        names = list(published(seed).items())
        np.random.default_rng(seed).shuffle(names)  # members stand in any order
        found += [(f"{key}.{name}", bytes(data)) for name, data in names]
    return found


def write(path: Path, members: Sequence[Entry], kind: int = tarfile.GNU_FORMAT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("kind", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./", "folder/", "n" * 130])
def test_published_shards_pass(tmp_path: Path, pics, kind: int, prefix: str) -> None:
    if kind == tarfile.USTAR_FORMAT and len(prefix) > 100:
        prefix = "p" * 90 + "/" + "n" * 50  # ustar splits long names at a slash
    write(tmp_path / "shards/00000.tar", entries([f"{prefix}0001", f"{prefix}-2é"]), kind)
    done = pics("build-shards", "--check", "shards", "--workers", "1")
    assert done.returncode == 0, done.stderr
    for words in ("samples", "2 (as the research project publishes them)", "no manifest"):
        assert words in done.stdout


def drop(members: list[Entry], name: str) -> list[Entry]:
    return [entry for entry in members if entry[0] != name]


def swap(members: list[Entry], name: str, data: bytes) -> list[Entry]:
    return [(key, data if key == name else old) for key, old in members]


GOOD = entries(["a", "b", "c"])
CUT = dict(GOOD)["b.bg.jpg"][:-30]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (drop(GOOD, "b.mask1.png"), "00000.tar b: missing_member: no mask1.png"),
        (drop(GOOD, "b.bg.jpg"), "b: missing_member: no bg.jpg"),
        (drop(drop(GOOD, "b.obj0.png"), "b.mask0.png"), "b: missing_member: no mask0.png, obj0.png"),
        ([*GOOD, ("c.note.txt", b"")], "c: extra_member: unexpected note.txt"),
        ([*GOOD, *entries(["a"])], "a: duplicate_key: a second sample"),
        ([*GOOD, ("c.bg.jpg", b"")], "duplicate_member: c holds bg.jpg twice"),
        (swap(GOOD, "b.bg.jpg", CUT), "b: truncated_image: Premature end of JPEG file"),
        (swap(GOOD, "b.bg.jpg", b""), "b: unreadable_image: the file is empty"),
        (swap(GOOD, "b.obj1.png", b"x"), "b: bad_reference: obj1.png: not a picture of a known kind"),
        (swap(GOOD, "b.mask0.png", b""), "b: bad_mask: mask0.png: the file is empty"),
        (swap(GOOD, "b.mask0.png", png(np.full((40, 61), 255, np.uint8))), "mask0.png is 61x40, its picture 60x40"),
        (swap(GOOD, "b.mask0.png", png(np.full((40, 60), 127, np.uint8))), "b: empty_mask: mask0.png has no pixel set"),
        (swap(GOOD, "b.mask0.png", png(np.full((40, 60), 128, np.uint8))), "b: full_mask: mask0.png covers the whole"),
        (swap(GOOD, "b.obj0.png", png(np.zeros((9, 9, 3), np.uint8))), "b: reference_size: obj0.png is 9x9"),
        ([*GOOD, ("c.json", b"{")], "c: bad_json: "),
        ([*GOOD, ("c.json", b'{"schema": 1, "objects": 3}')], "describes no list of objects"),
        ([*GOOD, ("c.json", b"[]")], "c: bad_json: schema is None"),
        (swap(GOOD, "b.mask0.png", huge_png()), "b: bad_mask: mask0.png: claims 100000 x 100000 pixels"),
        (swap(GOOD, "b.bg.jpg", huge_png()), "b: image_too_large: claims 100000 x 100000 pixels"),
        ([*GOOD, ("c.json", b'{"schema": 99}')], "c: bad_json: schema is 99, expected 1"),
        ([*GOOD, ("c.json", b'{"schema": 1, "objects": []}')], "c: bad_json: describes 0 objects, the sample holds 2"),
    ],
)
def test_damage_is_named(tmp_path: Path, pics, members: list[Entry], words: str) -> None:
    write(tmp_path / "shards/00000.tar", members)
    done = pics("build-shards", "--check", "shards", "--workers", "1")
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_damaged_files_and_keys_in_two_shards_are_named(tmp_path: Path, pics) -> None:
    write(tmp_path / "shards/00000.tar", GOOD)
    write(tmp_path / "shards/00001.tar", entries(["d", "b"]))
    data = (tmp_path / "shards/00000.tar").read_bytes()
    (tmp_path / "shards/00002.tar").write_bytes(data[: len(data) // 3])
    (tmp_path / "shards/00003.tar").write_bytes(b"")
    (tmp_path / "shards/00004.tar").write_bytes(b"x" * 5000)
    with tarfile.open(tmp_path / "shards/00000.tar") as tar:
        header = tar.getmembers()[6].offset  # of a member in the middle
    (tmp_path / "shards/00005.tar").write_bytes(data[:header] + b"\1" * 512 + data[header + 512 :])
    (tmp_path / "shards/00006.tar").write_bytes(data[: header + 200])
    (tmp_path / "shards/00007.tar").mkdir()
    done = pics("build-shards", "--check", "shards", "--workers", "2")
    assert done.returncode == 2
    for words in ("00001.tar : duplicate_key: shares a key with 00000.tar", "00002.tar : unreadable_shard"):
        assert words in done.stderr
    for shard in range(3, 7):
        assert f"0000{shard}.tar : unreadable_shard" in done.stderr


@pytest.fixture
def ours(lvis_raw: Path, tmp_path: Path, pics) -> Path:
    small = ("--shard-size", "9", "--area-ratio", "0.05", "--workers", "1")
    done = pics("build-shards", "lvis", "--raw", lvis_raw, "--out", "out", *small)
    assert done.returncode == 0, done.stderr
    return tmp_path / "out"


def test_ours_pass_and_every_change_is_found(ours: Path, pics) -> None:
    assert pics("build-shards", "--check", ours).returncode == 0
    whole = (ours / "00001.tar").read_bytes()
    changes: list[tuple[Callable[[], object], str]] = [
        (lambda: (ours / "00001.tar").write_bytes(whole.replace(b"\xff\xd8", b"\xff\xd9", 1)), "checksum: sha256"),
        (lambda: (ours / "00001.tar").write_bytes(whole[:-1024]), "00001.tar : checksum"),
        ((ours / "00001.tar").unlink, "00001.tar : missing_shard: listed in manifest.json"),
        (lambda: shutil.copy(ours / "00000.tar", ours / "00099.tar"), "00099.tar : unlisted_shard"),
        (lambda: (ours / "manifest.json").write_text("{"), "cannot be read as a manifest"),
    ]
    for change, words in changes:
        change()
        done = pics("build-shards", "--check", ours, "--workers", "1")
        assert done.returncode == 2
        assert words in done.stderr
        (ours / "00001.tar").write_bytes(whole)
    (ours / "manifest.json").write_text(json.dumps({"complete": False}))
    assert "its build was not finished" in pics("build-shards", "--check", ours, "--workers", "1").stderr


def test_a_plain_webdataset_pipeline_reads_ours(ours: Path) -> None:
    names = {"background": "bg.jpg"}
    names |= {f"{kind}{k}": f"{kind}{k}.png" for kind in ("obj", "mask") for k in range(2)}
    urls = sorted(str(path) for path in ours.glob("*.tar"))
    read = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("pil").rename(**names))
    own = [(key, members) for path in urls for key, members in read_shard(Path(path))]
    assert [sample["__key__"] for sample in read] == [key for key, _ in own]
    assert len(read) == json.loads((ours / "manifest.json").read_text())["samples"] > 9
    for sample, (_, members) in zip(read, own, strict=True):
        meta = json.loads(members["json"])
        assert sample["background"].size == sample["mask0"].size == (meta["width"], meta["height"])
        assert sample["obj1"].size == (224, 224)
        for k, thing in enumerate(meta["objects"]):
            mask = np.asarray(sample[f"mask{k}"].convert("L")) > 127
            x, y, across, down = cv2.boundingRect(mask.astype(np.uint8))
            assert [x, y, x + across, y + down] == thing["box"]
            assert mask.sum() == thing["pixels"]


def test_a_shard_of_zeros(tmp_path: Path, pics) -> None:
    """As a download leaves it that never came; to a reader of tars it is an archive without members."""
    (tmp_path / "zeros").mkdir()
    (tmp_path / "zeros/00000.tar").write_bytes(bytes(20480))
    done = pics("build-shards", "--check", "zeros", "--workers", "1")
    assert done.returncode == 2
    assert "00000.tar : empty_shard: no sample in it" in done.stderr


def test_names_of_members_are_shown_harmless(tmp_path: Path, pics) -> None:
    write(tmp_path / "bad/00000.tar", [("\x1b[2Jkey.bg.jpg", b"")])
    done = pics("build-shards", "--check", "bad", "--workers", "1")
    assert done.returncode == 2
    assert "\x1b" not in done.stdout + done.stderr
    assert r"\x1b[2Jkey" in done.stderr
