"""Files of `torch.save` as they are met: every format, strange objects beside the tensors, and files that do harm."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import os
import pathlib
import pickle
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pics_cli.core.model import inert_pickle
from pics_cli.core.model.weight_files import Checkpoint, open_checkpoint, read_weights, write_safetensors
from pics_cli.errors import PicsError

TENSORS = {
    "a": torch.arange(24, dtype=torch.float32).reshape(2, 3, 4),
    "b": torch.randn(5, generator=torch.Generator().manual_seed(0)),
    "scalar": torch.tensor(3.5),
    "empty": torch.zeros(0, 4),
}


def equal(checkpoint: Checkpoint, expected: dict[str, Tensor]) -> None:
    assert dict(checkpoint.shapes) == {key: tuple(value.shape) for key, value in expected.items()}
    for key, value in expected.items():
        read = checkpoint.read(key)
        assert read.dtype == value.dtype
        assert torch.equal(read, value), key


def views() -> dict[str, Tensor]:
    """Tensors that lie in one storage: in a row, across, overlapping, and a number that stands for many."""
    flat = torch.arange(60, dtype=torch.float32)
    return {
        "row": flat[7:19],
        "matrix": flat[20:50].reshape(5, 6),
        "across": flat[20:50].reshape(5, 6).T,
        "apart": flat[::7],
        "same": flat[25:45].reshape(4, 5),
        "repeated": flat[3].expand(3, 1000),
    }


KINDS: dict[str, Callable[[], dict[str, Tensor]]] = {
    "float32": lambda: TENSORS,
    "float16": lambda: {key: value.half() for key, value in TENSORS.items()},
    "bfloat16": lambda: {key: value.bfloat16() for key, value in TENSORS.items()},
    "integers": lambda: {"long": torch.arange(4), "byte": torch.arange(4).byte(), "bool": torch.tensor([True, False])},
    "one storage": views,
    "parameters": lambda: {key: nn.Parameter(value) for key, value in TENSORS.items()},
    "ordered": lambda: collections.OrderedDict(nn.Linear(3, 4).state_dict()),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_every_kind(tmp_path: Path, kind: str, legacy: bool) -> None:
    state = KINDS[kind]()
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    equal(open_checkpoint(tmp_path / "a.pt"), {key: value.detach() for key, value in state.items()})


class Colour(enum.Enum):
    RED = 1


@pytest.fixture
def foreign() -> Iterator[dict[str, Any]]:
    """What Lightning keeps beside the weights, some of it of a package that is gone when the file is read."""
    package = types.ModuleType("gone")
    exec(
        "class AttributeDict(dict): pass\n"
        "class Config:\n"
        "    def __init__(self): self.content = {'lr': 1e-5}\n"
        "    def __getstate__(self): return {'content': self.content}\n"
        "    def __setstate__(self, state): raise SystemExit('run by the file')\n"
        "class Slots:\n    __slots__ = ('a',)\n"
        "class Numbers(list): pass\n"
        "class Names(set): pass\n",
        package.__dict__,
    )
    for name in ("AttributeDict", "Config", "Slots", "Numbers", "Names"):
        getattr(package, name).__module__ = "gone"
    sys.modules["gone"] = package
    made: Any = package
    slots = made.Slots()
    slots.a = 4
    yield {
        "callbacks": {"ModelCheckpoint": {"best_model_path": pathlib.Path("a/b"), "best": torch.tensor(0.5)}},
        "hyper_parameters": made.AttributeDict(lr=1e-5, config=made.Config()),
        "loops": [argparse.Namespace(epoch=18), slots, made.Numbers([1, 2]), made.Names("ab"), Colour.RED],
        "lr_schedulers": [
            np.float64(3),
            np.arange(5),
            np.dtype("int8"),
            datetime.timedelta(3),
            collections.Counter("aab"),
        ],
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"params": [0]}]}],
    }
    del sys.modules["gone"]


@pytest.mark.parametrize("legacy", [False, True])
def test_foreign_objects_are_passed_over(tmp_path: Path, foreign: dict[str, Any], legacy: bool) -> None:
    saved = {"state_dict": TENSORS, "global_step": 6000, **foreign}
    torch.save(saved, tmp_path / "a.ckpt", _use_new_zipfile_serialization=not legacy)
    del sys.modules["gone"]
    checkpoint = open_checkpoint(tmp_path / "a.ckpt")
    assert checkpoint.steps == 6000
    assert not checkpoint.other_entries
    equal(checkpoint, TENSORS)
    assert "gone" not in sys.modules
    sys.modules["gone"] = types.ModuleType("gone")  # for the fixture's end


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_nothing_is_run(tmp_path: Path) -> None:
    """Calls, calls of what calls returned, and an import, in every place where a file can have one."""
    mark = tmp_path / "run"
    calls: list[Any] = [
        Calls(os.system, f"touch {mark}"),
        Calls(subprocess.check_output, ["touch", str(mark)]),
        Calls(eval, f"open({str(mark)!r}, 'w')"),
        Calls(Calls(getattr, os, "system"), f"touch {mark}"),
        Calls(exec, "import antigravity"),
        Calls(pathlib.Path.touch, mark),
        Calls(np.load, str(mark)),
    ]
    for number, call in enumerate(calls):
        path = tmp_path / f"{number}.ckpt"
        try:
            torch.save({"state_dict": {**TENSORS, "call": call}, "hyper_parameters": call}, path)
        except (pickle.PicklingError, TypeError):
            continue  # a module cannot be written
        checkpoint = open_checkpoint(path)
        assert checkpoint.other_entries == ("call",)
        equal(checkpoint, TENSORS)
        with pytest.raises(PicsError, match="call, which is not a tensor"):
            read_weights(path, "hint")
    assert len(list(tmp_path.glob("*.ckpt"))) >= 6
    by_opcode = b"\x80\x02cantigravity\ngeohash\n)R."
    (tmp_path / "old.pt").write_bytes(by_opcode)
    with pytest.raises(PicsError, match="damaged"):
        open_checkpoint(tmp_path / "old.pt")
    assert not mark.exists()
    assert "antigravity" not in sys.modules


def test_nothing_that_it_names_is_changed(tmp_path: Path) -> None:
    """A pickle can set attributes of what it names: here defaults of the function that makes tensors."""
    by_opcode = b"ctorch._utils\n_rebuild_tensor_v2\nN}U\x0c__defaults__(I1\nI2\nts\x86b."
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", by_opcode)
    with pytest.raises(PicsError, match="damaged"):
        open_checkpoint(tmp_path / "a.pt")
    assert inert_pickle._rebuild_tensor.__defaults__ is None


def tensor_of(size: int, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], path: Path) -> None:
    """A file whose one tensor is not what was saved."""
    tensor = torch.arange(float(size))
    storage = torch.TypedStorage(wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True)
    real = torch._utils._rebuild_tensor_v2

    class Lying:
        def __reduce__(self) -> Any:
            return real, (storage, offset, shape, stride, False, collections.OrderedDict())

    torch.save({"a": Lying()}, path)


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [(0, (11,), (1,)), (9, (2,), (1,)), (-1, (2,), (1,)), (0, (2, 2), (9, 1)), (5, (3,), (-1,))],
)
def test_a_tensor_outside_its_storage_is_refused(
    tmp_path: Path, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    tensor_of(10, offset, shape, stride, tmp_path / "a.pt")
    with pytest.raises(PicsError, match=r"damaged checkpoint: a: a tensor of shape .* lies outside its storage"):
        open_checkpoint(tmp_path / "a.pt").read("a")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"first": torch.zeros(400), "second": torch.full((300,), 2.0)}, path)
    data = bytearray(path.read_bytes())
    place = data.index(torch.full((300,), 2.0).numpy().tobytes())
    data[place + 77] ^= 4
    path.write_bytes(data)
    checkpoint = open_checkpoint(path)
    assert not checkpoint.read("first").any()
    with pytest.raises(PicsError, match=r"damaged checkpoint: second: .*checksum") as told:
        checkpoint.read("second")
    assert "again" in str(told.value.hint)


@pytest.mark.parametrize("legacy", [False, True])
def test_cut_anywhere(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.arange(500.0), "b": torch.arange(300.0)}, path, _use_new_zipfile_serialization=not legacy)
    data = path.read_bytes()
    for end in range(1, len(data), 97):
        path.write_bytes(data[:end])
        with pytest.raises(PicsError, match=r"damaged|not a checkpoint"):
            read_weights(path, "hint")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_safetensors_are_what_their_library_reads(tmp_path: Path, dtype: torch.dtype) -> None:
    shapes = {key: tuple(value.shape) for key, value in TENSORS.items()}
    write_safetensors(tmp_path / "a.safetensors", shapes, dtype, TENSORS.__getitem__)
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    equal(checkpoint, {key: value.to(dtype) for key, value in TENSORS.items()})
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
