"""Who plays what: the relations of a scene's objects, and the category, shape and surface of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pics_cli.core.recipes.dataset import SceneRelation
from pics_cli.core.scenes.drawn.colors import OBJECTS
from pics_cli.core.scenes.drawn.patterns import FIELDS, LABEL
from pics_cli.core.scenes.drawn.shapes import FAMILIES
from pics_cli.core.scenes.drawn.spec import Look, SceneSettings, Thing

HOSTED: tuple[SceneRelation, ...] = ("supporting", "containing")

# How often each category plays a part.
_VESSELS = {"bowl": 0.55, "cup": 0.45}
_CARRIERS = {"table": 0.36, "plate": 0.22, "box": 0.16, "book": 0.14, "cylinder": 0.12}
_CONTENTS = {"ball": 0.26, "fruit": 0.3, "blob": 0.1, "box": 0.12, "bottle": 0.12, "cylinder": 0.1}
_CARRIED = {
    "cup": 0.18,
    "bowl": 0.1,
    "bottle": 0.16,
    "ball": 0.1,
    "fruit": 0.16,
    "box": 0.1,
    "blob": 0.1,
    "cylinder": 0.1,
}
_FREE = {
    "box": 0.14,
    "book": 0.05,
    "cylinder": 0.12,
    "cup": 0.15,
    "bowl": 0.09,
    "plate": 0.03,
    "table": 0.05,
    "bottle": 0.12,
    "ball": 0.09,
    "fruit": 0.1,
    "blob": 0.12,
}

# Patterns that look odd on fruit and soft things, and those that suit tables.
_STIFF = ("checks", "wood", "zigzag", "diamonds")
_FURNITURE = ("wood", "plain", "marble", "brushed", "fade", "waves")


@dataclass(frozen=True)
class Role:
    """One object's part.

    Attributes:
        parent: the earlier object that it was placed in relation to; None for the first.
        relation: to the parent; where it is supporting or containing, the parent carries or holds this object.
        carries, holds: whether a later object stands on it or in it.
    """

    parent: int | None
    relation: SceneRelation | None
    carries: bool = False
    holds: bool = False

    @property
    def hosted(self) -> bool:
        """Whether it stands on or in its parent rather than on the ground."""
        return self.relation in HOSTED


def cast(style: SceneSettings, rng: np.random.Generator) -> tuple[Role, ...]:
    """Relations of K objects: a tree in which each object but the first relates to an earlier one."""
    parents: list[int | None] = [None]
    relations: list[SceneRelation | None] = [None]
    for k in range(1, style.objects):
        relation = _relation(style.relations, rng)
        free = [
            p
            for p in range(k)
            if relations[p] != "containing" and not any(parents[c] == p and relations[c] in HOSTED for c in range(k))
        ]
        if relation in HOSTED and not free:
            rest = [(name, weight) for name, weight in style.relations if name not in HOSTED and weight > 0]
            relation = _relation(rest or (("apart", 1.0),), rng)
        if relation not in HOSTED:
            free = [p for p in range(k) if relations[p] not in HOSTED]
        parents.append(free[int(rng.integers(len(free)))])
        relations.append(relation)
    pairs = list(zip(parents, relations, strict=True))
    return tuple(
        Role(parent, relation, (k, "supporting") in pairs, (k, "containing") in pairs)
        for k, (parent, relation) in enumerate(pairs)
    )


def _relation(weighted: Sequence[tuple[SceneRelation, float]], rng: np.random.Generator) -> SceneRelation:
    weights = np.asarray([weight for _, weight in weighted], np.float64)
    return weighted[int(rng.choice(len(weights), p=weights / weights.sum()))][0]


def _draw(weighted: dict[str, float], rng: np.random.Generator) -> str:
    edges = np.cumsum(list(weighted.values()))
    return list(weighted)[int(np.searchsorted(edges, rng.random() * edges[-1], side="right").clip(0, len(edges) - 1))]


def actor(role: Role, pool: str, rng: np.random.Generator) -> Thing:
    """An object for a role, at the origin and of size 1."""
    if role.holds:
        table = _VESSELS
    elif role.carries:
        table = {name: w for name, w in _CARRIERS.items() if not role.hosted or name not in ("table", "plate")}
    elif role.relation == "containing":
        table = _CONTENTS
    elif role.relation == "supporting":
        table = _CARRIED
    else:
        table = _FREE
    category = _draw(table, rng)
    families = list(FAMILIES[category][pool])
    if role.carries and category == "box":
        families = [name for name in families if name != "wedge"]  # nothing stands on a slope
    family = families[int(rng.integers(len(families)))]
    a, b, c = (round(float(value), 4) for value in rng.random(3))
    yaw = float(rng.uniform(-3.14159, 3.14159))
    if category == "table":
        yaw = float(rng.normal(0, 0.35))
    return Thing(category, (0, 0, 0, 0), 0.0, family, (a, b, c), (0, 0, 0), yaw, 1.0, look(category, pool, rng))


def look(category: str, pool: str, rng: np.random.Generator) -> Look:
    """A surface that suits a category."""
    palettes = OBJECTS[pool]
    palette = palettes[int(rng.integers(len(palettes)))]
    if rng.random() < 0.35:
        palette = (palette[1], palette[0], palette[2], palette[3])
    patterns = [*FIELDS[pool], LABEL]
    quiet = "plain" if pool == "train" else "brushed"
    weights = dict.fromkeys(patterns, 1.0) | {quiet: 3.0}
    if category in ("fruit", "blob"):
        weights |= {name: 0.3 for name in _STIFF if name in weights}
        weights |= {LABEL: 0.0, quiet: 5.0}
    if category in ("bottle", "box", "book", "cylinder"):
        weights[LABEL] = 3.0
    if category == "table":
        weights |= {name: 0.2 for name in weights if name not in _FURNITURE}
    pattern = _draw(weights, rng)
    metal = bool(rng.random() < 0.1 and pattern == quiet and category not in ("fruit", "blob", "book"))
    gloss = 0.0 if category == "book" else float(rng.choice((0.05, 0.35, 0.7, 1.0), p=(0.3, 0.25, 0.25, 0.2)))
    return Look(pattern, palette, int(rng.integers(1 << 31)), gloss, metal)


def lineage(roles: Sequence[Role], k: int) -> int:
    """The object on the ground that object k stands on or in, perhaps through others; itself if it stands there."""
    while roles[k].hosted:
        parent = roles[k].parent
        assert parent is not None
        k = parent
    return k
