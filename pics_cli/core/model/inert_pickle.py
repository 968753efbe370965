"""Files of `torch.save`, read without running anything that they name.

Such a file is a pickle that calls functions by name. Here the few that rebuild tensors and plain containers are
replaced by descriptions of tensors; every other name stands for an inert object that takes whatever is done to it.
Nothing is imported or called because a file says so, and tensors stay in the file until they are read: what Lightning
saves beside them (`hyper_parameters`, `callbacks`, loops, of classes that need not be installed) is passed over.
"""

from __future__ import annotations

import collections
import functools
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

# Of the pickle alone, without tensors: that of the published checkpoint has less than 1 MB.
_MAX_PICKLE_BYTES = 1 << 28
# What a file of torch before 1.6 begins with, and its version.
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
_ZIP_LOCAL_HEADER = struct.Struct("<26xHH")
_STORAGE_DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in _STORAGE_DTYPES.values()}


class Storage(NamedTuple):
    """Numbers in a file: name, dtype, how many."""

    key: str
    dtype: torch.dtype
    elements: int
    offset: int = 0
    """Of a view in the file's storage of that name, in elements."""


class StoredTensor(NamedTuple):
    """A tensor in a file: offset and strides in elements of its storage, as torch has them."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many elements in a row it uses from `offset` on; more than it has, where strides leave some out."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))


class Inert:
    """Stands for whatever a file names; its subclass has that name."""

    def __new__(cls, *_arguments: Any, **_options: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *_arguments: Any, **_options: Any) -> None:
        pass

    def __call__(self, *_arguments: Any, **_options: Any) -> Inert:
        return self

    def _ignore(self, *_arguments: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = _ignore


class TensorFile(NamedTuple):
    """An open file of `torch.save`.

    Attributes:
        data: what was saved: plain values, `StoredTensor` and `Inert`.
        read: loads a tensor; ValueError or OSError: the file is damaged there.
    """

    data: Any
    read: Callable[[StoredTensor], Tensor]


class _InertUnpickler(pickle.Unpickler):
    """An unpickler that calls nothing but what is listed here.

    Attributes:
        item_sizes: bytes of a number of each storage, by its name.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.item_sizes: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _REBUILD:
            # Its own each time: a pickle can also set attributes of what it names, such as defaults of arguments.
            return functools.partial(_REBUILD[module, name]).__call__
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        return type(f"{module}.{name}", (Inert,), {})

    def persistent_load(self, pid: Any) -> Storage:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], torch.dtype):
            raise pickle.UnpicklingError("a storage of an unknown kind")
        _, dtype, key, _location, elements, *view = pid
        self.item_sizes[str(key)] = dtype.itemsize
        if view and view[0] is not None:
            _key, offset, elements = view[0]
            return Storage(str(key), dtype, int(elements), int(offset))
        return Storage(str(key), dtype, int(elements))


def _rebuild_tensor(storage: Storage, offset: int, shape: Any, stride: Any, *_rest: Any) -> StoredTensor:
    return StoredTensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


def _rebuild_tensor_v3(
    storage: Storage, offset: int, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: torch.dtype, *_rest: Any
) -> StoredTensor:
    scale = dtype.itemsize
    typed = Storage(storage.key, dtype, storage.elements // scale, storage.offset // scale)
    return _rebuild_tensor(typed, offset, shape, stride)


def _first_argument(value: Any, *_rest: Any) -> Any:
    return value


_REBUILD: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _first_argument,
    ("torch._utils", "_rebuild_parameter_with_state"): _first_argument,
}
# None of these can be changed.
_KNOWN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
    ("torch.storage", "UntypedStorage"): torch.uint8,
}


def open_tensor_file(path: Path) -> TensorFile:
    """Open a file of `torch.save`, of torch's zip format (since 1.6) or of the one before it.

    Raises:
        Exception: it is damaged, cut or something else; a pickle that is none can raise anything.
    """
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    return _open_zip(path) if is_zip else _open_legacy(path)


def _open_zip(path: Path) -> TensorFile:
    if not zipfile.is_zipfile(path):
        raise ValueError("the archive has no end")
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError("an archive of something else: it has no data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if entries[pickles[0]].file_size > _MAX_PICKLE_BYTES:
            raise ValueError(f"its pickle has {entries[pickles[0]].file_size:,} bytes besides the tensors")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("written on a machine of another byte order")
        with archive.open(pickles[0]) as pickled:
            data = _InertUnpickler(pickled).load()

    def read(tensor: StoredTensor) -> Tensor:
        entry = entries.get(f"{root}data/{tensor.storage.key}")
        if entry is None or entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"no numbers in the archive for storage {tensor.storage.key}")
        with path.open("rb") as file:
            file.seek(entry.header_offset)
            header = file.read(_ZIP_LOCAL_HEADER.size)
            start = entry.header_offset + len(header) + sum(_ZIP_LOCAL_HEADER.unpack(header))
            return _read_tensor(file, tensor, start, entry.file_size, entry.CRC)

    return TensorFile(data, read)


def _open_legacy(path: Path) -> TensorFile:
    with path.open("rb") as file:
        unpicklers = [_InertUnpickler(file) for _ in range(5)]
        magic, version, system, data, keys = (unpickler.load() for unpickler in unpicklers)
        if magic != _LEGACY_MAGIC or version != _LEGACY_VERSION or not system["little_endian"]:
            raise ValueError("a pickle, but not one of torch")
        item_sizes, extents = unpicklers[3].item_sizes, dict[str, tuple[int, int]]()
        for key in keys:  # each storage behind the number of its elements
            size = int.from_bytes(file.read(8), "little") * item_sizes[str(key)]
            extents[str(key)] = file.tell(), size
            file.seek(size, os.SEEK_CUR)

    def read(tensor: StoredTensor) -> Tensor:
        start, size = extents[tensor.storage.key]
        with path.open("rb") as file:
            return _read_tensor(file, tensor, start, size)

    return TensorFile(data, read)


def _read_tensor(file: IO[bytes], tensor: StoredTensor, start: int, size: int, crc: int | None = None) -> Tensor:
    """The tensor of a storage of `size` bytes from `start` on; its checksum is compared where all of it is read."""
    dtype, elements = tensor.storage.dtype, tensor.elements
    if elements == 0:
        return torch.empty(tensor.shape, dtype=dtype)
    first = (tensor.storage.offset + tensor.offset) * dtype.itemsize
    last = first + elements * dtype.itemsize
    if not 0 <= first < last <= size or min(tensor.stride, default=0) < 0:
        raise ValueError(f"a tensor of shape {tensor.shape} lies outside its storage of {size:,} bytes")
    file.seek(start + first)
    data = bytearray(last - first)
    if file.readinto(data) != len(data):  # type: ignore[attr-defined]
        raise ValueError(f"it ends within storage {tensor.storage.key}")
    if crc is not None and len(data) == size and zlib.crc32(data) != crc:
        raise ValueError(f"the numbers of storage {tensor.storage.key} do not fit their checksum")
    return torch.frombuffer(data, dtype=dtype).as_strided(tensor.shape, tensor.stride)
