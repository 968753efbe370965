"""A picture made of an example, with what several metrics need of either, each computed once.

H, W: height and width; K: objects; d: width of a descriptor or feature. X, T, C: picture, truth, background.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from pics_cli.core.evaluation import appearance_metrics as appearance
from pics_cli.core.evaluation import object_metrics as objects
from pics_cli.core.evaluation import pixel_metrics as pixels
from pics_cli.core.evaluation import shadow_metrics as shadows
from pics_cli.core.evaluation.appearance_metrics import ReferenceGallery
from pics_cli.core.evaluation.descriptor import Floats, describe_references
from pics_cli.core.evaluation.examples import Example
from pics_cli.core.evaluation.networks import (
    Features,
    ImageEncoder,
    Inception,
    Lpips,
    cosine_similarity,
    crop_objects,
    pad_references,
)
from pics_cli.core.evaluation.subsets import overlap_difficulty
from pics_cli.core.images.cutouts import OPAQUE_ALPHA, cut_out
from pics_cli.core.images.image_io import RGB
from pics_cli.core.images.masks import Mask
from pics_cli.errors import PicsError


@dataclass(frozen=True)
class ExampleContext:
    """An example, networks of learnt metrics by kind, and values that all of its composites share, computed once."""

    example: Example
    gallery: ReferenceGallery
    networks: Mapping[str, ImageEncoder | Inception | Lpips] = field(default_factory=dict)

    @cached_property
    def references(self) -> Floats:
        """Descriptors, float32 [K, d]."""
        return describe_references(self.example.references)

    @cached_property
    def difficulty(self) -> float | None:
        """See `overlap_difficulty`."""
        return overlap_difficulty(self.example.paste_boxes, self.references) if self.example.references else None

    @cached_property
    def truth_similarity(self) -> Floats:
        """Similarity of the objects in the truth to the references, float32 [K, K]."""
        similarity: Floats = appearance.describe_objects(self.example.truth, self.example) @ self.references.T
        return similarity

    @cached_property
    def reference_features(self) -> dict[str, Features]:
        """Features of the references by kind of image encoder, float32 [K, d]."""
        crops = pad_references(self.example.references)
        return {kind: net(crops) for kind, net in self.networks.items() if isinstance(net, ImageEncoder)}

    @cached_property
    def reference_colours(self) -> list[Floats | None]:
        """Colours of each reference, see `object_colours`."""
        cutouts = [rgb if rgb.shape[2] == 4 else cut_out(rgb) for rgb in self.example.references]
        return [objects.object_colours(rgba[..., :3], rgba[..., 3] >= OPAQUE_ALPHA) for rgba in cutouts]

    @cached_property
    def truth_luminance(self) -> Floats:
        """Y(T)."""
        return pixels.luminance(self.example.truth)

    @cached_property
    def background_luminance(self) -> Floats:
        """Y(C)."""
        return pixels.luminance(self.example.background)

    @cached_property
    def truth_detail(self) -> Floats:
        """Fine detail of the truth, float32 [H, W]."""
        return objects.fine_detail(self.truth_luminance)

    @cached_property
    def detailed_patches(self) -> list[npt.NDArray[np.intp]]:
        """Where each object has most detail, see `object_metrics.detailed_patches`."""
        return [objects.detailed_patches(self.truth_detail, mask) for mask in self.example.visible_masks]

    @cached_property
    def outlines(self) -> tuple[Mask, ...] | None:
        """Masks that tell ground from objects: whole ones, or where only shadows are known, what is seen of them."""
        example = self.example
        return example.full_masks or (example.visible_masks if example.shadow_masks else None)

    @cached_property
    def shadow(self) -> Mask | None:
        """Where the truth is in shadow, objects included; None where nothing says it."""
        example = self.example
        if self.outlines is None:
            return None
        if example.shadow_masks is None and not example.true_background:
            return None
        darker = self.background_luminance - self.truth_luminance
        shadow: Mask = np.any(example.shadow_masks or [darker >= shadows.SHADOW_STEPS], axis=0)
        return shadow

    @cached_property
    def ground(self) -> Mask:
        """Pixels of the regions that are no object's."""
        return shadows.ground_of(self.outlines or (), self.example.inside)

    @cached_property
    def shaded(self) -> Mask | None:
        """Ground that is in shadow in the truth."""
        return None if self.shadow is None else self.shadow & self.ground

    @cached_property
    def lit(self) -> Mask | None:
        """Ground that nothing darkens in the truth; known of true backgrounds alone."""
        if self.shadow is None or not self.example.true_background:
            return None
        lit: Mask = np.abs(self.background_luminance - self.truth_luminance) <= shadows.LIT_STEPS
        return lit & self.ground

    @cached_property
    def touched_ground(self) -> Mask | None:
        """Ground right below the objects that is in shadow in the truth."""
        if self.shadow is None:
            return None
        # Pixels along an outline are mixed with the object.
        grown = [cv2.dilate(mask.view(np.uint8), np.ones((3, 3), np.uint8)) > 0 for mask in self.outlines or ()]
        return shadows.ground_below(grown, self.example.inside) & self.shadow

    @cached_property
    def grounds(self) -> list[Mask]:
        """The ground of each object, where its shadow is looked for."""
        return shadows.nearest_ground(self.outlines or (), self.ground)

    @cached_property
    def shadow_angle(self) -> float | None:
        """Angle between the shadows of two objects in the truth; None where it is unclear."""
        if self.shadow is None or self.outlines is None or len(self.outlines) != 2:
            return None
        falls = self.example.shadow_masks
        grounds = self.grounds if falls is None else [mask & self.ground for mask in falls]
        darker = self.background_luminance - self.truth_luminance
        return shadows.shadow_angle(darker, self.outlines, grounds)


@dataclass(frozen=True)
class Composite:
    """A picture made of an example, and values that several metrics share, computed once.

    Attributes:
        picture: uint8 [H, W, 3], of the truth's size.
        context: of the example.
        composite_reversed: makes the same picture with the objects listed the other way round; None: there is no model.

    Raises:
        PicsError: the picture has another size than the truth.
    """

    picture: RGB
    context: ExampleContext
    composite_reversed: Callable[[], RGB] | None = None

    def __post_init__(self) -> None:
        if self.picture.shape != self.truth.shape:
            own, truth = ("x".join(str(side) for side in rgb.shape[1::-1]) for rgb in (self.picture, self.truth))
            key = self.example.key
            raise PicsError(f"{key}: the picture is {own}, the truth {truth}", "results keep the truth's size")

    @property
    def example(self) -> Example:
        return self.context.example

    @property
    def truth(self) -> RGB:
        return self.example.truth

    @cached_property
    def objects(self) -> Floats:
        """Descriptors of each object in the picture, float32 [K, d]."""
        return appearance.describe_objects(self.picture, self.example)

    @cached_property
    def similarity(self) -> Floats:
        """Similarity of object i in the picture to reference j, float32 [K, K]."""
        if not self.example.references:
            return np.zeros((0, 0), np.float32)
        similarity: Floats = self.objects @ self.context.references.T
        return similarity

    @cached_property
    def luminance(self) -> Floats:
        """Y(X)."""
        return pixels.luminance(self.picture)

    @cached_property
    def darker(self) -> Floats:
        """Y(C) - Y(X)."""
        return self.context.background_luminance - self.luminance

    @cached_property
    def shadow(self) -> Mask:
        """Where the picture is darker than the background, as a shadow is."""
        shadow: Mask = self.darker >= shadows.SHADOW_STEPS
        return shadow

    @cached_property
    def ssim(self) -> tuple[float, Floats] | None:
        return pixels.ssim(self.picture, self.truth)

    @cached_property
    def lpips(self) -> tuple[float, Floats] | None:
        network = self.context.networks["lpips"]
        assert isinstance(network, Lpips)
        return network(self.picture, self.truth)

    @cached_property
    def dino(self) -> Floats:
        """Cosine of each object's features and its reference's, by DINOv2, float32 [K]."""
        return self.feature_similarity("dino")

    def feature_similarity(self, kind: str) -> Floats:
        """Cosine of each object's features and its reference's, float32 [K], by an encoder of that kind."""
        encoder = self.context.networks[kind]
        assert isinstance(encoder, ImageEncoder)
        crops = crop_objects(self.picture, self.example.paste_boxes)
        return cosine_similarity(encoder(crops), self.context.reference_features[kind])

    @cached_property
    def region_seam(self) -> pixels.SeamError:
        """Along the border of the regions' union."""
        return pixels.seam_error(self.picture, self.truth, self.example.inside)

    @cached_property
    def object_seam(self) -> pixels.SeamError:
        """Along the outlines of what is seen of each object in the truth."""
        masks = self.example.visible_masks
        return pixels.pool_seams([pixels.seam_error(self.picture, self.truth, mask) for mask in masks])
