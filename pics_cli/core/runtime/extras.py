"""Packages that come with an extra of this one, and the error where they are missing."""

from __future__ import annotations

from importlib.util import find_spec

from pics_cli.errors import PicsError

# Extra → what is imported of it, beside what the base has; pyproject.toml says the same in the packages' own names.
_MODEL = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface_hub", "jinja2")
PACKAGES: dict[str, tuple[str, ...]] = {
    "infer": _MODEL,
    "train": (*_MODEL, "tensorboard"),
    "eval": (*_MODEL, "matplotlib", "pyarrow", "torch_fidelity", "torchmetrics", "torchvision"),
    "annotate": ("torch", "torchvision", "segment_anything", "safetensors", "huggingface_hub"),
    "render": ("mitsuba", "pyoidn", "trimesh", "skimage"),
    "ui": (*_MODEL, "starlette", "uvicorn"),
    "ray": ("ray", "grpc"),
    "lora": (*_MODEL, "tensorboard", "peft"),
    "wandb": (*_MODEL, "tensorboard", "wandb"),
    "s3": ("s3fs",),
    "gs": ("gcsfs",),
    "az": ("adlfs",),
    "sftp": ("paramiko",),
}


class MissingPackage(PicsError, ImportError):
    """Packages of an extra are not installed; in Python an `ImportError`, too."""

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}"


def require(extra: str, what: str) -> None:
    """Refuse something that needs packages which are not installed; none of them is imported.

    Args:
        extra: a key of `PACKAGES`.
        what: needs them, as the user calls it, such as `pics infer`.

    Raises:
        MissingPackage: naming all that are missing.
    """
    missing = [name for name in PACKAGES[extra] if find_spec(name) is None]
    if missing:
        listed = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
        raise MissingPackage(f"{what} needs {listed}", f"pip install 'pics-cli[{extra}]'")
