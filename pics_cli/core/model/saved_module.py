"""Networks that are saved and loaded as diffusers saves its models: `config.json`, and weights as safetensors.

diffusers' own `ModelMixin` reads and writes the same files, and many others: to import it takes seconds.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pics_cli.core.runtime.files import load_json, read_file

M = TypeVar("M", bound="SavedModule")

CONFIG_FILE = "config.json"


class PartConfig(dict[str, Any]):
    """What a part was built from: arguments by name, also as attributes."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)


def keep_arguments(init: Any) -> Any:
    """Decorate the `__init__` of a `SavedModule`: its arguments become the network's `config`."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        given = signature.bind(self, *args, **kwargs)
        given.apply_defaults()
        init(self, *args, **kwargs)
        self.config = PartConfig(list(given.arguments.items())[1:])

    return wrapped


class SavedModule(nn.Module):
    """A network with diffusers' methods `from_config`, `from_pretrained` and `save_pretrained`.

    Attributes:
        config: see `keep_arguments`.
        weights_name: of its file of weights.
    """

    weights_name: ClassVar[str] = "diffusion_pytorch_model.safetensors"
    config: PartConfig

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next((value.dtype for value in self.parameters()), torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((value.device for value in self.parameters()), torch.device("cpu"))

    @classmethod
    def arguments(cls) -> set[str]:
        """Names of what it is built from."""
        return set(inspect.signature(cls.__init__).parameters) - {"self"}

    @classmethod
    def from_config(cls: type[M], config: Mapping[str, Any]) -> M:
        """A network with new weights, of arguments by name; names that begin with an underscore are notes.

        Raises:
            ValueError: an argument that it does not take, or a shape that cannot be built.
        """
        given = {name: value for name, value in config.items() if not name.startswith("_")}
        if unknown := sorted(given.keys() - cls.arguments()):
            raise ValueError(f"{CONFIG_FILE}: {cls.__name__} does not take {', '.join(unknown)}")
        return cls(**given)

    @classmethod
    def load_config(cls, folder: str | Path) -> dict[str, Any]:
        """The contents of a folder's `config.json`.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        config = load_json(read_file(Path(folder) / CONFIG_FILE))
        if not isinstance(config, dict):
            raise ValueError(f"{CONFIG_FILE}: expected an object")
        return config

    @classmethod
    def from_pretrained(
        cls: type[M], pretrained_model_name_or_path: str | Path, torch_dtype: torch.dtype | None = None, **_: Any
    ) -> M:
        """Read a folder, in eval mode.

        Args:
            pretrained_model_name_or_path: the folder.
            torch_dtype: of the weights; None: float32.

        Raises:
            OSError, ValueError, SafetensorError: it cannot be read, or weights and configuration differ.
        """
        folder = Path(pretrained_model_name_or_path)
        with torch.device("meta"), _WithoutInit():
            module = cls.from_config(cls.load_config(folder))
        weights: dict[str, Tensor] = {}
        for path in weight_files(folder, cls.weights_name):
            weights.update(load_file(path))
        expected = module.state_dict()
        check_weights(
            missing_keys=expected.keys() - weights.keys(),
            unexpected_keys=weights.keys() - expected.keys(),
            mismatched_keys=[key for key, value in weights.items() if value.shape != expected.get(key, value).shape],
        )
        # Copied: a file's tensors begin anywhere, where kernels sum in another order, and pictures differ by rounding.
        dtype = torch_dtype or torch.float32
        module.load_state_dict({key: weights.pop(key).to(dtype, copy=True) for key in list(weights)}, assign=True)
        return module.eval()

    def save_config(self, folder: str | Path) -> None:
        """Write `config.json`."""
        (Path(folder) / CONFIG_FILE).write_text(self.config_text(), encoding="utf-8", newline="\n")

    def config_text(self) -> str:
        """The contents of `config.json`."""
        return diffusers_json(type(self).__name__, self.config)

    def save_pretrained(self, folder: str | Path, **_: Any) -> None:
        """Write `config.json` and the weights into a folder, which is made."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.save_config(folder)
        weights = {key: value.detach().contiguous() for key, value in self.state_dict().items()}
        save_file(weights, Path(folder) / self.weights_name, {"format": "pt"})


class _WithoutInit(TorchFunctionMode):
    """No initial weights for tensors without memory: torch takes as long for them as for reading the real ones."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.uniform_ or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def diffusers_json(class_name: str, values: Mapping[str, Any]) -> str:
    """Values as diffusers writes a configuration."""
    notes = {"_class_name": class_name, "_diffusers_version": version("diffusers")}
    return json.dumps({**values, **notes}, indent=2, sort_keys=True) + "\n"


def weight_files(folder: Path, name: str) -> list[Path]:
    """The file of weights of that name, or those among which its index says they are divided.

    Raises:
        OSError, ValueError: there is none, or an index that cannot be read or names files elsewhere.
    """
    index = folder / f"{name}.index.json"
    if (folder / name).exists() or not index.exists():
        return [folder / name]
    try:
        names = sorted(set(load_json(read_file(index))["weight_map"].values()))
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{index.name}: no index of weights") from None
    if elsewhere := [file for file in names if not isinstance(file, str) or Path(file).name != file]:
        raise ValueError(f"{index.name}: names {elsewhere[0]}, which is no file of its folder")
    return [folder / file for file in names]


def check_weights(**problems: Collection[str]) -> None:
    """Refuse weights that do not fit: kinds of problems, and the names of the tensors that have them.

    Raises:
        ValueError: with the first of them.
    """
    shown = "; ".join(
        f"{len(keys)} {what.replace('_', ' ')}, such as {', '.join(sorted(map(str, keys))[:3])}"
        for what, keys in problems.items()
        if keys
    )
    if shown:
        raise ValueError(f"weights and configuration differ: {shown}")
