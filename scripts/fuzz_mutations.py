"""Ways in which `fuzz.py` damages what pics reads: bytes, json values and YAML, as a function of a random generator."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

Random = np.random.Generator

# Values that programs write by mistake, and that people write on purpose.
ODD_JSON = [
    "null", "true", "-1", "0", "1e400", "-1e400", "NaN", "Infinity", "1e-400", "9" * 5000, str(2**63), str(2**64),
    "-0.0", '""', '"x"', '"1"', '"../../x"', '"\\u0000"', '"\\ud800"', '"\\u001b[2J"', "[]", "{}", "[[]]", '[{"a":1}]',
    "[1,2,3,4]", '{"size":[64,96],"counts":[6144]}', '{"size":[99999,99999],"counts":"a"}', "1.5", "[" * 2000,
    '"' + "x" * 70000 + '"',
]  # fmt: skip
ODD_YAML = [
    "2024-11-29", "010", "1:30", "on", "~", "!!binary aGk=", "!!set {a}", "!!python/name:os.system", "&a [*a]", "*x",
    "9" * 5000, "1e400", ".nan", ".inf", "“x”", "[" * 100, "{" * 100, "{a: {b: c}}", "[]", "{}", "null", "-1", "1.5",
    "x" * 5000, "../../x", "/etc/passwd", "$HOME", "$NOT_SET", "~nobody_here/x", "{stem}", "{x}", "{{", "%", "\x00",
    "\t", "? x", "<<: *x", "'", '"', "|\n  x", "# x", "--- x", "!!int x", "1_0", "0x1F", "true", "train: *split",
    str(2**63), "-9223372036854775808", "[1, 2, 3]", "é", "\u202e", "a: b: c",
]  # fmt: skip


def damage_bytes(data: bytes, rng: Random, kinds: int = 8) -> tuple[bytes, str]:
    """Damaged data, and what was done. `kinds` of 1: one bit is flipped; 2: or a run of bytes overwritten."""
    if not data:
        return rng.bytes(8), "bytes from nothing"
    at, kind = int(rng.integers(len(data))), int(rng.integers(kinds))
    run = min(int(rng.choice([1, 4, 16, 64, 1024])), len(data) - at)
    if kind == 0:
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        return bytes(changed), f"bit at {at}"
    after = at + run
    replacement = {
        1: rng.bytes(run), 2: bytes(run), 3: b"", 4: data[at:after] * 2, 5: rng.bytes(run) + data[at:after],
        6: b"\xff" * run,
    }.get(kind)  # fmt: skip
    if replacement is None:
        return data[:at], f"cut at {at}"
    words = ("", "noise", "zeros", "removed", "doubled", "inserted", "ones")
    return data[:at] + replacement + data[after:], f"{words[kind]} {run} at {at}"


def damage_json(data: bytes, rng: Random) -> tuple[bytes, str]:
    """A value of a json replaced, removed or repeated, or its bytes damaged."""
    try:
        tree = json.loads(data)
    except ValueError:
        return damage_bytes(data, rng)
    if rng.random() < 0.35:
        return damage_bytes(data, rng)
    places = list(_places(tree))
    if not places:
        return rng.choice(ODD_JSON).encode(), "whole"
    holder, key, path = places[int(rng.integers(len(places)))]
    kind = rng.integers(4)
    if kind == 0:
        del holder[key]
        return json.dumps(tree).encode(), f"{path} removed"
    if kind == 1 and isinstance(holder, list):
        holder.append(holder[key])
        return json.dumps(tree).encode(), f"{path} repeated"
    odd = str(rng.choice(ODD_JSON))
    holder[key] = "@ODD@"
    return json.dumps(tree).replace('"@ODD@"', odd).encode("utf-8", "surrogatepass"), f"{path} = {odd[:20]}"


def damage_yaml(data: bytes, rng: Random) -> tuple[bytes, str]:
    """A word of a YAML text replaced, a line moved, or its bytes damaged."""
    kind = rng.integers(4)
    if kind == 0:
        return damage_bytes(data, rng)
    text = data.decode("utf-8", "replace")
    if kind == 1:
        lines = text.split("\n")
        moved = lines.pop(int(rng.integers(len(lines))))
        lines.insert(int(rng.integers(len(lines) + 1)), " " * int(rng.integers(6)) + moved.strip())
        return "\n".join(lines).encode(), "line moved"
    words = list(re.finditer(r"[^\s:,\[\]{}]+", text))
    if not words:
        return damage_bytes(data, rng)
    word, odd = words[int(rng.integers(len(words)))], str(rng.choice(ODD_YAML))
    return (text[: word.start()] + odd + text[word.end() :]).encode(), f"{word[0][:20]} → {odd[:20]}"


def _places(tree: Any, path: str = "") -> Any:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key, f"{path}.{key}"
        yield from _places(value, f"{path}.{key}")
