"""Models that runs in this process keep from one to the next: loading one takes longer than most runs of tests do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

from pics_cli.core.model.pics_model import PicsModel

_loaded: dict[Any, PicsModel] = {}  # the last one


@contextlib.contextmanager
def kept_models() -> Iterator[None]:
    """`pics infer` takes the model of the run before, where neither its files nor how it is loaded are others."""
    from pics_cli.core.inference import run as module

    with mock.patch.object(module, "load_model", partial(_load, module.load_model)):
        yield


def _load(load: Callable[[Any, str], PicsModel], chosen: Any, memory: str) -> PicsModel:
    files = tuple((path, path.stat().st_mtime_ns) for path in sorted(chosen.folder.rglob("*")))
    key = (load, PicsModel.from_pretrained, files, chosen.dtype, chosen.device, memory)
    if chosen.adapters:
        return load(chosen, memory)
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = load(chosen, memory)
    return _loaded[key]
