"""Recipes: YAML files validated into frozen dataclasses, every fault reported at once.

A recipe is found by the name of a file shipped with the package (`lvis`) or by a path (`mine.yaml`). Any value can be
overridden by its dotted key (`pairs.objects=3`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from pics_cli.core.recipes.sources import Source
from pics_cli.core.recipes.validation import CONFIG, NOT_EMPTY, Text, between, fault_line, show, twice
from pics_cli.errors import PicsError

Recipe = TypeVar("Recipe")


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Classes:
    """Which categories take part, by name. Empty: all."""

    include: tuple[str, ...] = ()
    """Take these categories only."""
    exclude: tuple[str, ...] = ()
    """Leave these categories out."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Pairs:
    """How the interacting objects of a picture are chosen."""

    rule: Literal["max_iou", "largest"] = "max_iou"
    """`max_iou`: the two boxes that overlap most; `largest`: the two largest objects, overlapping or not."""
    objects: Annotated[int, between(1, 4, True)] = 2
    """Objects a sample holds (K)."""
    min_area_ratio: Annotated[float, between(0, 1, False)] = 0.02
    """An object's area must be strictly greater than this share of the picture's."""
    contained: Literal["drop", "keep"] = "drop"
    """Whether a pair counts in which one box lies inside the other (within 2 px)."""
    classes: Classes = field(default_factory=Classes)
    """Which categories take part."""


Layout = Literal["published", "compact"]


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Shards:
    """How samples are packed."""

    size: Annotated[int, between(1, math.inf, True)] = 1000
    """Candidates a shard is built from; those that fail on decoding make it shorter."""
    layout: Layout = "published"
    """`published`: patches and masks as PNG members; `compact`: masks in the json, patches cut anew on reading."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class Patches:
    """How reference patches are cut."""

    padding: Annotated[tuple[Annotated[float, between(1, 2, True)], ...], NOT_EMPTY] = (1.1, 1.2, 1.3, 1.4)
    """Ratios by which a crop is widened with white; each object's is drawn from this list."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class DatasetRecipe:
    """A raw dataset and how training shards are built from it."""

    kind: Literal["dataset"]
    """Dataset recipes are built into shards."""
    name: Text
    """The dataset's name in manifests and samples."""
    raw: Text | None = None
    """Folder of the raw files, when --raw is not given; none where the format needs no files."""
    out: Text
    """Folder of the shards, when --out is not given; {split} stands for the split."""
    seed: Annotated[int, between(0, math.inf, True)] = 0
    """Seed of everything random: the padding of the reference patches, and drawn scenes."""
    compat: bool = False
    """Choose and cut as the research code does, with its faults, to reproduce the published choice."""
    source: Source
    """The raw files and their format."""
    pairs: Pairs = field(default_factory=Pairs)
    """How the interacting objects of a picture are chosen."""
    patches: Patches = field(default_factory=Patches)
    """How reference patches are cut."""
    shards: Shards = field(default_factory=Shards)
    """How samples are packed."""


class Override(NamedTuple):
    """A value given on the command line; `origin` is what the user typed, for messages."""

    key: str
    value: Any
    origin: str


def recipe_folder() -> Path:
    """Folder of the recipes that ship with the package (beside it in a source tree)."""
    package = Path(__file__).resolve().parents[2]
    shipped = package / "recipes"
    return shipped if shipped.is_dir() else package.parent / "recipes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))


def find_recipe(name: str, what: str = "recipe") -> Path:
    """Find a recipe by shipped name or by path.

    Raises:
        PicsError: nothing there; names the nearest shipped recipes.
    """
    if "/" in name or Path(name).suffix in (".yaml", ".yml"):
        path = Path(name)
        if not path.is_file():
            raise PicsError(f"{name}: no such recipe file", f"shipped recipes: {', '.join(recipe_names())}")
        return path
    if name in recipe_names():
        return recipe_folder() / f"{name}.yaml"
    near = get_close_matches(name.lower(), recipe_names(), n=2)
    guess = f"did you mean {' or '.join(near)}? " if near else ""
    raise PicsError(
        f"unknown {what} {name!r}",
        f"{guess}known: {', '.join(recipe_names())}; your own: the path of a .yaml file",
    )


def parse_override(text: str) -> Override:
    """Read `key.path=value`, the value as YAML.

    Raises:
        PicsError: no `=`, an empty key or a value that is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise PicsError(f"--set {text!r}: expected key.path=value", "for example --set pairs.min_area_ratio=0.05")
    try:
        return Override(key, yaml.safe_load(value), f"--set {key}")
    except yaml.YAMLError:
        raise PicsError(f"--set {key}: {value!r} is not YAML", "quote it, or write lists as [a, b]") from None


def load_dataset(path: Path, overrides: Sequence[Override] = ()) -> DatasetRecipe:
    """Read and validate a dataset recipe; see `load_recipe`."""
    return load_recipe(path, DatasetRecipe, overrides)


def load_recipe(
    path: Path, tree: type[Recipe], overrides: Sequence[Override] = (), data: dict[str, Any] | None = None
) -> Recipe:
    """Read and validate a recipe.

    Args:
        path: of the YAML file.
        tree: the dataclass that it is read into.
        overrides: values that replace the file's.
        data: contents to take instead of a file's; `path` then names them in messages.

    Raises:
        PicsError: with one line for every fault found.
    """
    given = [override.key for override in overrides]
    if twice_given := next((key for key in given if given.count(key) > 1), None):
        flags = ", ".join(override.origin for override in overrides if override.key == twice_given)
        raise PicsError(f"{twice_given} is given twice on the command line ({flags})", "give it once")
    data, faults = _read_yaml(path) if data is None else (data, [])
    data = json.loads(json.dumps(data, default=str))  # what an alias repeats becomes a copy, to be overridden alone
    for override in overrides:
        _apply(data, override)
    try:
        recipe = TypeAdapter(tree).validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        origins = {override.key: override.origin for override in overrides}
        faults += [fault_line(tree, path, detail, origins) for detail in error.errors()]
    if faults:
        raise PicsError("\n".join(faults), f"mend {path.name} or the values given on the command line")
    return recipe


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe's contents as plain data, not validated.

    Raises:
        PicsError: it cannot be read, or is no mapping.
    """
    return _read_yaml(path)[0]


def recipe_kind(path: Path) -> object:
    """What a recipe says that it is: `dataset`, `training`, …; not validated."""
    return read_recipe(path).get("kind")


def identity(recipe: DatasetRecipe) -> dict[str, Any]:
    """The recipe as plain data, without the folders: what decides the bytes of a shard."""
    plain = json.loads(json.dumps(asdict(recipe)))
    return {key: value for key, value in plain.items() if key not in ("raw", "out")}


def digest(plain: Mapping[str, Any]) -> str:
    """sha256 (hex) of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _read_yaml(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
        node, data = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise PicsError(f"{path}:{line} not YAML: {error.problem}", "check indentation and quotes") from None
    except OSError as error:
        raise PicsError(f"{path}: cannot read: {(error.strerror or str(error)).lower()}") from None
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise PicsError(f"{path}: cannot read as YAML: {error}") from None
    if not isinstance(data, dict):
        raise PicsError(f"{path}: got {show(data)}, expected a mapping that starts with kind: …")
    try:
        return data, [f"{path}: line {line}: {key}: given twice, expected once" for key, line in twice(node)]
    except RecursionError:
        raise PicsError(f"{path}: an alias refers to itself", "write the value out") from None


def _apply(data: dict[str, Any], override: Override) -> None:
    *parents, last = override.key.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise PicsError(f"{override.origin}: {parent} holds {show(data)}, expected a mapping")
    data[last] = override.value
