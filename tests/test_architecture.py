"""Who may import whom, as a table; no circles; and a command that starts without heavy imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import pics_cli

PACKAGE = Path(pics_cli.__file__).parent
# Not pydantic: typer itself loads it where it is installed.
HEAVY = ("torch", "numpy", "cv2", "PIL", "diffusers", "transformers", "accelerate", "webdataset", "rich", "yaml")
# What no process imports that makes a picture with the bundled model.
SLOW = (
    "torch._dynamo", "torch._inductor", "torchvision", "diffusers", "transformers", "accelerate", "peft",
    "huggingface_hub", "scipy", "skimage", "matplotlib", "pyarrow", "pandas", "boto3", "botocore", "tensorflow", "flax",
    "webdataset",
)  # fmt: skip

# Room → rooms of the package that it may import. An arrow that no file needs any more is taken out.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "runtime": {"errors"},
    "recipes": {"errors", "runtime"},
    "images": {"errors", "runtime"},
    "model": {"errors", "images", "runtime", "recipes"},
    "conditioning": {"images", "model"},
    "scenes": {"errors", "images", "recipes", "runtime"},
    "shards": {"errors", "images", "recipes", "runtime"},
    "datasets": {"errors", "images", "recipes", "runtime", "scenes", "shards"},
    "loading": {"conditioning", "errors", "images", "model", "recipes", "runtime", "shards"},
    "inference": {"conditioning", "errors", "images", "model", "runtime", "segmentation"},
    "segmentation": {"datasets", "errors", "images", "model", "recipes", "runtime", "scenes"},
    "training": {"conditioning", "errors", "images", "inference", "loading", "model", "recipes", "runtime", "shards"},
    "evaluation": {"errors", "images", "inference", "loading", "model", "recipes", "runtime", "scenes", "shards"},
    "console": {"errors", "runtime"},
    "commands": {
        "console", "datasets", "errors", "evaluation", "inference", "model", "recipes", "runtime", "segmentation",
        "training", "ui",
    },
    "ui": {"errors", "images", "inference", "runtime"},
    "cli": {"commands", "console"},
    "__main__": {"cli"},
    "": {"inference", "model", "runtime", "shards"},
}  # fmt: skip
# What only the outer rooms may import: the core knows nothing of terminals.
TERMINAL = {"typer", "click", "rich", "tqdm"}
MAY_USE_TERMINAL = {"cli", "commands", "console"}

MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def room_of(module: str) -> str:
    """`pics_cli.core.model.unet` → `model`; `pics_cli.cli` → `cli`; the package and its core → the empty string."""
    parts = [part for part in module.split(".")[1:] if part != "core"]
    return parts[0] if parts else ""


@lru_cache(maxsize=2 * len(MODULES))
def imports(source: str) -> list[str]:
    """Every module that a text imports, at its top or inside functions; of `from a import b` both `a` and `a.b`."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names += [f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def violations(module: str, source: str) -> list[str]:
    """What a module imports and may not."""
    room, found = room_of(module), []
    for name in imports(source):
        if name.partition(".")[0] in TERMINAL and room not in MAY_USE_TERMINAL:
            found.append(f"{module} imports {name}")
        if name.startswith("pics_cli."):
            imported = name if name in MODULES else name.rpartition(".")[0]  # a name of a module is that module's
            other = room_of(imported)
            if other not in ("", room, *MAY_IMPORT[room]):
                found.append(f"{module} imports {name}: {room} may not import {other}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_table(module: str) -> None:
    assert violations(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_the_guard_sees_every_forbidden_import(room: str) -> None:
    """A forbidden import put into a real file of the room is found, at its top and inside a function."""
    module = next(name for name in MODULES if room_of(name) == room)
    source = MODULES[module].read_text()
    others = {room_of(name): name for name in MODULES if room_of(name) not in ("", room)}
    terminal = TERMINAL if room not in MAY_USE_TERMINAL else set()
    for line in ("import {0}.{1}", "from {0} import {1}", "def late() -> None:\n    import {0}.{1}"):
        # All forbidden lines of one kind at once: to parse the file again for every line takes seconds.
        lines = [line.format(*name.rpartition(".")[::2]) for name in others.values()]
        found = violations(module, "\n".join([source, *lines, *(f"import {name}" for name in terminal), ""]))
        for other, name in others.items():
            assert any(name in text for text in found) == (other not in MAY_IMPORT[room]), (module, line, name)
        assert {f"{module} imports {name}" for name in terminal} <= set(found)


def test_the_table_has_no_circle_and_no_arrow_too_many() -> None:
    list(TopologicalSorter(MAY_IMPORT).static_order())
    used = {
        (room_of(module), room_of(name))
        for module, path in MODULES.items()
        for name in imports(path.read_text())
        if name in MODULES and room_of(name) != room_of(module)
    }
    listed = {(room, other) for room, others in MAY_IMPORT.items() for other in others}
    # The package's own attributes are loaded when asked for, by name.
    assert {arrow for arrow in listed - used if arrow[0]} == set()


def test_no_circle_among_files() -> None:
    graph = {module: set(loaded_by(module, path.read_text())) for module, path in MODULES.items()}
    assert not circle_of(graph)
    low, high = "pics_cli.core.runtime.files", "pics_cli.core.datasets.build"
    assert circle_of({**graph, low: {*graph[low], high}})


def loaded_by(module: str, source: str) -> Iterator[str]:
    """Modules that importing a module loads first: those it names, and the packages that these lie in."""
    for name in imports(source):
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            loaded = ".".join(parts[:end])
            if loaded in MODULES and loaded != module and not module.startswith(f"{loaded}."):
                yield loaded


def circle_of(graph: dict[str, set[str]]) -> list[str]:
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def foreign_json(source: str) -> list[str]:
    """Calls of `json.load` and `json.loads` but those that copy what `json.dumps` gives."""
    if "json.load" not in source:
        return []
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    reading = [call for call in calls if ast.unparse(call.func) in ("json.load", "json.loads")]
    return [text for call in reading if not (text := ast.unparse(call.args[0])).startswith("json.dumps(")]


def test_json_of_files_is_read_by_one_function() -> None:
    """Python's reader answers brackets within brackets with a RecursionError, which nobody thinks of."""
    found = {module: foreign_json(path.read_text()) for module, path in MODULES.items()}
    assert {module: calls for module, calls in found.items() if calls} == {"pics_cli.core.runtime.files": ["text"]}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["build-shards", "--help"], ["infer", "--help"], ["push", "--help"], ["--version"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom pics_cli.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_a_picture_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    """`pics infer` with the bundled model: torch, and nothing of what takes as long again."""
    sample, out = PACKAGE / "samples" / "egg_in_cup", tmp_path / "out"
    code = (
        "import sys\nfrom pics_cli.cli import main\n"
        f"sys.argv = ['pics', 'infer', '--input', {str(sample)!r}, '--output', {str(out)!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        f"print('slow:', 'torch' in sys.modules, [name for name in {SLOW} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "slow: True []"
    assert (out / "composed/composed_egg_in_cup.png").is_file()
