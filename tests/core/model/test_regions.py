"""Index tables of the regions: nearest resampling, and every covered token in exactly one group."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pics_cli.core.model.regions import PADDED_SHARES, Regions, RegionTable, padded_overlap_share


@st.composite
def covers(draw: st.DrawFn) -> Tensor:
    """bool [B, N, K]; each object covers none, some or all of the tokens of each sample."""
    samples, tokens, objects = draw(st.integers(1, 3)), draw(st.integers(1, 20)), draw(st.integers(1, 4))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    shares = draw(st.lists(st.sampled_from([0.0, 0.2, 0.6, 1.0]), min_size=objects, max_size=objects))
    cover = torch.rand(samples, tokens, objects, generator=random) < torch.tensor(shares)
    if samples > 1 and draw(st.booleans()):
        cover[draw(st.integers(0, samples - 1))] = False
    return cover


@settings(max_examples=80, deadline=None)
@given(cover=covers(), branches=st.integers(1, 2), candidates=st.integers(1, 3))
def test_groups_partition_the_covered_tokens(cover: Tensor, branches: int, candidates: int) -> None:
    """Token p of candidate j of row g = branch · B + b is number (g · n + j) · N + p, and its cover set is b's at p."""
    table = RegionTable(cover, branches, candidates)
    samples, tokens, objects = cover.shape
    expected = {}
    for row in range(branches * samples):
        for j in range(candidates):
            for p in range(tokens):
                members = tuple(k for k in range(objects) if cover[row % samples, p, k])
                if members:
                    expected[(row * candidates + j) * tokens + p] = members
    found = [(int(target), group.objects) for group in table.groups for target in group.targets]
    assert len(found) == len(expected)
    assert dict(found) == expected
    assert len({group.objects for group in table.groups}) == len(table.groups)
    assert table.has_overlaps == any(len(members) > 1 for members in expected.values())


@settings(max_examples=80, deadline=None)
@given(cover=covers(), branches=st.integers(1, 2), candidates=st.integers(1, 3))
def test_gathered_tokens_are_rectangles_and_what_is_kept_of_them_are_the_targets(
    cover: Tensor, branches: int, candidates: int
) -> None:
    """R rows × n candidates × L tokens each, every one of its own row and candidate; others fill up short rows."""
    table = RegionTable(cover, branches, candidates)
    samples, tokens, _ = cover.shape
    for group in table.groups:
        rows = torch.arange(branches * samples) if group.rows is None else group.rows
        assert rows.tolist() == sorted({int(t) // (tokens * candidates) for t in group.targets})
        gathered = group.tokens.view(len(rows), candidates, -1)
        own = (rows[:, None] * candidates + torch.arange(candidates))[..., None]
        assert (gathered // tokens == own).all()
        # The candidates of a row are routed alike.
        assert (gathered % tokens == gathered[:, :1] % tokens).all()
        length = gathered.shape[-1]
        longest = int((group.targets // tokens).bincount().max())
        assert longest <= length <= tokens
        assert length == longest
        kept = group.tokens if group.kept is None else group.tokens[group.kept]
        assert torch.equal(kept, group.targets)


@settings(max_examples=60, deadline=None)
@given(cover=covers(), branches=st.integers(1, 2), candidates=st.integers(1, 3), share=st.sampled_from(PADDED_SHARES))
def test_uniform_tables_have_the_shapes_that_the_share_says(
    cover: Tensor, branches: int, candidates: int, share: float
) -> None:
    """A graph compiled for one picture runs the next; where the share suffices, the routing is the same."""
    samples, tokens, objects = cover.shape
    uniform = RegionTable(cover, branches, candidates, share)
    nowhere = branches * samples * candidates * tokens
    sets = 2**objects - 1 if share else objects
    assert len(uniform.groups) == sets
    for group in uniform.groups:
        length = tokens if len(group.objects) == 1 else -int(-share * tokens // 1)
        assert group.tokens.shape == group.targets.shape == (branches * samples * candidates * length,)
        assert (group.rows, group.kept, group.among_overlaps) == (None, None, None)
    exact = RegionTable(cover, branches, candidates)
    codes = exact.codes
    largest = max(
        (float((codes == code).float().mean(1).max()) for code in codes.unique().tolist() if code & (code - 1)),
        default=0.0,
    )
    if largest <= share:
        found = {
            int(target): group.objects for group in uniform.groups for target in group.targets if target != nowhere
        }
        expected = {int(target): group.objects for group in exact.groups for target in group.targets}
        assert found == expected


def test_share_is_that_of_the_largest_overlap_at_any_level() -> None:
    masks = torch.zeros(2, 2, 64, 64, dtype=torch.bool)
    assert padded_overlap_share(masks, [(8, 8), (4, 4)]) == 0
    masks[:, 0, :32] = masks[:, 1, 32:] = True
    assert padded_overlap_share(masks, [(8, 8)]) == 0  # side by side
    masks[1, 1, 16:] = True
    assert padded_overlap_share(masks, [(8, 8)]) == 0.25
    masks[1, 1, 15:] = True
    assert padded_overlap_share(masks, [(8, 8)]) == 0.25  # nearest sampling does not see it
    assert padded_overlap_share(masks, [(8, 8), (64, 64)]) == 0.5
    masks[1] = True
    assert padded_overlap_share(masks, [(8, 8)]) == 1


@settings(max_examples=80, deadline=None)
@given(cover=covers(), branches=st.integers(1, 2))
def test_rows_of_a_group_are_found_among_the_rows_with_overlaps(cover: Tensor, branches: int) -> None:
    table = RegionTable(cover, branches)
    every = torch.arange(table.rows)
    expected = [row for row in range(table.rows) if (cover[row % len(cover)].sum(-1) > 1).any()]
    assert table.has_overlaps == bool(expected)
    if expected:
        assert (every if table.overlap_rows is None else table.overlap_rows).tolist() == expected
    for group in table.groups:
        if len(group.objects) > 1:
            overlaps = torch.tensor(expected)
            among = overlaps if group.among_overlaps is None else overlaps[group.among_overlaps]
            assert torch.equal(among, every if group.rows is None else group.rows)


@given(cover=covers(), branches=st.integers(1, 2), candidates=st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_layout_of_branches_and_candidates(cover: Tensor, branches: int, candidates: int) -> None:
    """The batch is branch by branch, in it composite by composite, in it candidate by candidate."""
    table = RegionTable(cover, branches, candidates)
    samples = len(cover)
    assert (table.rows, table.batch) == (branches * samples, branches * samples * candidates)
    assert table.batch_cover.shape == (table.batch, *cover.shape[1:])
    values = torch.arange(samples * candidates)
    spread = table.repeat_branches(values[:, None])[:, 0]
    for branch in range(branches):
        for b in range(samples):
            for j in range(candidates):
                place = (branch * samples + b) * candidates + j
                assert torch.equal(table.batch_cover[place], cover[b])
                assert spread[place] == b * candidates + j
    assert torch.equal(table.repeat_branches(spread[:, None])[:, 0], spread)


@given(
    shape=st.tuples(*[st.tuples(st.integers(1, 24), st.integers(1, 40))] * 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_resampling_is_that_of_torch(shape: tuple[tuple[int, int], tuple[int, int]], seed: int) -> None:
    """`interpolate(mode="nearest")`, as published, at every resolution that divides the model's size."""
    (height, rows), (width, columns) = shape
    masks = torch.rand(2, 3, height * rows, width * columns, generator=torch.Generator().manual_seed(seed)) < 0.5
    expected = F.interpolate(masks.float(), size=(height, width), mode="nearest") > 0
    cover = Regions(masks).table(height, width).cover
    assert torch.equal(cover, expected.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("size", [64, 128, 224, 512, 768, 1024])
def test_resampling_at_the_levels_of_a_model(size: int) -> None:
    masks = torch.rand(1, 2, size, size, generator=torch.Generator().manual_seed(size)) < 0.5
    regions = Regions(masks)
    for level in range(4):
        side = size // 8 >> level
        expected = F.interpolate(masks.float(), size=(side, side), mode="nearest") > 0
        assert torch.equal(regions.table(side, side).cover, expected.flatten(2).transpose(1, 2))
        assert regions.table(side, side) is regions.table(side, side)


def test_a_small_box_vanishes_at_a_coarse_level() -> None:
    masks = torch.zeros(1, 2, 64, 64, dtype=torch.bool)
    masks[0, 0, 8:40, 8:40] = True
    masks[0, 1, 17:23, 17:23] = True
    regions = Regions(masks)
    assert regions.table(64, 64).has_overlaps
    coarse = regions.table(4, 4)
    assert [group.objects for group in coarse.groups] == [(0,)]
    assert not coarse.has_overlaps
    empty = Regions(torch.zeros_like(masks)).table(4, 4)
    assert empty.groups == []


def test_candidates_share_the_regions_of_their_composite() -> None:
    masks = torch.rand(2, 2, 16, 16) < 0.5
    regions = Regions(masks, branches=2, candidates=3, padded_share=0.5)
    shared = regions.for_one_candidate()
    assert (shared.candidates, shared.branches, shared.padded_share) == (1, 2, 0.5)
    assert torch.equal(shared.masks, masks)
    assert shared.for_one_candidate() is shared


@pytest.mark.parametrize("share", [None, 0.5])
def test_tables_go_to_the_device_that_is_named(share: float | None) -> None:
    """Masks that stay in main memory, networks elsewhere: the same tables there."""
    masks = torch.zeros(3, 2, 16, 16, dtype=torch.bool)
    masks[0, 0, :8] = masks[0, 1, 4:] = masks[1, 0, :8] = masks[2, 1, 2:4] = True
    near, far = (
        Regions(masks, candidates=2, padded_share=share, device=device) for device in (None, torch.device("meta"))
    )
    for regions in (far, far.for_one_candidate()):
        table, other = (
            regions.table(8, 8),
            Regions(masks, candidates=regions.candidates, padded_share=share).table(8, 8),
        )
        assert table.batch_cover.device.type == "meta"
        for group, expected in zip(table.groups, other.groups, strict=True):
            assert group.objects == expected.objects
            for ours, theirs in zip(vars(group).values(), vars(expected).values(), strict=True):
                if isinstance(theirs, Tensor):
                    assert (ours.device.type, ours.shape, ours.dtype) == ("meta", theirs.shape, theirs.dtype)
                else:
                    assert ours == theirs
    assert near.table(8, 8).groups[0].tokens.device.type == "cpu"


@pytest.mark.parametrize("shape", [(2, 16, 16), (1, 0, 16, 16)])
def test_masks_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \[B, K, S, S\]"):
        Regions(torch.zeros(shape, dtype=torch.bool))
