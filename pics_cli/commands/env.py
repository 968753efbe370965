"""`pics env`: what a report of a fault should say of the machine, and what is missing on it."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pics_cli import __version__, console
from pics_cli.commands.cache import size_text

if TYPE_CHECKING:
    import torch

    from pics_cli.commands.results import Device, Environment

_LIBRARIES = (
    "torch", "diffusers", "transformers", "accelerate", "safetensors", "huggingface-hub", "peft", "segment-anything",
    "numpy", "opencv-python-headless", "pillow", "pycocotools", "pydantic", "fsspec", "typer", "ray",
)  # fmt: skip


def env() -> None:
    """Show versions, devices and the precision that is chosen on them, caches, free disk, and extras that are missing.

    Nothing is downloaded or written, and no other program is needed by pics.
    """
    found = _environment()
    console.result(found)
    console.table("environment", _rows(found), only=True)
    if found.missing_extras:
        console.show(f"\nfor all of them: pip install 'pics-cli[{','.join(found.missing_extras)}]'", only=True)


def _environment() -> Environment:
    import platform

    from pics_cli.commands.results import Environment
    from pics_cli.core.runtime.caches import folder_size, hub_cache
    from pics_cli.core.runtime.engines import available_cores
    from pics_cli.core.runtime.extras import PACKAGES
    from pics_cli.core.runtime.files import cache_folder
    from pics_cli.core.runtime.requirements import existing_folder

    has_torch = importlib.util.find_spec("torch") is not None
    cuda, devices = _torch_devices() if has_torch else (None, [])
    cache, hub = cache_folder(), hub_cache()
    lacking = {extra: [name for name in names if importlib.util.find_spec(name) is None] for extra, names in
               PACKAGES.items()}  # fmt: skip
    return Environment(
        pics=__version__,
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        libraries={name: _version(name) for name in _LIBRARIES},
        cuda=cuda,
        cores=available_cores(),
        memory=_main_memory(),
        devices=devices,
        cache=cache,
        cache_bytes=folder_size(cache),
        hub_cache=hub,
        hub_cache_bytes=0 if hub is None else folder_size(hub),
        free_disk=shutil.disk_usage(Path.cwd()).free,
        free_disk_cache=shutil.disk_usage(existing_folder(cache)).free,
        missing_extras={extra: names for extra, names in lacking.items() if names},
    )


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # takes a tenth of what `pics --help` takes

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _main_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # as on Windows
        return None


def _torch_devices() -> tuple[str | None, list[Device]]:
    """The CUDA version of torch, and its devices, that of `--device auto` first."""
    import torch

    devices = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    devices += [torch.device("mps")] if torch.backends.mps.is_available() else []
    return torch.version.cuda, [_device(device) for device in (*devices, torch.device("cpu"))]


def _device(device: torch.device) -> Device:
    import platform

    import torch

    from pics_cli.commands.results import Device
    from pics_cli.core.model.devices import choose_dtype

    model, memory = platform.processor() or platform.machine(), _main_memory()
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        model, memory = properties.name, properties.total_memory
    words = [str(choose_dtype("auto", device, full_size)).removeprefix("torch.") for full_size in (False, True)]
    return Device(name=str(device), model=model, memory=memory, precision=words[0], precision_full_size=words[1])


def _rows(found: Environment) -> list[tuple[str, str]]:
    memory = "" if found.memory is None else f", {size_text(found.memory)} of memory"
    rows = [
        ("pics", found.pics),
        ("Python", f"{found.python} on {found.platform}"),
        ("machine", f"{found.cores} cores{memory}"),
    ]
    for name, number in found.libraries.items():
        cuda = "" if name != "torch" or number is None else f", CUDA {found.cuda}" if found.cuda else ", without CUDA"
        rows.append((name, "not installed" if number is None else f"{number}{cuda}"))
    for device in found.devices:
        size = "" if device.memory is None else f", {size_text(device.memory)}"
        full = "" if device.precision_full_size == device.precision else f", full-size {device.precision_full_size}"
        rows.append((f"--device {device.name}", f"{device.model}{size}: {device.precision}{full}"))
    rows.append(("cache", f"{found.cache}: {size_text(found.cache_bytes)}, {size_text(found.free_disk_cache)} free"))
    if found.hub_cache is not None:
        rows.append(("hub's cache", f"{found.hub_cache}: {size_text(found.hub_cache_bytes)}"))
    rows.append(("here", f"{size_text(found.free_disk)} free"))
    rows += [(f"extra [{extra}] lacks", ", ".join(names)) for extra, names in found.missing_extras.items()]
    return rows
