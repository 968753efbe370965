"""Types of recipe fields that check their values, and validation errors as lines: `file: key: got …, expected …`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from string import Formatter
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import AfterValidator, ConfigDict, StringConstraints
from pydantic_core import ErrorDetails, PydanticCustomError

from pics_cli.core.runtime.files import expand_path

CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
PATH_FIELDS = ("split", "file_name", "name", "stem", "path", "parent", "parent2", "url_name", "url_parent", "version")
FOLDER_FIELDS = ("split", "version")


@dataclass(frozen=True)
class Requirement(AfterValidator):
    """A check of a value, and in words what it expects, for messages and docs/recipes.md."""

    expected: str


def require(is_valid: Callable[[Any], object], expected: str) -> Requirement:
    """Values for which `is_valid` is true; `expected` names them in error messages."""

    def check(value: Any) -> Any:
        if is_valid(value):
            return value
        raise PydanticCustomError("value", "{expected}", {"expected": expected})

    return Requirement(check, expected)


def between(low: float, high: float, closed: bool) -> Requirement:
    """Numbers in [low, high], or in (low, high) where not `closed`."""
    sign = "<=" if closed else "<"
    bounds = f"{low} {sign} value" + ("" if math.isinf(high) else f" {sign} {high}")
    return require(lambda value: low < value < high or (closed and value in (low, high)), bounds)


def _relative_pattern(pattern: str, fields: tuple[str, ...] = PATH_FIELDS) -> str:
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


NOT_EMPTY = require(bool, "at least one value")
SOME_WEIGHT = require(lambda weights: any(weights.values()), "a weight above 0")


def _expand_path(path: str) -> str:
    """`~` and $VARIABLES as a shell has them; addresses and commands as they are."""
    if path.startswith(("http://", "https://", "pipe:")):
        return path
    try:
        return expand_path(path)
    except ValueError as error:
        raise PydanticCustomError("path", "a path: {problem}", {"problem": str(error)}) from None


Text = Annotated[str, StringConstraints(min_length=1)]
UserPath = Annotated[Text, AfterValidator(_expand_path)]
Name = Annotated[Text, require(lambda name: "/" not in name and name not in (".", ".."), "a name without folders")]
ImagePattern = Annotated[Text, AfterValidator(_relative_pattern)]
RelativePath = Annotated[str, AfterValidator(lambda pattern: _relative_pattern(pattern, ()))]
Folder = Annotated[Text, AfterValidator(lambda pattern: _relative_pattern(pattern, ()))]


def _label_folder(path: str) -> str:
    scheme, address, rest = path.partition("://")
    if not address:
        return "/" * path.startswith("/") + _relative_pattern(path.lstrip("/"), FOLDER_FIELDS)
    return f"{scheme}://{_relative_pattern(rest, FOLDER_FIELDS)}"


# Inside the raw folder, or anywhere by an absolute path or an address.
LabelFolder = Annotated[Text, AfterValidator(_label_folder)]
FolderPattern = Annotated[Text, AfterValidator(lambda pattern: _relative_pattern(pattern, FOLDER_FIELDS))]


def error_line(tree: type, path: Path, detail: ErrorDetails, origins: Mapping[str, str]) -> str:
    """One line: `file: key: got …, expected …`; values from the command line name their flag instead."""
    loc, hint = _key_and_holder(tree, [str(part) for part in detail["loc"]])
    if detail["type"].startswith("union_tag"):
        loc.append(detail["ctx"]["discriminator"].strip("'"))
    key = ".".join(loc)
    where = f"{path}: {key}" if key else str(path)
    for overridden, origin in origins.items():
        if key == overridden or key.startswith(overridden + "."):
            where = origin + (f": {key[len(overridden) + 1 :]}" if key != overridden else "")
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        allowed = list(hint.__dataclass_fields__)
        near = get_close_matches(loc[-1], allowed, n=1)
        return f"{where}: unknown key, " + (f"nearest: {near[0]}, " if near else "") + f"allowed: {', '.join(allowed)}"
    if detail["type"] in ("missing", "missing_argument", "union_tag_not_found"):
        return f"{where}: missing"
    expected = detail["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    if detail["type"].startswith("dataclass") or detail["type"] == "dict_type":
        expected = "a mapping"
    if detail["type"] == "tuple_type":
        expected = "a list, such as [a, b]"
    value = detail["input"]
    if detail["type"] == "union_tag_invalid":
        value, expected = detail["ctx"]["tag"], detail["ctx"]["expected_tags"]
    if not key:
        return f"{where}: expected {expected}"
    return f"{where}: got {short_json(value)}, expected {expected}{_spelling(value, detail['type'])}"


def _spelling(value: Any, error_type: str) -> str:
    """How to write what was probably meant, where YAML reads it as something else; else nothing."""
    if error_type == "string_type" and isinstance(value, bool | int | float):
        return f' (write "{short_json(value)}" for text)'
    if not isinstance(value, str):
        return ""
    if error_type == "bool_type" and value.lower() in ("yes", "on", "y", "no", "off", "n"):
        return f" (write {'true' if value.lower() in ('yes', 'on', 'y') else 'false'})"
    if not error_type.startswith(("int", "float")):
        return "" if "e" not in value or not _is_number(value) else _as_text(value, _yaml_float(float(value)))
    if _is_number(value) and ("e" in value or value[:1] in "0+-"):
        number = float(value)
        return _as_text(value, int(number) if number.is_integer() and abs(number) < 2**53 else _yaml_float(number))
    return ""


def _as_text(value: str, number: object) -> str:
    return f" (YAML reads {value} as text; write {number})"


def _key_and_holder(tree: Any, loc: Sequence[str]) -> tuple[list[str], Any]:
    """The keys of an error's location as the user wrote them, and the type that holds the last one."""
    keys: list[str] = []
    hint = holder = tree
    for part in loc:
        hint = _without_none(hint)
        if get_origin(hint) in (Union, UnionType) and is_dataclass(get_args(hint)[0]):
            # Validation adds the tag of the member it chose; the user did not write it.
            hint = next(kind for kind in get_args(hint) if part in get_args(get_type_hints(kind)["format"]))
            continue
        keys.append(part)
        holder = hint
        if is_dataclass(hint):
            hint = get_type_hints(hint).get(part)
        else:
            hint = next(iter(get_args(hint)[1:]), None)  # dict[str, X]: any key leads to X
    return keys, holder


def _without_none(hint: Any) -> Any:
    """X where the type is `X | None`, else the type itself."""
    kinds = [kind for kind in get_args(hint) if kind is not NoneType] if get_origin(hint) in (Union, UnionType) else []
    return kinds[0] if len(kinds) == 1 else hint


def _yaml_float(value: float) -> str:
    """A number that YAML takes for one: 1.0e-05, not 1e-05."""
    digits, e, power = repr(value).partition("e")
    return digits + ".0" * ("." not in digits and bool(e)) + e + power


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def short_json(value: Any) -> str:
    """A value as the user might have typed it, cut to 60 characters."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
