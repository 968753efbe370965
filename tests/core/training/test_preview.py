"""The sheet of references as training augments them."""

from __future__ import annotations

import numpy as np

from pics_cli.core.loading.augment import View, render_view
from pics_cli.core.training.preview import AugmentedReference, draw_augmented


def test_sheet_shows_each_object_in_a_row_of_its_own() -> None:
    white, red = (np.full((30, 20, 4), colour, np.uint8) for colour in ((255, 255, 255, 255), (255, 0, 0, 255)))
    rows = [
        ("white", render_view(white, View(), 56), [render_view(red, View(), 56)] * 3),
        ("red", render_view(red, View(), 56), []),
    ]
    sheet = draw_augmented([AugmentedReference(*row) for row in rows])
    is_red = (sheet == (255, 0, 0)).all(axis=2)
    cell, gap = 154, 10
    for k, expected in enumerate((False, True, True, True)):
        assert is_red[: sheet.shape[0] // 2, gap + cell * k : gap + cell * (k + 1)].any() == expected
    lower = is_red[sheet.shape[0] // 2 :]
    assert lower[:, :cell].any()
    assert not lower[:, gap + cell :].any()
    # White on white shows nothing, so the cut-out lies on another ground.
    ground = sheet[44 + 150 : 44 + 290, gap : gap + 144]
    assert (ground == 255).all(axis=2).mean() > 0.3
    assert (ground < 200).any()
