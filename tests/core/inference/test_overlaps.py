"""One decision for each piece of an overlap: properties of `settle`, and what becomes of logits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pics_cli.core.inference.overlaps import (
    MIN_CONFIDENCE,
    PRIOR_WEIGHT,
    order_prior,
    settle,
    settle_layers,
    tight_boxes,
)

SIZE = 48


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def rough(seed: int, sigma: float) -> np.ndarray:
    """Smooth noise of deviation 1, float32 [SIZE, SIZE]."""
    values = np.random.default_rng(seed).normal(size=(SIZE, SIZE)).astype(np.float32)
    if sigma:
        values = cv2.GaussianBlur(values, (0, 0), sigma).astype(np.float32)
    return values / values.std()


def two_pieces() -> np.ndarray:
    pieces = np.zeros((SIZE, SIZE), np.int32)
    pieces[4:40, 3:20], pieces[10:44, 24:46] = 1, 2
    return pieces


@given(st.integers(0, 9999), st.sampled_from([0, 1, 4]), st.floats(0, 3))
@settings(max_examples=60, deadline=None)
def test_settled_stays_settled(seed: int, sigma: float, bias: float) -> None:
    """Nothing changes the second time, nor outside the pieces, and a patch that is left is sure or has half."""
    values, pieces = rough(seed, sigma) + np.float32(bias), two_pieces()
    confidence = np.tanh(np.abs(values))
    settled = settle(values > 0, confidence, pieces)
    np.testing.assert_array_equal(settle(settled, confidence, pieces), settled)
    np.testing.assert_array_equal(settled[pieces == 0], (values > 0)[pieces == 0])
    for number in (1, 2):
        for decision in (False, True):
            count, labels = cv2.connectedComponents(((pieces == number) & (settled == decision)).view(np.uint8))
            for patch in (labels == k for k in range(1, count)):
                share = confidence[patch].sum() / confidence[pieces == number].sum()
                assert share >= 0.49 or confidence[patch].mean() >= MIN_CONFIDENCE


@given(st.integers(0, 9999), st.booleans())
@settings(max_examples=20, deadline=None)
def test_unanimous_pieces_stay(seed: int, decision: bool) -> None:
    """However doubtful they are, and whatever is decided elsewhere."""
    pieces = two_pieces()
    decisions = np.where(pieces == 1, decision, rough(seed, 1) > 0)
    confidence = np.abs(rough(seed, 2)).clip(0, 1) * np.float32(0.1)
    assert (settle(decisions, confidence, pieces)[pieces == 1] == decision).all()


def test_doubtful_islands_vanish_and_sure_ones_stay() -> None:
    pieces = two_pieces()
    decisions = np.ones((SIZE, SIZE), np.bool_)
    confidence = np.full((SIZE, SIZE), 0.9, np.float32)
    doubtful, sure, speck = np.s_[8:14, 5:12], np.s_[20:30, 6:16], np.s_[38:39, 18:19]
    for island in (doubtful, sure, speck):
        decisions[island] = False
    confidence[doubtful] = 0.2
    settled = settle(decisions, confidence, pieces)
    assert settled[doubtful].all()
    assert settled[speck].all()
    assert not settled[sure].any()
    decisions[sure] = True
    decisions[~decisions] = True
    decisions[doubtful] = False
    assert settle(decisions, confidence, pieces)[pieces > 0].all()


def test_the_rest_follows_a_majority_that_is_in_doubt_itself() -> None:
    """Noise alone ends in one decision for the piece: that of most of it."""
    pieces = np.ones((SIZE, SIZE), np.int32)
    values = rough(3, 0) * np.float32(0.2) + np.float32(0.1)
    settled = settle(values > 0, np.tanh(np.abs(values)), pieces)
    assert settled.all()


def crossed() -> np.ndarray:
    """Alphas of two bars that cross, uint8 [2, SIZE, SIZE]; they overlap in the middle."""
    alphas = np.zeros((2, SIZE, SIZE), np.uint8)
    alphas[0, 12:36, 4:44], alphas[1, 4:44, 12:36] = 255, 255
    return alphas


@pytest.mark.parametrize("sharpness", [1.0, 6.0])
def test_a_noisy_overlap_is_taken_from_one_paste(sharpness: float) -> None:
    logits = np.stack([0.4 * rough(1, 1) + 0.4, 0.4 * rough(2, 1), np.full((SIZE, SIZE), -20, np.float32)])
    found = softmax(settle_layers((logits * sharpness).astype(np.float32), crossed(), sharpness))
    assert softmax(logits * sharpness)[0].min() < 0.4
    assert (found[0, 12:36, 12:36] > 0.99).all()


def test_a_sure_split_stays_and_is_an_edge() -> None:
    """As of a thing in a cup: the upper half of the overlap from one paste, the lower from the other."""
    logits = np.zeros((3, SIZE, SIZE), np.float32)
    logits[0], logits[1], logits[2] = 3, 0, -20
    logits[:2, 24:] = logits[1::-1, 24:]
    found = softmax(settle_layers(logits, crossed()))
    assert (found[0, 12:22, 12:36] > 0.99).all()
    assert (found[1, 26:36, 12:36] > 0.99).all()
    logits[:2, 20:24] = logits[:2, 24:28]
    logits[:2] /= 10
    found = softmax(settle_layers(logits, crossed()))
    assert (found[1, 12:36, 12:36] > 0.99).all(), "in doubt: as the larger part"


def test_no_background_through_a_solid_object() -> None:
    """Half of it in a patch, in doubt, goes; all of it where the network is sure that half of the object is hidden."""
    logits = np.zeros((3, SIZE, SIZE), np.float32)
    logits[2] = -4
    logits[2, 14:20, 6:11] = 0.3
    found = softmax(settle_layers(logits, crossed()))
    assert (found[2][crossed().any(axis=0)] < 0.01).all()
    logits[2, 10:40, :11] = 5
    found = softmax(settle_layers(logits, crossed()))
    assert (found[2, 12:36, 4:9] > 0.98).all()
    assert (found[2, 4:44, 14:36] < 0.01).all()


def test_edges_follow_alpha_alone() -> None:
    """Just outside of what is solid, where the pastes fade, a decision goes on; without objects nothing is decided."""
    logits = np.zeros((3, SIZE, SIZE), np.float32)
    logits[2] = 4
    solid = crossed().any(axis=0)
    logits[2][solid] = -4
    found = softmax(settle_layers(logits, crossed()))
    rim = cv2.dilate(np.where(solid, 255, 0).astype(np.uint8), np.ones((5, 5), np.uint8))
    assert (found[2][rim > 0] < 0.01).all()
    nothing = settle_layers(logits, np.zeros((2, SIZE, SIZE), np.uint8))
    np.testing.assert_allclose(softmax(nothing), softmax(logits), atol=1e-6)


def test_what_is_sure_already_stays() -> None:
    """Of logits that decide everywhere alike, nothing changes; and the objects' places in the list do not matter."""
    logits = np.zeros((3, SIZE, SIZE), np.float32)
    logits[0], logits[1], logits[2] = 12, 0, -12
    np.testing.assert_allclose(settle_layers(logits, crossed()), logits)
    noisy = np.stack([rough(k, 2) for k in range(3)])
    np.testing.assert_array_equal(settle_layers(noisy, crossed()), settle_layers(noisy, crossed()[::-1]))


def test_boxes_around_what_is_solid() -> None:
    alphas = np.zeros((2, SIZE, SIZE), np.uint8)
    alphas[0, 5:20, 10:30], alphas[0, 5, 0] = 255, 100
    np.testing.assert_array_equal(tight_boxes(alphas), [[10, 5, 30, 20], [0, 0, SIZE, SIZE]])


def test_prior_of_three_objects() -> None:
    """At each pixel of the two that the pastes show: the hindmost and the foremost of those that are solid there."""
    alphas = np.zeros((3, SIZE, SIZE), np.uint8)
    alphas[0, 0:20], alphas[1, 10:40], alphas[2, 15:48] = 255, 255, 255
    log_odds = np.array([[0, 1, 2], [-1, 0, 3], [-2, -3, 0]], np.float32)
    prior = order_prior(alphas, [2, 0, 1], log_odds) / PRIOR_WEIGHT
    assert [prior[row, 0] for row in (5, 12, 17, 30, 45)] == [0, -1, 3, 3, 0]


@pytest.mark.parametrize(("prior", "expected"), [(None, True), (1.0, True), (-1.0, True), (-3.0, False)])
def test_prior_turns_what_is_not_surer(prior: float | None, expected: bool) -> None:
    logits = np.zeros((3, SIZE, SIZE), np.float32)
    logits[0], logits[2] = 4, -9
    alphas = np.full((2, SIZE, SIZE), 255, np.uint8)
    added = None if prior is None else np.full((SIZE, SIZE), prior, np.float32)
    first, second, _ = settle_layers(logits, alphas, 2.0, added)
    assert ((first > second) == expected).all()
