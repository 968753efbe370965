"""Documents do not lag behind: what they name exists, and the commands that they show take the options shown."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
# Whatever shows how a command is typed.
SHOWING_COMMANDS = [
    *DOCUMENTS,
    *sorted((ROOT / "recipes").glob("*.yaml")),
    *sorted((ROOT / "scripts").rglob("*.s[hb]*")),
]
# A script of the research project, a file of scikit-image, and a command to be written.
NOT_OURS = {"scripts/annotate_sam.py", "skimage/data/_fetchers.py", "commands/NAME.py"}
HELP = dict(re.findall(r"^## pics ([a-z-]+)\n(.*?)(?=^## |\Z)", (ROOT / "docs/cli.md").read_text(), re.M | re.S))
# `pics COMMAND …` at the start of a line or a comment, between backticks, as .venv/bin/pics, or after a launcher.
COMMAND = re.compile(r"(?:^|`|# +|bin/)(?:pics|[^`\n]*-m pics_cli) ([a-z][a-z-]+)([^`\n]*)", re.MULTILINE)
IDENTIFIER = re.compile(r"`([A-Za-z]+(?:_[a-z0-9]+)+|[A-Z][a-z]+(?:[A-Z][a-z]*)+)(?:\.[a-z_]+)*`")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def paths_in(text: str) -> Iterator[str]:
    """Files and folders that a text names: those under a folder of ours, and Python files under any."""
    for path in re.findall(r"(?<![\w./{-])(?:[\w-]+/)+[\w.-]*\w", text):
        if path.endswith(".py") or path.partition("/")[0] in ("core", "pics_cli", "recipes", "scripts"):
            yield path


def commands_in(text: str) -> Iterator[tuple[str, str]]:
    """Every `pics COMMAND …`: the command, and what follows it, without a comment at the end of the line."""
    for command, rest in COMMAND.findall(text.replace("\\\n", "")):
        yield command, rest.partition("  #")[0]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_paths_exist(document: Path) -> None:
    """From the repository's root, or as the end of a path in the package."""
    named = set(paths_in(document.read_text())) - NOT_OURS
    ours = [f"/{path.relative_to(ROOT)}" for path in (ROOT / "pics_cli").rglob("*")]
    missing = {path for path in named if not (ROOT / path).exists()}
    assert {path for path in missing if not any(own.endswith(f"/{path}") for own in ours)} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_and_pictures_exist(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text())
    assert [target for target in targets if "://" not in target and not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", SHOWING_COMMANDS, ids=name_of)
def test_commands_take_the_options_shown(document: Path) -> None:
    for command, rest in commands_in(document.read_text()):
        assert command in HELP, f"pics {command}"
        for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", rest):
            assert re.search(rf"(?:  |, ){option} ", HELP[command]), f"pics {command}{rest}"
        for recipe in re.findall(r"--recipe ([a-z]\w*)", rest):
            assert (ROOT / f"recipes/{recipe}.yaml").exists(), recipe


@pytest.mark.parametrize("command", HELP)
def test_a_document_shows_every_command(command: str) -> None:
    pages = [path.read_text() for path in DOCUMENTS if path.name != "cli.md"]
    assert [rest for text in pages for name, rest in commands_in(text) if name == command and "--" in rest]


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/method.md", "docs/metrics.md"])
def test_names_of_the_code_occur_in_it(name: str) -> None:
    sources = [path for folder in ("pics_cli", "recipes") for path in (ROOT / folder).rglob("*.*")]
    words = set(re.findall(r"\w+", "\n".join(path.read_text() for path in sources if path.suffix in (".py", ".yaml"))))
    assert set(IDENTIFIER.findall((ROOT / name).read_text())) - words == set()


def test_what_is_wrong_is_noticed() -> None:
    text = "`core/model/plain.py`, `scripts/nowhere.py`, pics_cli/none.\n`pics no --x`\npics infer --y  # --z\n"
    text += "accelerate launch -m pics_cli train --recipe x\n#   pics eval \\\n--y\nof `NoSuchClass` and `no_such_name`"
    assert list(paths_in(text)) == ["core/model/plain.py", "scripts/nowhere.py", "pics_cli/none"]
    shown = [("no", " --x"), ("infer", " --y"), ("train", " --recipe x"), ("eval", " --y")]
    assert list(commands_in(text)) == shown
    assert IDENTIFIER.findall(text) == ["NoSuchClass", "no_such_name"]


def test_no_message_names_a_file_of_the_repository() -> None:
    """Who installed the package has neither docs/ nor scripts/; what `--help` prints are docstrings of commands."""
    found = []
    for path in sorted((ROOT / "pics_cli").rglob("*.py")):
        tree = ast.parse(path.read_text())
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
            and not (isinstance(node, ast.FunctionDef) and path.parent.name == "commands")
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                found += [f"{name_of(path)}:{node.lineno}" for _ in re.findall(r"\b(?:docs|scripts)/\w", node.value)]
    assert found == []
