"""The interaction block against its equations, token by token, and what follows from them."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from helpers.block_reference import interaction_block
from pics_cli.core.model.gate_trace import GateTrace
from pics_cli.core.model.interaction import InteractionBlock, ObjectContexts
from pics_cli.core.model.regions import RegionTable, TokenGroup
from reference_block import reference_blocks

C, HEADS, HEAD_WIDTH, D = 32, 2, 16, 24
N, M = 32, 5
# Parts that only overlap tokens may reach.
PAIR_ONLY = ("norm2g", "gate_q", "norm_c", "k_proj", "v_proj", "norm2b", "attn_bg")


def make_block(seed: int = 0, sharpen: float = 1.0, tau: float = 0.5) -> InteractionBlock:
    """A block with random weights, none of them zero; `sharpen` scales the gate's query, so that alpha leaves 1/|S|."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        block = InteractionBlock(C, HEADS, HEAD_WIDTH, D, tau)
        for name, parameter in block.named_parameters():
            if parameter.ndim == 1:
                around = 1.0 if name.startswith("norm") and name.endswith("weight") else 0.0
                torch.nn.init.normal_(parameter, around, 0.2)
    with torch.no_grad():
        for parameter in block.gate_q.parameters():
            parameter.mul_(sharpen)
    return block.requires_grad_(False)


def draw(objects: int, samples: int = 1, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden [B, N, C], contexts [B, K, M, D] and a cover [B, N, K] in which every cover set occurs."""
    random = torch.Generator().manual_seed(seed)
    hidden = torch.randn(samples, N, C, generator=random)
    contexts = torch.randn(samples, objects, M, D, generator=random)
    codes = torch.stack([torch.arange(N)[torch.randperm(N, generator=random)] for _ in range(samples)]) % 2**objects
    return hidden, contexts, (codes[..., None] >> torch.arange(objects) & 1).bool()


def ours(
    block: InteractionBlock,
    hidden: Tensor,
    contexts: Tensor,
    cover: Tensor,
    *,
    plain: bool = False,
    bias: Tensor | None = None,
    trace: GateTrace | None = None,
) -> Tensor:
    with reference_blocks(plain):
        return block(hidden, ObjectContexts(contexts, bias, trace=trace), RegionTable(cover))


def theirs(
    block: InteractionBlock,
    hidden: Tensor,
    contexts: Tensor,
    cover: Tensor,
    *,
    tau: float = 0.5,
    bias: Tensor | None = None,
) -> Tensor:
    weights = {name: value.numpy() for name, value in block.state_dict().items()}
    rows = []
    for row in range(len(hidden)):
        bias_K = None if bias is None else bias[row].double().numpy()
        one = (hidden[row].numpy(), contexts[row].numpy(), cover[row].numpy())
        rows.append(interaction_block(weights, *one, heads=HEADS, tau=tau, bias_K=bias_K))
    return torch.from_numpy(np.stack(rows))


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Relative L2."""
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
@pytest.mark.parametrize("sharpen", [1.0, 6.0])
@pytest.mark.parametrize("objects", [1, 2, 3])
def test_equals_the_equations(objects: int, sharpen: float, plain: bool) -> None:
    block = make_block(sharpen=sharpen)
    hidden, contexts, cover = draw(objects, samples=2, seed=objects)
    expected = theirs(block, hidden, contexts, cover)
    found = ours(block, hidden, contexts, cover, plain=plain)
    assert distance(found, expected) < 1e-5
    several = cover.sum(-1) > 1
    assert several.any() == (objects > 1)
    if objects > 1:
        assert distance(found[several], expected[several]) < 1e-5


@pytest.mark.parametrize("objects", [2, 3])
def test_a_wrong_temperature_would_show(objects: int) -> None:
    """The comparison above is worth something: at overlap tokens it sees tau = 1 in place of 0.5."""
    block = make_block(sharpen=6.0)
    hidden, contexts, cover = draw(objects, seed=objects)
    several = cover.sum(-1) > 1
    wrong = theirs(block, hidden, contexts, cover, tau=1.0)
    assert distance(ours(block, hidden, contexts, cover)[several], wrong[several]) > 1e-4
    assert distance(ours(make_block(sharpen=6.0, tau=1.0), hidden, contexts, cover), wrong) < 1e-5


@settings(max_examples=15, deadline=None)
@given(
    cover=st.integers(1, 3).flatmap(
        lambda k: st.lists(st.lists(st.booleans(), min_size=k, max_size=k), min_size=6, max_size=6)
    ),
    seed=st.integers(0, 99),
)
def test_equals_the_equations_for_any_cover(cover: list[list[bool]], seed: int) -> None:
    mask = torch.tensor(cover)[None]
    block = make_block(seed, sharpen=6.0)
    hidden, contexts, _ = draw(mask.shape[-1], seed=seed)
    hidden = hidden[:, : mask.shape[1]]
    assert distance(ours(block, hidden, contexts, mask), theirs(block, hidden, contexts, mask)) < 1e-5


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
@pytest.mark.parametrize("case", ["", "_disjoint"])
def test_golden(shared_data: Path, case: str, plain: bool) -> None:
    """Numbers of the research network itself."""
    path = shared_data.parent / "golden" / "block.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path}: the golden numbers in the shared folder are not part of the repository")
    golden = load_file(path)
    block = InteractionBlock(64, 4, 16, 48)
    prefix = "weights."
    weights = {name[len(prefix) :]: value for name, value in golden.items() if name.startswith(prefix)}
    block.load_state_dict({name: value for name, value in weights.items() if not name.startswith("blend_mlp")})
    cover = golden[f"in.mask{case}"] > 0.5
    contexts = golden["in.context"].permute(0, 3, 1, 2)  # they have the object last
    with torch.no_grad():
        found = ours(block, golden["in.hidden"], contexts, cover, plain=plain)
    expected = golden[f"out.hidden{case}"]
    assert distance(found, expected) < 1e-5
    several = cover.all(-1)
    assert several.any() == (not case)
    if several.any():
        assert distance(found[several], expected[several]) < 1e-5


def poison(block: InteractionBlock, *children: str) -> None:
    """Whatever is computed with these weights is nan."""
    for child in children:
        for parameter in getattr(block, child).parameters():
            parameter.fill_(torch.nan)


@pytest.mark.parametrize("objects", [1, 2, 3])
def test_disjoint_masks_never_reach_the_pair_branch(objects: int) -> None:
    block = make_block()
    hidden, contexts, _ = draw(objects, samples=2)
    # Each token under at most one object, in another place in the second sample.
    codes = torch.stack([torch.arange(N), torch.arange(N).flip(0) // 2]) % (objects + 1)
    cover = codes[..., None] == torch.arange(1, objects + 1)
    expected = theirs(block, hidden, contexts, cover)
    poison(block, *PAIR_ONLY)
    assert distance(ours(block, hidden, contexts, cover), expected) < 1e-5


def test_a_sample_without_overlap_never_reaches_the_pair_branch_of_its_neighbour() -> None:
    block = make_block()
    hidden, contexts, cover = draw(2, samples=2)
    cover[1] &= torch.tensor([True, False])
    expected = theirs(block, hidden, contexts, cover)
    poison(block, *PAIR_ONLY)
    found = ours(block, hidden, contexts, cover)
    assert found[0].isnan().any()
    assert distance(found[1], expected[1]) < 1e-5


@pytest.mark.parametrize("objects", [1, 2])
def test_without_regions_only_self_attention_and_feed_forward_remain(objects: int) -> None:
    block = make_block()
    hidden, contexts, cover = draw(objects)
    cover = torch.zeros_like(cover)
    poison(block, *PAIR_ONLY, "norm2", "attn2")
    found = ours(block, hidden, contexts, cover)
    normed = block.norm1(hidden)
    middle = hidden + block.attn1(normed, normed)
    assert distance(found, middle + block.ff(block.norm3(middle))) < 1e-6
    weights = make_block()
    assert distance(found, theirs(weights, hidden, contexts, cover)) < 1e-5


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
@pytest.mark.parametrize("objects", [2, 3])
def test_swapping_objects_with_their_masks_changes_nothing(objects: int, plain: bool) -> None:
    block = make_block(sharpen=6.0)
    hidden, contexts, cover = draw(objects, samples=2)
    bias = torch.randn(2, objects)
    first = ours(block, hidden, contexts, cover, plain=plain, bias=bias)
    for order in permutations(range(objects)):
        again = ours(block, hidden, contexts[:, order], cover[..., order], plain=plain, bias=bias[:, order])
        assert distance(again, first) < 1e-6


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
@pytest.mark.parametrize("through", ["the pair context", "attn_bg"])
def test_background_tokens_reach_overlap_tokens_as_keys(through: str, plain: bool) -> None:
    """Keys of both attentions of the pair branch are all N positions; only queries are of the overlap.

    Self-attention is switched off, which mixes tokens too, and so is the other of the two ways: what a background
    token holds in the second half of its channels reaches attn_bg's keys and values, or the pair context, alone.
    """
    block = make_block(sharpen=6.0)
    for parameter in block.attn1.to_out.parameters():
        parameter.zero_()
    if through == "attn_bg":
        torch.nn.init.zeros_(block.attn2.to_out[0].weight)  # type: ignore[arg-type]
    else:
        for layer in (block.attn_bg.to_k, block.attn_bg.to_v):
            layer.weight[:, C // 2 :] = 0
    hidden, contexts, cover = draw(2)
    several, background = cover.all(-1)[0], ~cover.any(-1)[0]
    changed = hidden.clone()
    changed[:, background, C // 2 :] += torch.linspace(-3, 3, C // 2)
    before, after = (ours(block, one, contexts, cover, plain=plain)[0] for one in (hidden, changed))
    assert distance(after[several], before[several]) > 1e-5
    alone = cover[0].sum(-1) == 1
    torch.testing.assert_close(after[alone], before[alone], rtol=0, atol=1e-6)


class Alphas(GateTrace):
    """Keeps what the gate reports: weights [R, n · N, |S|] by cover set."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[tuple[int, ...], Tensor] = {}

    def add(self, table: RegionTable, group: TokenGroup, alpha: Tensor) -> None:
        assert alpha.shape[1:] == (table.candidates * table.tokens, len(group.objects))
        self.found[group.objects] = alpha


def alphas(block: InteractionBlock, *inputs: Tensor, bias: Tensor | None = None) -> dict[tuple[int, ...], Tensor]:
    trace = Alphas()
    ours(block, *inputs, bias=bias, trace=trace)
    return trace.found


def test_equal_contexts_share_the_gate_equally() -> None:
    """As in the unconditional branch, where every object is the same black picture: alpha = 1/|S|."""
    hidden, contexts, cover = draw(3)
    contexts = contexts[:, :1].expand_as(contexts)
    found = alphas(make_block(sharpen=6.0), hidden, contexts, cover)
    assert {len(members) for members in found} == {2, 3}
    for members, alpha in found.items():
        torch.testing.assert_close(alpha, torch.full_like(alpha, 1 / len(members)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
@pytest.mark.parametrize("objects", [2, 3])
def test_gate_bias_equals_the_equations(objects: int, plain: bool) -> None:
    """alpha = softmax over the set of (s_k / tau + bias_k), each sample with its own bias."""
    block = make_block(sharpen=6.0)
    hidden, contexts, cover = draw(objects, samples=2)
    bias = torch.randn(2, objects)
    found, expected = (f(block, hidden, contexts, cover, bias=bias) for f in (ours, theirs))
    several = cover.sum(-1) > 1
    assert distance(ours(block, hidden, contexts, cover, plain=plain, bias=bias)[several], expected[several]) < 1e-5
    assert distance(found, ours(block, hidden, contexts, cover)) > 1e-5


def test_gate_bias_favours_its_object_the_more_the_larger_it_is() -> None:
    hidden, contexts, cover = draw(2)
    block = make_block()
    shares = [alphas(block, hidden, contexts, cover, bias=torch.tensor([[0.0, b]]))[0, 1][..., 1] for b in (-2, 0, 2)]
    assert (shares[0] < shares[1]).all()
    assert (shares[1] < shares[2]).all()


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
def test_a_large_gate_bias_leaves_the_nearer_object_alone(plain: bool) -> None:
    """As if every object in the overlap were the nearer one."""
    block = make_block()
    hidden, contexts, cover = draw(3)
    several = cover.all(-1)
    bias = torch.tensor([[0.0, 0.0, 1e4]])
    found = ours(block, hidden, contexts, cover, plain=plain, bias=bias)
    nearest_only = ours(block, hidden, contexts[:, [2, 2, 2]], cover, plain=plain)
    assert distance(found[several], nearest_only[several]) < 1e-6


def test_gradients_are_those_of_the_plain_path() -> None:
    """Every parameter, and the inputs, over two samples of different masks; nothing of the block is left out.

    All keys of the gate move by the same with norm_c.bias, which a softmax does not see: its gradient is zero.
    """
    hidden, contexts, cover = draw(2, samples=2)
    cover[1, : N // 2] = False
    weights = torch.randn(2, N, C)

    def gradients(plain: bool) -> dict[str, Any]:
        block = make_block(sharpen=6.0).requires_grad_()
        inputs = {"hidden": hidden.clone().requires_grad_(), "contexts": contexts.clone().requires_grad_()}
        (ours(block, inputs["hidden"], inputs["contexts"], cover, plain=plain) * weights).sum().backward()
        return {name: leaf.grad for name, leaf in (*block.named_parameters(), *inputs.items())}

    fast, plain = gradients(False), gradients(True)
    for gradient in (fast.pop("norm_c.bias"), plain.pop("norm_c.bias")):
        assert gradient.norm() < 1e-5 * plain["norm_c.weight"].norm()
    for name, gradient in plain.items():
        assert gradient.norm() > 1e-3, name
        assert distance(fast[name], gradient) < 1e-4, name
