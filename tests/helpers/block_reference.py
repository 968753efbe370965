"""The interaction block's equations, token by token in float64: slow, plain, and written without a look at the network.

Shapes: N spatial tokens, C channels, K objects, M object tokens, D context width. No torch, no batch, no routing: every
token runs through its own case of the equations, and only keys and values are tables over tokens. `weights` maps a
block's state-dict names (`attn2.to_q.weight`, ...) to arrays [out, in] or [out].
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Weights: TypeAlias = Mapping[str, NDArray[np.floating]]


def interaction_block(
    weights: Weights,
    h_NC: Array,
    c_KMD: Array,
    cover_NK: NDArray[np.bool_],
    *,
    heads: int,
    tau: float = 0.5,
    bias_K: Array | None = None,
) -> Array:
    """The block's output [N, C] for one sample.

    S(p) is the set of objects with `cover_NK[p, k]`. After h <- h + SelfAttn(LN1 h), token p gains
        nothing                                  |S(p)| = 0
        CrossAttn(LN2 h, c_k)(p)                 S(p) = {k}
        Attn_bg(LN2b(x), h)(p)                   |S(p)| > 1, x = CrossAttn(LN2 h, pair context of S(p))
    and then h <- h + FF(LN3 h). `bias_K` is added to the logits of alpha.
    """
    w = {name: np.asarray(value, np.float64) for name, value in weights.items()}
    h_NC = np.asarray(h_NC, np.float64)
    c_KMD = np.asarray(c_KMD, np.float64)
    tokens = range(len(h_NC))

    normed = np.stack([_layer_norm(w, "norm1", h_NC[p]) for p in tokens])
    h_NC = h_NC + np.stack([_attention(w, "attn1", normed[p], normed, heads) for p in tokens])

    pair_contexts: dict[tuple[int, ...], Array] = {}
    x_NC = np.zeros_like(h_NC)
    for p in tokens:
        objects = tuple(int(k) for k in np.flatnonzero(cover_NK[p]))
        query = _layer_norm(w, "norm2", h_NC[p])
        if len(objects) == 1:
            x_NC[p] = _attention(w, "attn2", query, c_KMD[objects[0]], heads)
        elif len(objects) > 1:
            if objects not in pair_contexts:
                pair_contexts[objects] = np.stack([pair_token(w, h_NC[q], c_KMD, objects, tau, bias_K) for q in tokens])
            mixed = _attention(w, "attn2", query, pair_contexts[objects], heads)
            x_NC[p] = _attention(w, "attn_bg", _layer_norm(w, "norm2b", mixed), h_NC, heads)
    h_NC = h_NC + x_NC
    return h_NC + np.stack([_feed_forward(w, _layer_norm(w, "norm3", h_NC[p])) for p in tokens])


def pair_token(
    w: Weights, h_C: Array, c_KMD: Array, objects: tuple[int, ...], tau: float, bias_K: Array | None = None
) -> Array:
    """The one context token [D] that a spatial token gets for the set `objects`: sum of alpha_k a_k."""
    alpha, a = gate(w, h_C, c_KMD, objects, tau, bias_K)
    return np.asarray(sum(alpha[i] * a[i] for i in range(len(objects))))


def gate(
    w: Weights, h_C: Array, c_KMD: Array, objects: tuple[int, ...], tau: float, bias_K: Array | None = None
) -> tuple[Array, list[Array]]:
    """Weights alpha of the objects at one spatial token, and each object's answer a_k [D].

    g = W_q LN_g(h) + b_q,  a_k = softmax(g (W_k LN_c c_k)^T / sqrt(D)) (W_v c_k),  s_k = <g, a_k> / sqrt(D),
    alpha = softmax over the set of (s_k / tau)
    """
    g = _linear(w, "gate_q", _layer_norm(w, "norm2g", h_C))
    width = len(g)
    answers, logits = [], []
    for k in objects:
        scores = [g @ _linear(w, "k_proj", _layer_norm(w, "norm_c", c_D)) / math.sqrt(width) for c_D in c_KMD[k]]
        share = _softmax(np.array(scores))
        answer = sum(share[m] * _linear(w, "v_proj", c_KMD[k][m]) for m in range(len(share)))
        answers.append(np.asarray(answer))
        logits.append(g @ answers[-1] / math.sqrt(width) / tau + (0.0 if bias_K is None else bias_K[k]))
    return _softmax(np.array(logits)), answers


def _attention(w: Weights, name: str, query_C: Array, source: Array, heads: int) -> Array:
    """Multi-head attention of ONE query token [C] over source tokens [keys, width], each already normalised or not."""
    q = _linear(w, f"{name}.to_q", query_C)
    keys = source @ w[f"{name}.to_k.weight"].T
    values = source @ w[f"{name}.to_v.weight"].T
    width = len(q) // heads
    parts = []
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        share = _softmax(np.array([q[own] @ key[own] for key in keys]) / math.sqrt(width))
        parts.append(share @ values[:, own])
    return _linear(w, f"{name}.to_out.0", np.concatenate(parts))


def _feed_forward(w: Weights, x_C: Array) -> Array:
    """GEGLU: the first half of the inner projection times gelu of the second, then back to C."""
    inner, opening = np.split(_linear(w, "ff.net.0.proj", x_C), 2)
    gelu = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in opening])
    return _linear(w, "ff.net.2", inner * gelu)


def _linear(w: Weights, name: str, x: Array) -> Array:
    y = w[f"{name}.weight"] @ x
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def _layer_norm(w: Weights, name: str, x: Array, epsilon: float = 1e-5) -> Array:
    centred = x - x.mean()
    scaled = centred / np.sqrt((centred**2).mean() + epsilon)
    return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"])


def _softmax(x: Array) -> Array:
    raised = np.exp(x - x.max())
    return np.asarray(raised / raised.sum())
