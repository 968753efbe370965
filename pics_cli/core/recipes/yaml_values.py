"""YAML as recipes and `--set` hold it: text, numbers, true and false, lists and mappings with keys of text.

YAML 1.1 reads more into plain words than people mean: 2024-11-29 is a date, 010 is eight, 1:30 is ninety, `on` and `no`
are truth values. Here those are text, as in YAML 1.2. What no recipe can hold is an error with its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml

# Far above any recipe; below what takes noticeable time or memory.
_MAX_BYTES, _MAX_DEPTH, _MAX_VALUES = 1 << 20, 32, 20_000
_MAX_DIGITS = 18
_TYPOGRAPHIC = tuple("“”„‟«»‘’‚‛‹›")
_TAG = "tag:yaml.org,2002:"
# {stem} inside a plain word, which YAML takes for a mapping where it stands in a list: two characters that no text
# holds stand for the braces while YAML is read.
_FIELD = re.compile(r"\{([\w.]+)\}")
_HIDDEN, _SHOWN = "\ufdd0\\1\ufdd1", str.maketrans("\ufdd0\ufdd1", "{}")


class YamlError(Exception):
    """Text that is no YAML, or holds what no recipe can; the message says what.

    Attributes:
        line: where, counted from 1; None: unknown.
    """

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def parse_yaml(text: str | bytes) -> tuple[Any, list[tuple[str, int]]]:
    """Read one YAML document.

    Args:
        text: bytes are UTF-8, or UTF-16 with a byte order mark.

    Returns:
        Plain data as JSON holds it, every alias a copy; and the keys that a mapping holds twice, with their lines: YAML
        itself keeps the last without a word.

    Raises:
        YamlError: it is none, too large, or holds what no recipe can.
    """
    if len(text) > _MAX_BYTES:
        raise YamlError(f"holds {len(text):,} characters, a recipe at most {_MAX_BYTES:,}")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-16" if text[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        loader = _Loader(_FIELD.sub(_HIDDEN, text))
        try:
            node = loader.get_single_node()
            return (None if node is None else loader.construct(node)), loader.duplicates
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise YamlError(f"is no UTF-8 text: {error.reason} at byte {error.start:,}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or str(error)
        what = f"{error.context}, {problem}" if problem.startswith("but ") else problem
        raise YamlError(what.translate(_SHOWN), mark.line + 1 if mark else None) from None
    except yaml.reader.ReaderError as error:
        raise YamlError(f"character #x{error.character:04x} at {error.position:,} is not allowed") from None
    except RecursionError:
        raise YamlError("is nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """Composes nodes within limits, and constructs plain data from them."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[tuple[str, int]] = []
        self._depth = self._nodes = 0
        self._values: dict[int, int] = {}  # by node: how many it stands for, aliases written out

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        self._nodes += 1
        if self._depth > _MAX_DEPTH:
            raise YamlError(f"is nested more than {_MAX_DEPTH} deep", line)
        node = super().compose_node(parent, index)
        assert node is not None
        self._depth -= 1
        if is_alias:
            if id(node) not in self._values:
                raise YamlError("an alias refers to itself: write the value out", line)
            return node
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
            self._note_duplicates(node)
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        self._values[id(node)] = 1 + sum(self._values[id(child)] for child in children)
        if max(self._nodes, self._values[id(node)]) > _MAX_VALUES:
            raise YamlError(f"stands for more than {_MAX_VALUES:,} values", line)
        return node

    def construct(self, node: yaml.Node) -> Any:
        """Plain data of a node."""
        line = node.start_mark.line + 1
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            self.flatten_mapping(node)
            return {self._key(key): self.construct(value) for key, value in node.value}
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.construct(item) for item in node.value]
        if not isinstance(node, yaml.ScalarNode) or kind not in _SCALARS:
            expected = "text, a number, true, false, a list or a mapping"
            raise YamlError(f"a value of the kind !!{kind}, expected {expected}", line)
        text = node.value.translate(_SHOWN)
        if node.style is None and text.startswith(_TYPOGRAPHIC):
            raise YamlError(f'{text[:40]} begins with a typographic quotation mark: write " instead', line)
        try:
            return _SCALARS[kind](text)
        except (ValueError, OverflowError) as error:
            raise YamlError(f"{text[:40]}: {error}", line) from None

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise YamlError("a key that is a list or a mapping, expected text", node.start_mark.line + 1)
        return str(node.value).translate(_SHOWN)

    def _note_duplicates(self, node: yaml.MappingNode) -> None:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen and key.value != "<<":
                    self.duplicates.append((key.value.translate(_SHOWN), key.start_mark.line + 1))
                seen.add(key.value)


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text):,} digits, expected at most {_MAX_DIGITS}")
    return int(text.replace("_", ""), 0)


def _float(text: str) -> float:
    special = text.lower().replace(".inf", "inf").replace(".nan", "nan")
    return float((text if special == text.lower() else special).replace("_", ""))


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("no truth value, write true or false")
    return text.lower() == "true"


_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str, "int": _integer, "float": _float, "bool": _boolean, "null": lambda _: None}  # fmt: skip
# As YAML 1.1 has them, but for what YAML 1.2 calls text.
_PATTERNS = {
    "null": ("|~|null|Null|NULL", ["~", "n", "N", ""]),
    "bool": ("true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": ("[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0b[01]+)", "-+0123456789"),
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|\.(?:inf|Inf|INF))"
        r"|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "merge": ("<<", "<"),
}
_Loader.yaml_implicit_resolvers = {}
for _kind, (_pattern, _first) in _PATTERNS.items():
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"(?:{_pattern})\Z"), list(_first))
