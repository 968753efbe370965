"""Block-wise reading of JSON arrays, against json.loads on the whole file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pics_cli.core.datasets.json_records import read_arrays
from pics_cli.errors import PicsError


class Thing(msgspec.Struct):
    id: int
    value: msgspec.Raw = msgspec.Raw()


def read(text: str | bytes, path: Path, block: int, names: tuple[str, ...] = ("things",)) -> tuple[dict, list[str]]:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(data)
    found: dict[str, list[tuple[int, Any]]] = {name: [] for name in names}
    bad = []
    for batch in read_arrays(path, dict.fromkeys(names, Thing), block):
        bad += batch.errors
        assert data[batch.offset : batch.offset + len(batch.data) - 2] == batch.data[1:-1]
        for record in batch.records:
            raw = bytes(record.value)
            found[batch.section].append((record.id, json.loads(raw) if raw else None))
    return found, bad


def pairs(things: list[dict]) -> list[tuple[int, Any]]:
    return [(thing["id"], thing.get("value")) for thing in things]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('{}[],:"\\ é', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a{"', max_size=2), inner, max_size=3),
    max_leaves=8,
)
THINGS = st.lists(st.fixed_dictionaries({"id": st.integers(0, 99)}, optional={"value": JSON, "more": JSON}), max_size=9)


@given(a=THINGS, b=THINGS, extra=JSON, block=st.integers(1, 90), layout=st.sampled_from([None, 1]), swap=st.booleans())
def test_any_block_size_and_layout_reads_what_json_reads(tmp_path_factory, a, b, extra, block, layout, swap) -> None:
    parts = {"info": extra, "things": a, "licenses": [extra], "others": b, "tail": extra}
    data = dict(reversed(parts.items())) if swap else parts
    path = tmp_path_factory.getbasetemp() / "any.json"
    found, bad = read(json.dumps(data, indent=layout), path, block, ("things", "others"))
    assert found == {"things": pairs(a), "others": pairs(b)}
    assert not bad


NUMBERS = ["NaN", "-Infinity", '"a, NaN, b"', '": NaN,"', '"\\\\ \\"x\\": NaN, "', '"Infinity"', '[NaN, 1, "[NaN]"]']


@pytest.mark.parametrize("broken", ["", '{"id": 1, "value": "a " quote too many, NaN}, '])
@pytest.mark.parametrize("block", [1, 50, 4096])
def test_no_numbers_are_blanked_but_not_in_texts(tmp_path: Path, block: int, broken: str) -> None:
    """A name that holds `, NaN,` lost it; and what stands behind a damaged record is read all the same."""
    path = tmp_path / "x.json"
    records = ", ".join(f'{{"id": {number}, "value": {value}}}' for number, value in enumerate(NUMBERS, 10))
    path.write_text(f'{{"things": [{broken}{records}]}}')

    def refuse(text: Any) -> Any:
        raise ValueError("cannot be mended")

    batches = list(read_arrays(path, {"things": Thing}, block, mend={"things": refuse}))
    found = {record.id: json.loads(bytes(record.value)) for batch in batches for record in batch.records}
    values = json.loads(f"[{', '.join(NUMBERS)}]", parse_constant=lambda _: "")
    assert found == dict(enumerate(values, 10))
    assert [error for batch in batches for error in batch.errors if "cannot be mended" not in error] == []


def test_braces_and_quotes_inside_strings_do_not_cut(tmp_path: Path) -> None:
    things = [{"id": i, "value": text} for i, text in enumerate(['a},{"id":7', '\\"},{', "}]", '"', "\\", "},\n {"])]
    for block in (1, 7, 64, 4096):
        assert read(json.dumps({"things": things}), tmp_path / "x.json", block)[0]["things"] == pairs(things)


def test_bad_records_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    text = '{"things": [{"id": 1}, {"id": "two"}, {"id": 3, "value": NaN}, {"value": 4}'
    text += ', {"id": 5, "value": {"a": [{}]}}]}'
    for block in (1, 20, 64, 4096):
        found, bad = read(text, tmp_path / "x.json", block)
        assert found["things"] == [(1, None), (5, {"a": [{}]})]
        assert len(bad) == 3
        assert '"two"' in bad[0]


@pytest.mark.parametrize("block", [1, 20, 4096])
def test_what_is_no_record_is_counted_among_records(tmp_path: Path, block: int) -> None:
    found, bad = read('{"things": [{"id": 1}, null, 7 , "x", [{}], {"id": 2}]}', tmp_path / "x.json", block)
    assert found["things"] == [(1, None), (2, None)]
    assert len(bad) == 4


@pytest.mark.parametrize("cut", [0, 1, 5, 12, 20, 30, 40, 47])
def test_every_truncation_is_refused(tmp_path: Path, cut: int) -> None:
    text = json.dumps({"things": [{"id": 1, "value": "é"}, {"id": 2}], "z": 1})
    with pytest.raises(PicsError, match=r"truncated|empty"):
        read(text.encode()[:cut], tmp_path / "x.json", 8)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1, 2]", "top level is a list"),
        ("hello", "top level is no JSON"),
        ('{"other": []}', "no 'things' in it"),
        ('{"things": 5}', "'things' is not a list"),
        ('{"things": [1, 2]}', "expected an object in 'things'"),
        ('{"things": [{"id": 1},, {"id": 2}]}', "expected an object in 'things'"),
        ('{"things": [{"id": 1}}]}', "expected an object in 'things'"),
        ("{things: []}", "a key in quotes"),
        ('{"things" []}', "expected ':'"),
    ],
)
def test_what_is_no_such_file_is_said(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(PicsError, match=words):
        read(text, tmp_path / "x.json", 8)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(PicsError, match="no such file"):
        list(read_arrays(tmp_path / "none.json", {"things": Thing}))
