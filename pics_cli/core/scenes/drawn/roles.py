"""Relations of a scene's objects, and the category, shape family and material of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pics_cli.core.recipes.sources import SceneRelation
from pics_cli.core.scenes.drawn.colors import OBJECT_PALETTES
from pics_cli.core.scenes.drawn.patterns import LABEL, PATTERNS, UNIFORM
from pics_cli.core.scenes.drawn.shapes import FAMILIES
from pics_cli.core.scenes.drawn.spec import Material, PairRelation, SceneObject, SceneSettings

# Relations in which the later object stands on or in the earlier one, its host, and not on the ground.
HOSTED: tuple[SceneRelation, ...] = ("supporting", "containing")

# Weights of the categories by role.
_CONTAINERS = dict(bowl=0.55, cup=0.45)
_SUPPORTS = dict(table=0.36, plate=0.22, box=0.16, book=0.14, cylinder=0.12)
_CONTENTS = dict(ball=0.26, fruit=0.3, blob=0.1, box=0.12, bottle=0.12, cylinder=0.1)
_SUPPORTED = dict(cup=0.18, bowl=0.1, bottle=0.16, ball=0.1, fruit=0.16, box=0.1, blob=0.1, cylinder=0.1)
_FREE = dict(box=0.14, book=0.05, cylinder=0.12, cup=0.15, bowl=0.09, plate=0.03, table=0.05, bottle=0.12, ball=0.09)
_FREE |= dict(fruit=0.1, blob=0.12)

# Patterns that look odd on fruit and soft things, and those that suit tables.
_STIFF = ("checks", "wood", "zigzag", "diamonds")
_FURNITURE = ("wood", "plain", "marble", "brushed", "fade", "waves")


@dataclass(frozen=True)
class Role:
    """An object's place in the tree of relations.

    Attributes:
        parent: the earlier object that it is placed in relation to; None for the first.
        relation: to the parent; where it is supporting or containing, the parent supports or contains this object.
        supports, contains: whether a later object stands on it or in it.
    """

    parent: int | None
    relation: SceneRelation | None
    supports: bool = False
    contains: bool = False

    @property
    def hosted(self) -> bool:
        """Whether it stands on or in its parent rather than on the ground."""
        return self.relation in HOSTED


def sample_roles(settings: SceneSettings, rng: np.random.Generator) -> tuple[Role, ...]:
    """Roles of K objects: a tree in which each object but the first relates to an earlier one."""
    parents: list[int | None] = [None]
    relations: list[SceneRelation | None] = [None]
    for k in range(1, settings.num_objects):
        relation = _sample_relation(settings.relations, rng)
        hosts = {parents[c] for c in range(k) if relations[c] in HOSTED}
        candidates = [p for p in range(k) if relations[p] != "containing" and p not in hosts]
        if relation in HOSTED and not candidates:
            rest = [(name, weight) for name, weight in settings.relations if name not in HOSTED and weight > 0]
            relation = _sample_relation(rest or (("apart", 1.0),), rng)
        if relation not in HOSTED:
            candidates = [p for p in range(k) if relations[p] not in HOSTED]
        parents.append(candidates[int(rng.integers(len(candidates)))])
        relations.append(relation)
    pairs = list(zip(parents, relations, strict=True))
    return tuple(
        Role(parent, relation, (k, "supporting") in pairs, (k, "containing") in pairs)
        for k, (parent, relation) in enumerate(pairs)
    )


def _sample_relation(weighted: Sequence[tuple[SceneRelation, float]], rng: np.random.Generator) -> SceneRelation:
    weights = np.asarray([weight for _, weight in weighted], np.float64)
    return weighted[int(rng.choice(len(weights), p=weights / weights.sum()))][0]


def _sample_name(weights: dict[str, float], rng: np.random.Generator) -> str:
    edges = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(edges, rng.random() * edges[-1], side="right").clip(0, len(edges) - 1))]


def sample_object(role: Role, pool: str, rng: np.random.Generator) -> SceneObject:
    """An object for a role, at the origin and of size 1."""
    if role.contains:
        weights = _CONTAINERS
    elif role.supports:
        weights = {name: w for name, w in _SUPPORTS.items() if not role.hosted or name not in ("table", "plate")}
    elif role.relation == "containing":
        weights = _CONTENTS
    elif role.relation == "supporting":
        weights = _SUPPORTED
    else:
        weights = _FREE
    category = _sample_name(weights, rng)
    families = list(FAMILIES[category][pool])
    if role.supports and category == "box":
        families = [name for name in families if name != "wedge"]  # nothing stands on a slope
    family = families[int(rng.integers(len(families)))]
    a, b, c = (round(float(value), 4) for value in rng.random(3))
    yaw = float(rng.uniform(-3.14159, 3.14159))
    if category == "table":
        yaw = float(rng.normal(0, 0.35))
    material = _sample_material(category, pool, rng)
    return SceneObject(category, (0, 0, 0, 0), 0.0, family, (a, b, c), (0, 0, 0), yaw, 1.0, material)


def _sample_material(category: str, pool: str, rng: np.random.Generator) -> Material:
    """A material that suits a category."""
    palettes = OBJECT_PALETTES[pool]
    palette = palettes[int(rng.integers(len(palettes)))]
    if rng.random() < 0.35:
        palette = (palette[1], palette[0], palette[2], palette[3])
    uniform = UNIFORM[pool]
    weights = dict.fromkeys([*PATTERNS[pool], LABEL], 1.0) | {uniform: 3.0}
    if category in ("fruit", "blob"):
        weights |= {name: 0.3 for name in _STIFF if name in weights}
        weights |= {LABEL: 0.0, uniform: 5.0}
    if category in ("bottle", "box", "book", "cylinder"):
        weights[LABEL] = 3.0
    if category == "table":
        weights |= {name: 0.2 for name in weights if name not in _FURNITURE}
    pattern = _sample_name(weights, rng)
    metal = bool(rng.random() < 0.1 and pattern == uniform and category not in ("fruit", "blob", "book"))
    gloss = 0.0 if category == "book" else float(rng.choice((0.05, 0.35, 0.7, 1.0), p=(0.3, 0.25, 0.25, 0.2)))
    return Material(pattern, palette, int(rng.integers(1 << 31)), gloss, metal)


def root_of(roles: Sequence[Role], k: int) -> int:
    """The object on the ground that object k stands on or in, perhaps through others; itself if it stands there."""
    while roles[k].hosted:
        parent = roles[k].parent
        assert parent is not None
        k = parent
    return k


def placed_pairs(roles: Sequence[Role], new_index: Sequence[int], order: tuple[int, ...]) -> tuple[PairRelation, ...]:
    """The pairs that roles placed in relation to each other, sorted; see `ScenePlan.placed_pairs`.

    Args:
        roles: in the order in which their objects were placed.
        new_index: of each object in the plan.
        order: of the plan's objects, front to back.
    """
    pairs = []
    for k, role in enumerate(roles):
        if role.parent is not None and role.relation is not None:
            own, parent = new_index[k], new_index[role.parent]
            pair = (min(own, parent), max(own, parent))
            subject = pair[0]
            if role.hosted:
                subject = parent
            elif role.relation == "occluding":
                subject = min(pair, key=order.index)
            pairs.append(PairRelation(pair, role.relation, subject))
    return tuple(sorted(pairs, key=lambda pair: pair.objects))
