"""Which licence a model is under: that of the weights it was made from, as far as its folder says what these were."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pics_cli.core.model.config import ModelConfig


@dataclass(frozen=True)
class Licence:
    """A licence.

    Attributes:
        id: as the hub's model cards name it.
        text: what the card says on it.
        name, link: where the hub has no id for it.
    """

    id: str
    text: str
    name: str | None = None
    link: str | None = None


_PASSES_ON = "passes on to whatever is made from it, with the uses that its attachment A forbids"
_DINOV2 = "The image encoder is DINOv2 (Apache 2.0)."
_RAIL_PLUS = "[CreativeML Open RAIL++-M](https://huggingface.co/stabilityai/stable-diffusion-2/blob/main/LICENSE-MODEL)"
_RAIL = "[CreativeML Open RAIL-M](https://huggingface.co/spaces/CompVis/stable-diffusion-license)"
STABLE_DIFFUSION_2 = Licence(
    "openrail++",
    f"UNet, ControlNet and VAE come from Stable Diffusion 2, whose licence, {_RAIL_PLUS}, {_PASSES_ON}. {_DINOV2}",
)
STABLE_DIFFUSION_1 = Licence(
    "creativeml-openrail-m",
    f"UNet, ControlNet and VAE come from Stable Diffusion 1, whose licence, {_RAIL}, {_PASSES_ON}. {_DINOV2}",
)
_BY_NAME = {
    r"[\w.-]+/stable-diffusion-2(-1)?(-base)?": STABLE_DIFFUSION_2,
    r"[\w.-]+/stable-diffusion-v1-\d": STABLE_DIFFUSION_1,
}
BUNDLED = Licence("mit", "MIT, as the package that it comes with.")
# Width of the context of Stable Diffusion 2, which the research project's network was started from.
_CONTEXT_2 = 1024


def licence_of(config: ModelConfig, *, has_vae: bool, conversion: Mapping[str, Any] | None) -> Licence | None:
    """The licence of a model's weights; None where it is its maker's to choose, or nothing says what it is.

    Args:
        config: of the model.
        has_vae: whether its autoencoder has weights: a network that works on pixels was started from no other model.
        conversion: contents of `conversion.json`, of a converted checkpoint of the research code.
    """
    for name in config.base_models:
        for pattern, licence in _BY_NAME.items():
            if re.fullmatch(pattern, name.partition("@")[0]):
                return licence
    if not has_vae or not config.full_size:
        return None
    if conversion is not None and config.context_width == _CONTEXT_2:
        return STABLE_DIFFUSION_2
    text = "That of the model that it was started from, which its files do not name."
    return Licence("other", text, name="licence-of-the-base-model")
