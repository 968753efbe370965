"""Sources of a dataset recipe: where the raw files lie, and in what format, one class a format."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from pics_cli.core.recipes.validation import (
    CONFIG,
    NOT_EMPTY,
    SOME_WEIGHT,
    Folder,
    FolderPattern,
    ImagePattern,
    LabelFolder,
    Name,
    Text,
    between,
)

Pool = Literal["train", "held_out"]
RenderedPool = Literal["train", "val", "test"]
SceneRelation = Literal["apart", "touching", "occluding", "supporting", "containing"]


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class FileSplit:
    """Where one split lies, relative to the raw folder. The first path that exists is taken."""

    annotations: tuple[FolderPattern, ...] = ()
    """Annotation files, or folders of one annotation file a picture, in the order in which they are looked for. Of a
    pattern with * all files are read, one after the other."""
    labels: tuple[LabelFolder, ...] = ()
    """Formats coco and scalabel: folders of labels that `pics annotate` made, or of one json a picture, as the research
    SAM script writes them; looked for first, also outside the raw folder. None named: pics_labels/{split}."""
    images: Annotated[tuple[ImagePattern, ...], NOT_EMPTY]
    """Picture files, with fields such as {file_name}, {path} (that without its ending), {name}, {stem}, {parent},
    {url_name}, {split}; a folder * is any one, ** any number of them."""

    @model_validator(mode="after")
    def _has_annotations(self) -> FileSplit:
        if not self.annotations and not self.labels:
            raise PydanticCustomError("split", "a split with annotations")
        if any("*" in pattern.rpartition("/")[2].removesuffix(".*") for pattern in self.images):
            raise PydanticCustomError("split", "pictures whose folders alone have *, such as images/**/{name}")
        return self


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class _FileSource:
    folders: ClassVar[bool] = True
    """Whether annotations are folders of one file a picture, and not single files."""
    known_pairs: ClassVar[bool] = False
    """Whether people say of some pairs how they stand to each other: these are then the ones to choose from."""
    folder: tuple[Folder, ...] = ()
    """Names under which the dataset may lie inside the folder given as --raw."""
    splits: Annotated[dict[Name, FileSplit], NOT_EMPTY]
    """The dataset's splits by name: train, val or test."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class SamSettings:
    """Masks made from boxes by `pics annotate`: how they are made, and which of them count as objects."""

    block: Annotated[int, between(1, math.inf, True)] = 256
    """Pictures of one label file."""
    holes: Annotated[int, between(0, math.inf, True)] = 0
    """Holes of fewer pixels are filled."""
    islands: Annotated[int, between(0, math.inf, True)] = 0
    """Parts of fewer pixels are removed; the largest always stays."""
    tiny: Annotated[int, between(0, math.inf, True)] = 64
    """Masks of fewer pixels are flagged."""
    low_score: Annotated[float, between(0, 1, True)] = 0.7
    """Masks of which the model expects a smaller IoU are flagged."""
    min_score: Annotated[float, between(0, 1, True)] = 0.0
    """build-shards: objects need this expected IoU."""
    min_agreement: Annotated[float, between(0, 1, True)] = 0.0
    """build-shards: the box of an object's mask must have this IoU with the annotated one."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class CocoSource(_FileSource):
    """COCO's annotation format: COCO, LVIS, Objects365 and most people's own."""

    folders: ClassVar[bool] = False

    format: Literal["coco"]
    """Which reader understands the files."""
    sam: SamSettings = field(default_factory=SamSettings)
    """Masks made from boxes by `pics annotate`."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ParseMapSource(_FileSource):
    """Folders of one label map a picture (palette or grey PNG), each id one region: VITON-HD."""

    format: Literal["parse_map"]
    """Which reader understands the files."""
    suffix: Text = ".png"
    """How the names of the label maps end; what stands before it is {stem}."""
    regions: Annotated[dict[Text, Annotated[tuple[Annotated[int, between(1, 255, True)], ...], NOT_EMPTY]], NOT_EMPTY]
    """Regions by name, each of one id of the map or of several that form one object."""
    void: tuple[Annotated[int, between(0, 255, True)], ...] = (0,)
    """Ids that belong to no object; a map that holds yet others is bad."""

    @model_validator(mode="after")
    def _ids_are_unique(self) -> ParseMapSource:
        ids = [i for region in self.regions.values() for i in region] + list(self.void)
        if twice := [i for i in ids if ids.count(i) > 1]:
            raise PydanticCustomError("regions", "id {id} once, in regions or in void", {"id": twice[0]})
        return self


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class CityscapesSource(_FileSource):
    """Folders of one polygon json a picture, objects in paint order: Cityscapes."""

    format: Literal["cityscapes"]
    """Which reader understands the files."""
    suffix: Text = "_gtFine_polygons.json"
    """How the names of the polygon files end; what stands before it is {stem}."""
    labels: Annotated[tuple[Text, ...], NOT_EMPTY]
    """Labels that are single objects, for pairs.classes to name. All others are scenery, which may hide objects."""
    transparent: tuple[Text, ...] = ()
    """Labels that are part of what they lie on and hide nothing."""

    @model_validator(mode="after")
    def _labels_are_disjoint(self) -> CityscapesSource:
        if both := sorted(set(self.labels) & set(self.transparent)):
            raise PydanticCustomError("labels", "{what} in labels or in transparent", {"what": both[0]})
        return self


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class VistasSource(_FileSource):
    """Folders of one 16-bit instance picture each (label * 256 + instance): Mapillary Vistas."""

    format: Literal["vistas"]
    """Which reader understands the files."""
    suffix: Text = ".png"
    """How the names of the instance pictures end; what stands before it is {stem}."""
    versions: Annotated[tuple[Name, ...], NOT_EMPTY]
    """Values of {version}, in the order in which they are looked for."""
    configs: Annotated[tuple[FolderPattern, ...], NOT_EMPTY]
    """Files that name the labels, in the order in which they are looked for."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ScalabelSource(_FileSource):
    """Scalabel's format, one json a split: BDD100K."""

    folders: ClassVar[bool] = False

    format: Literal["scalabel"]
    """Which reader understands the files."""
    sam: SamSettings = field(default_factory=SamSettings)
    """Masks made from boxes by `pics annotate`."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class LabelMeSource(_FileSource):
    """Folders of LabelMe's json files, one a picture."""

    format: Literal["labelme"]
    """Which reader understands the files."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class YoloSource(_FileSource):
    """Folders of YOLO's segmentation labels, one text file a picture."""

    format: Literal["yolo_seg"]
    """Which reader understands the files."""
    names: Annotated[tuple[FolderPattern, ...], NOT_EMPTY]
    """Files that name the classes (YAML with `names`, or text of one name a line); the first that exists is taken."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class VocSource(_FileSource):
    """Pascal VOC's segmentation: a list of pictures a split, and two label maps a picture."""

    folders: ClassVar[bool] = False

    format: Literal["voc"]
    """Which reader understands the files."""
    objects: Annotated[tuple[ImagePattern, ...], NOT_EMPTY]
    """Label maps of the objects, numbered from 1; 255 is void."""
    classes: Annotated[tuple[ImagePattern, ...], NOT_EMPTY]
    """Label maps of the classes."""
    labels: Annotated[tuple[Text, ...], NOT_EMPTY]
    """Names of the classes 1, 2, …"""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class PanopticSource(_FileSource):
    """COCO's panoptic format: one json a split, and a PNG of segment ids a picture."""

    folders: ClassVar[bool] = False

    format: Literal["coco_panoptic"]
    """Which reader understands the files."""
    maps: Annotated[tuple[ImagePattern, ...], NOT_EMPTY]
    """The PNG files, by the `file_name` of their annotation."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class InstaOrderSource(_FileSource):
    """InstaOrder: who hides whom in COCO's pictures, a json a split beside COCO's own."""

    folders: ClassVar[bool] = False
    known_pairs: ClassVar[bool] = True

    format: Literal["instaorder"]
    """Which reader understands the files."""
    orders: Annotated[tuple[FolderPattern, ...], NOT_EMPTY]
    """Files of orders, in the order in which they are looked for."""
    nearer: bool = False
    """Whether a pair counts, too, in which neither hides the other but one is nearer."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class RelationRule:
    """What a visual relationship "1 … 2" says of two objects."""

    relation: Literal["supporting", "containing"]
    """How they stand to each other."""
    subject: Annotated[int, between(1, 2, True)]
    """Which of the two supports or contains the other."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class OpenImagesSource(_FileSource):
    """Open Images: CSV files of masks, boxes and visual relationships, a PNG for each mask."""

    folders: ClassVar[bool] = False
    known_pairs: ClassVar[bool] = True

    format: Literal["open_images"]
    """Which reader understands the files."""
    masks: Annotated[tuple[ImagePattern, ...], NOT_EMPTY]
    """PNG files of masks: {name} is that of the file, {parent} the first digit of the image's id, {parent2} the same
    as a capital letter."""
    classes: Annotated[tuple[FolderPattern, ...], NOT_EMPTY]
    """Files that name the classes; the first that exists is taken."""
    boxes: tuple[FolderPattern, ...] = ()
    """Files of boxes, which say what is a group, a depiction or seen from inside; empty: nothing is known of that."""
    relationships: tuple[FolderPattern, ...] = ()
    """Files of visual relationships."""
    relations: Annotated[dict[Text, RelationRule], NOT_EMPTY]
    """Relationships that count, by name. Of several of one pair the first of these counts."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class SynthSplit:
    """Scenes of one split."""

    pool: Pool
    """Which half of the generator's shapes, textures and random numbers; the two have nothing in common."""
    scenes: Annotated[int, between(1, math.inf, True)]
    """How many."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class ReferenceView:
    """How the alternative view of an object differs from the one in the picture."""

    turn: Annotated[float, between(0, 180, True)] = 25.0
    """Largest turn about its vertical axis, in degrees; elevation changes in proportion."""
    light: Annotated[float, between(0, 1, True)] = 0.5
    """0: the same light; 1: any direction and colour."""
    detail: Annotated[float, between(1, 4, True)] = 1.0
    """Resolution at which it is drawn over that of the object in the picture, up to 224 pixels."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class SynthSource:
    """Scenes drawn by the built-in generator: no raw files."""

    known_pairs: ClassVar[bool] = False

    format: Literal["synth"]
    """Which reader understands the files."""
    splits: Annotated[dict[Name, SynthSplit], NOT_EMPTY]
    """Splits by name: train, val or test."""
    size: Annotated[int, between(64, 1024, True)] = 512
    """Side of the pictures, in pixels."""
    relations: Annotated[dict[SceneRelation, Annotated[float, between(0, math.inf, True)]], SOME_WEIGHT]
    """Weights with which the relation of two objects is drawn."""
    view: ReferenceView = field(default_factory=ReferenceView)
    """How the alternative view of an object differs."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class RenderedSplit:
    """Scenes of one split."""

    pool: RenderedPool
    """Which of three parts of the raw material; no two have a model, HDRI or photograph in common."""
    scenes: Annotated[int, between(1, math.inf, True)]
    """How many."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class RenderedView:
    """How the alternative view of an object differs from the one in the picture."""

    turn: Annotated[float, between(0, 180, True)] = 10.0
    """Largest turn about its vertical axis, in degrees; elevation changes in proportion."""
    light: Annotated[float, between(0, 1, True)] = 1.0
    """0: the same light; 1: 60 % of the views in a light near the scene's, the others in any light and exposure."""


@dataclass(frozen=True, kw_only=True, config=CONFIG)
class RenderedSource:
    """Scenes of 3D models, path traced: needs `pip install 'pics-cli[render]'`."""

    known_pairs: ClassVar[bool] = False

    format: Literal["rendered"]
    """Which reader understands the files."""
    models: Folder = "models"
    """Folder of 3D models (OBJ, GLB, Sweet Home 3D .sh3f) inside the raw folder."""
    hdris: Folder = "hdris"
    """Folder of panoramas (EXR, HDR)."""
    grounds: Folder = "grounds"
    """Folder of photographs (JPEG, PNG) for grounds and walls."""
    splits: Annotated[dict[Name, RenderedSplit], NOT_EMPTY]
    """Splits by name: train, val or test."""
    size: Annotated[int, between(64, 1024, True)] = 256
    """Side of the pictures, in pixels."""
    samples: Annotated[int, between(1, 4096, True)] = 6
    """Light paths of a pixel; a denoiser follows."""
    relations: Annotated[dict[SceneRelation, Annotated[float, between(0, math.inf, True)]], SOME_WEIGHT]
    """Weights with which the relation of two objects is drawn."""
    view: RenderedView = field(default_factory=RenderedView)
    """How the alternative view of an object differs."""


FileSource = (
    CocoSource | ParseMapSource | CityscapesSource | VistasSource | ScalabelSource
    | LabelMeSource | YoloSource | VocSource | PanopticSource | InstaOrderSource | OpenImagesSource
)  # fmt: skip
Source = Annotated[FileSource | SynthSource | RenderedSource, Field(discriminator="format")]
