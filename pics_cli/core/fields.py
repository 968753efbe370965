"""Types of single recipe values: bounded numbers, names, path patterns that cannot leave their folder."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from string import Formatter
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, StringConstraints
from pydantic_core import PydanticCustomError

CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
PATH_FIELDS = ("split", "file_name", "name", "stem", "parent", "parent2", "url_name", "url_parent", "version")
FOLDER_FIELDS = ("split", "version")


def between(low: float, high: float, closed: bool) -> AfterValidator:
    """Numbers in [low, high], or in (low, high) where not `closed`."""
    sign = "<=" if closed else "<"
    bounds = f"{low} {sign} value" + ("" if math.isinf(high) else f" {sign} {high}")

    def check(value: float) -> float:
        if low < value < high or (closed and value in (low, high)):
            return value
        raise PydanticCustomError("range", "{bounds}", {"bounds": bounds})

    return AfterValidator(check)


def _not_empty(values: Collection[Any]) -> Collection[Any]:
    if not values:
        raise PydanticCustomError("empty", "at least one value")
    return values


def _some_weight(weights: Mapping[str, float]) -> Mapping[str, float]:
    if not any(weights.values()):
        raise PydanticCustomError("weights", "a weight above 0")
    return weights


def _inside(pattern: str, fields: tuple[str, ...] = PATH_FIELDS) -> str:
    """A relative path pattern that cannot leave its folder and names known fields only, without format codes."""
    if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
        raise PydanticCustomError("path", "a path inside the raw folder, without '..'")
    try:
        parts = [part for part in Formatter().parse(pattern) if part[1] is not None]
    except ValueError as error:
        raise PydanticCustomError("pattern", "a path with fields in braces ({why})", {"why": str(error)}) from None
    for _, name, code, conversion in parts:
        if name not in fields or code or conversion:
            allowed = f"plain fields among {', '.join(fields)}" if fields else "a path without fields in braces"
            raise PydanticCustomError("pattern", "{allowed}", {"allowed": allowed})
    return pattern


NOT_EMPTY = AfterValidator(_not_empty)
SOME_WEIGHT = AfterValidator(_some_weight)


def _plain(name: str) -> str:
    if "/" in name or name in (".", ".."):
        raise PydanticCustomError("name", "a name without folders")
    return name


Name = Annotated[str, StringConstraints(min_length=1), AfterValidator(_plain)]
Text = Annotated[str, StringConstraints(min_length=1)]
PicturePattern = Annotated[str, StringConstraints(min_length=1), AfterValidator(_inside)]
Inside = Annotated[str, AfterValidator(lambda pattern: _inside(pattern, ()))]
Folder = Annotated[Text, AfterValidator(lambda pattern: _inside(pattern, ()))]
FolderPattern = Annotated[Text, AfterValidator(lambda pattern: _inside(pattern, FOLDER_FIELDS))]
