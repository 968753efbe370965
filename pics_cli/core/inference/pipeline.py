"""The public Python API of compositing, in the manner of a diffusers pipeline."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin

from pics_cli.core.conditioning.placement import CropKind
from pics_cli.core.images.cutouts import Fit
from pics_cli.core.images.stored_image import to_pillow
from pics_cli.core.inference.batch_compositor import DenoisingStep, NoiseFunction
from pics_cli.core.inference.composite import composite
from pics_cli.core.inference.cutout import Cutout, ReferenceCutter
from pics_cli.core.inference.mask_region import RegionRule
from pics_cli.core.inference.pipeline_output import PicsPipelineOutput
from pics_cli.core.inference.python_inputs import ImageInput, read_inputs
from pics_cli.core.inference.record import model_fingerprint, model_record, settings_record
from pics_cli.core.inference.sample import CompositeOptions, Light, MatchKind, Mode, Order
from pics_cli.core.model.adapters import AdapterChoice, check_weight, load_adapter, warn_of_other_base
from pics_cli.core.model.config import ModelConfig
from pics_cli.core.model.controlnet import BackgroundControlNet
from pics_cli.core.model.ddim import DDIMScheduler
from pics_cli.core.model.describe_folder import CONFIG_KEY, INDEX_FILE
from pics_cli.core.model.dinov2 import Dinov2Encoder
from pics_cli.core.model.find_model import find_model
from pics_cli.core.model.image_encoder import Projector
from pics_cli.core.model.model_folder import PARTS
from pics_cli.core.model.part_checks import find_mismatches
from pics_cli.core.model.pics_model import PicsModel
from pics_cli.core.model.pixel_autoencoder import PixelAutoencoder
from pics_cli.core.model.push import plan_push
from pics_cli.core.model.unet import InteractionUNet
from pics_cli.core.model.upload import upload
from pics_cli.core.runtime.storage import location
from pics_cli.errors import BadSample, PicsError

logger = logging.getLogger(__name__)

StepCallback = Callable[["PicsPipeline", int, float, dict[str, Any]], Any]


class PicsPipeline(DiffusionPipeline):
    """Composites objects into a picture.

    Examples:
        >>> pipe = PicsPipeline.from_pretrained("pics-mini").to("cuda")
        >>> boxes = [(210, 340, 390, 460), (190, 400, 420, 520)]
        >>> result = pipe("table.jpg", objects=["cup.png", "saucer.png"], boxes=boxes, seed=0)
        >>> result.images[0].save("out.png")

    It is what `DiffusionPipeline.from_pretrained(…, trust_remote_code=True)` gives for a model folder of pics, too.
    That imports the classes which the folder names; `PicsPipeline.from_pretrained` does not, and knows them.

    Args:
        unet, controlnet, image_encoder, projector, vae, scheduler: the parts; see `PicsModel`. All get the UNet's data
            type.
        pics: plain data of their `ModelConfig`, as `model_index.json` has it.

    Attributes:
        model: the networks.
        adapters: records of those that were added to the weights: name, sha256, weight.

    Raises:
        PicsError: a value of `pics` that is not allowed, or that does not fit the parts.
    """

    def __init__(
        self,
        unet: InteractionUNet,
        controlnet: BackgroundControlNet,
        image_encoder: Dinov2Encoder,
        projector: Projector,
        vae: AutoencoderKL | PixelAutoencoder,
        scheduler: SchedulerMixin,
        pics: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if pics is None:
            raise PicsError(
                f"{INDEX_FILE}: no entry {CONFIG_KEY}, which says what the parts are",
                "load an older folder with PicsPipeline.from_pretrained, and save it again for diffusers",
            )
        config = ModelConfig.parse(pics, Path(INDEX_FILE))
        parts: dict[str, Any] = {
            "unet": unet, "controlnet": controlnet, "image_encoder": image_encoder, "projector": projector, "vae": vae
        }  # fmt: skip
        if mismatches := find_mismatches(config, **parts):
            raise PicsError("\n".join(mismatches), "are its parts of one model?")
        for part in parts.values():
            torch.nn.Module.to(part, unet.dtype)
        self.register_modules(**parts, scheduler=scheduler)
        self.register_to_config(**{CONFIG_KEY: asdict(config)})
        self.model = PicsModel(config, **parts, scheduler=scheduler, device=unet.device)
        self.adapters: list[dict[str, Any]] = []
        self._origin: tuple[str, str] | None = None

    @classmethod
    def _get_signature_types(cls) -> dict[str, tuple[Any, ...]]:
        """What the parts are; diffusers before 0.38 looks for classes, where annotations are text."""
        hints = get_type_hints(cls.__init__)
        return {name: get_args(hint) if isinstance(hint, UnionType) else (hint,) for name, hint in hints.items()}

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__ and name in (*PARTS, "scheduler"):
            advice = "name one in the call: scheduler=…" if name == "scheduler" else "make another pipeline"
            raise AttributeError(f"{name} of a PicsPipeline cannot be replaced: {advice}")
        super().__setattr__(name, value)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, torch_dtype: torch.dtype | None = None
    ) -> PicsPipeline:
        """Load a model into main memory; of a folder's files no code is run.

        Args:
            pretrained_model_name_or_path: `pics-mini`, the small model that comes with the package; `pics`, the
                published one, once it is downloaded; a research checkpoint; a model folder; one of these in a store
                (`s3://bucket/folder`); or a repository on the Hugging Face hub (`owner/name` or
                `owner/name@revision`).
            torch_dtype: precision to compute in; None: float32.

        Raises:
            PicsError: no such folder or repository, or no model in it.
        """
        name = pretrained_model_name_or_path
        folder = find_model(str(name), flag="model")
        model = PicsModel.from_pretrained(folder, dtype=torch_dtype or torch.float32, flag="model")
        scheduler = model.scheduler
        if isinstance(scheduler, DDIMScheduler):  # users of pipelines expect that of diffusers
            scheduler = diffusers.DDIMScheduler(**scheduler.config)
        parts: dict[str, Any] = {**model.parts, "scheduler": scheduler}
        pipe = cls(**parts, pics=asdict(model.config))
        pipe._origin = (str(name), model_fingerprint(folder))
        return pipe

    def load_lora(self, path: str | Path, weight: float = 1.0) -> None:
        """Add an adapter to the weights, as `pics infer --lora` does; several add up. To be without it, load the model
        anew.

        Args:
            path: folder of the adapter.
            weight: how strongly it acts, from -4 to 4; 1: as it was trained.

        Raises:
            PicsError: no adapter, one of another model, or a weight out of range.
            ValueError: parts are kept off the device by one of the `enable_…_cpu_offload` methods: call it before them.
        """
        adapter = load_adapter(AdapterChoice(location(str(path)), check_weight(weight, f"{path}")))
        if self._origin is not None:
            warn_of_other_base([adapter], *self._origin)
        self.model.load_adapters([adapter])
        self.adapters.append(adapter.record)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write a model folder, which `pics infer --model`, `pics train --base` and both `from_pretrained` take.

        Args:
            save_directory: new or empty.

        Raises:
            ValueError: the weights are offloaded layer by layer.
        """
        self.model.save_pretrained(save_directory)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
    ) -> str:
        """Upload the model to the Hugging Face hub, with a model card, as `pics push` does.

        Args:
            repo_id: `owner/name`; made where there is none.
            commit_message: None: `Upload model`.
            private: whether a new repository is private.
            token: None: the one that the user logged in with (`hf auth login`).
            revision: branch, made where there is none; None: `main`.

        Returns:
            Address of the commit.

        Raises:
            PicsError: see `upload.upload`.
        """
        with tempfile.TemporaryDirectory(prefix="pics-model-") as folder:
            self.save_pretrained(folder)
            plan = plan_push(Path(folder), repo_id)
            return upload(plan, private=bool(private), revision=revision, message=commit_message, token=token)

    @property
    def device(self) -> torch.device:
        """Where the networks run."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision they compute in."""
        return self.model.dtype

    def to(self, *args: str | torch.device | torch.dtype) -> PicsPipeline:
        """Move all parts to a device, convert them to a dtype, or both; returns the pipeline.

        Raises:
            ValueError: parts are kept off the device by one of the `enable_…_cpu_offload` methods.
        """
        if self.model.memory != "resident":
            raise ValueError("parts of this pipeline are offloaded to the CPU: load it anew to move it as a whole")
        device = self.device
        for value in args:
            if isinstance(value, torch.dtype):
                for part in self.model.parts.values():
                    part.to(value)
            else:
                device = torch.device(value)
        self._place(device, "resident")
        return self

    def enable_model_cpu_offload(self, device: str | torch.device = "cuda") -> None:
        """Keep one part at a time on the device: the encoder, then UNet and ControlNet, then the VAE.

        It is what `pics infer` calls `--memory sequential`.
        """
        self._place(torch.device(device), "sequential")

    def enable_sequential_cpu_offload(self, device: str | torch.device = "cuda") -> None:
        """Keep each layer on the device only while it computes: least memory, slowest.

        It is what `pics infer` calls `--memory offload`.
        """
        self._place(torch.device(device), "offload")

    def _place(self, device: torch.device, memory: str) -> None:
        model = self.model
        if memory != "resident":
            if model.memory != "resident":
                raise ValueError(f"parts of this pipeline are offloaded already ({model.memory}): load it anew")
            for part in model.parts.values():
                part.to("cpu")
        parts: dict[str, Any] = {**model.parts, "scheduler": model.scheduler}
        self.model = PicsModel(model.config, **parts, device=device, memory=memory)

    def __call__(
        self,
        image: ImageInput,
        objects: Sequence[ImageInput],
        boxes: Sequence[Sequence[int]] | None = None,
        *,
        masks: Sequence[ImageInput] | None = None,
        region: RegionRule = "box",
        keep: ImageInput | None = None,
        order: Order | Sequence[int] | None = None,
        num_images: int = 1,
        steps: int | None = None,
        guidance: float | None = None,
        scheduler: str | None = None,
        mode: Mode = "parallel",
        feather: int | None = None,
        crop: CropKind = "auto",
        fit: Fit = "contain",
        cutout: Cutout = "auto",
        light: Light = "auto",
        shadow_room: float = 0.0,
        match: MatchKind = "auto",
        seed: int | None = None,
        generator: torch.Generator | None = None,
        name: str | None = None,
        layers: bool = False,
        callback_on_step_end: StepCallback | None = None,
        output_type: str = "pil",
    ) -> PicsPipelineOutput:
        """Composite objects into a picture, all of them in one pass; outside their boxes no pixel changes.

        With the same seed and name the pictures are those that `pics infer` writes, to the bit.

        Args:
            image: the background: a PIL image, uint8 [H, W, 3] or [H, W], or the path of a file.
            objects: K pictures, each of one object with alpha or on a plain background, likewise; arrays also uint8
                [h, w, 4].
            boxes: where each object goes, (x0, y0, x1, y1) in pixels of the background, half-open.
            masks: instead of boxes: K masks of the background's size, whose set pixels the boxes enclose; likewise,
                arrays also bool [H, W].
            region: what of a mask: `box`: the box of all set pixels; `component`: of the largest of its connected
                parts. Masks with stray parts, nearly nothing in their box, or a box that is the whole picture are told.
            keep: mask of the background's size of things that stay in front of what is put in, and of its shadows:
                no pixel under it changes; likewise. None: there are none.
            order: object numbers from back to front, or `auto`: the lower box is nearer. Where regions overlap, the
                nearer object then weighs more. None: the network decides.
            num_images: pictures to make, each from noise of its own.
            steps, guidance, scheduler: of the denoising (`ddim`, `dpm++`, `unipc`, `euler`, `heun`); None: the model's.
            mode: `parallel`: all objects in one pass; `sequential`: one after the other, back to front.
            feather: width of the blend at the border of the boxes, in pixels; None: see `paste.feather_width`.
            crop: `auto`: the network sees a square around the objects; `full`: the whole picture.
            fit: how an object fits a box of another aspect: `contain`: wholly inside it; `cover`: all over it, cut off
                outside; `stretch`: distorted to it.
            cutout: how references without alpha are cut out. `auto`: from a plain background by its colour, from a
                photograph by Segment Anything where its weights lie in `checkpoints/`, else by GrabCut; `grabcut`,
                `sam`: all of them so; `none`: not at all. For models with hint `background`, which paste nothing,
                `auto` is `none`.
            match: `auto`: objects get the blur and grain of the background around them; `none`: they stay as they are.
            light: of models with shadows: `auto`: the lamp that the model finds in the picture, where it is sure of
                one; `none`: contact shadows only; or (azimuth, elevation, angular radius) in degrees: 0 from behind the
                camera, 90 from the picture's right. Further images take lamps from other sides.
            shadow_room: of such models: by which share of their sides boxes are wider for shadows alone.
            seed: of the noise, and of further images' lamps; None: 0.
            generator: draws the noise, in place of seed and name.
            name: the noise is a function of the seed and this name. None: the name of the image's file without suffix,
                as `pics infer --background` has it; empty where no path is given. `pics infer --input` takes the name
                of the sample's folder.
            layers: take each picture apart into layers: `layers` of the result.
            callback_on_step_end: called as `callback(pipe, step, timestep, callback_kwargs)` after each denoising step,
                counted from 0 (in sequential mode for each object); `callback_kwargs` holds `latents`. What it returns
                is not used; an exception stops the call.
            output_type: `pil` or `np`.

        Raises:
            ValueError: arguments that do not fit together, or a picture that cannot be composited or cut out.
            PicsError: an option of an unknown value; `sam` without weights.
        """
        if output_type not in ("pil", "np"):
            raise ValueError(f"output_type: got {output_type!r}, expected 'pil' or 'np'")
        if num_images < 1:
            raise ValueError(f"num_images: got {num_images}, expected at least 1")
        if generator is not None and seed is not None:
            raise ValueError("seed and generator exclude each other")
        cutter = ReferenceCutter(cutout, self.model.config.hint, self.device)
        try:
            sample, cut = read_inputs(image, objects, boxes, masks, region, order, name, num_images, cutter, keep)
            options = CompositeOptions(
                seed=seed or 0,
                steps=steps,
                guidance=guidance,
                scheduler=scheduler,
                crop=crop,
                feather=feather,
                light=light,
                shadow_room=shadow_room,
                mode=mode,
                fit=fit,
                match=match,
            ).resolve(self.model.config)
            results = list(
                composite(
                    self.model,
                    [sample],
                    options,
                    layers=layers,
                    noise=None if generator is None else self._noise_from(generator),
                    callback_on_step_end=None if callback_on_step_end is None else self._on_step(callback_on_step_end),
                )
            )
        except BadSample as error:
            raise ValueError(error.detail) from None
        for note in [*sample.notes, *(reference.note for reference in cut if reference.note is not None)]:
            logger.warning(note)
        first = results[0]
        metadata = {
            "name": sample.name,
            **({"adapters": list(self.adapters)} if self.adapters else {}),
            "seed": None if generator is not None else options.seed,
            "settings": settings_record(options, sample.order, self.dtype, cutter.description, region),
            "size": [sample.background.shape[1], sample.background.shape[0]],
            "boxes": [list(box) for box in sample.boxes],
            "window": list(first.window),
            "feather": first.feather,
            "order": first.order,
            "light": None if first.lighting is None else first.lighting.to_json(),
            "unguided": first.unguided,
            "cutouts": [reference.method for reference in cut],
            "shares": [round(share, 3) for share in first.shares],
            **({} if sample.keep is None else {"kept": int(np.count_nonzero(sample.keep))}),
        }
        if output_type == "np":
            images: Any = np.stack([result.image for result in results])
        else:
            images = [to_pillow(result.stored) for result in results]
        changed = sum(result.changed_outside for result in results)
        return PicsPipelineOutput(images, changed, metadata, results, self._model_record())

    def _model_record(self) -> dict[str, Any]:
        if self._origin is None:
            return {"name": str(self.config.get("_name_or_path") or "a PicsPipeline made of parts")}
        return model_record(*self._origin)

    def _noise_from(self, generator: torch.Generator) -> NoiseFunction:
        config = self.model.config
        shape = (config.latent_channels, config.latent_size, config.latent_size)
        return lambda *_: torch.randn(shape, generator=generator, device=generator.device).cpu()

    def _on_step(self, callback: StepCallback) -> Callable[[DenoisingStep], None]:
        return lambda step: callback(self, step.number - 1, step.timestep, {"latents": step.latents})
