"""What the base alone does, and what is said where an extra's packages are missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest
import torch
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

import pics_cli
from helpers.infer_command import typed
from pics_cli.core.datasets.readers import open_reader
from pics_cli.core.datasets.readers.base import DatasetSplit
from pics_cli.core.inference import cutout
from pics_cli.core.recipes.base import find_recipe
from pics_cli.core.recipes.dataset import load_dataset
from pics_cli.core.recipes.training_sections import LoraSettings
from pics_cli.core.runtime.extras import PACKAGES, MissingPackage
from pics_cli.core.runtime.open_engine import open_engine
from pics_cli.core.runtime.storage import location
from pics_cli.core.training.adapters import add_adapters
from pics_cli.core.training.tracking import tracker_names
from pics_cli.errors import PicsError

ROOT = Path(__file__).parents[3]
# Where a package is not imported by the name that it is installed by.
# webdataset reads our shards in a pipeline of a user's own; the package itself does without.
_IMPORTED = {"scikit-image": {"skimage"}, "ray": {"ray", "grpc"}, "webdataset": set[str]()}

_BASE_ALONE = """
import sys
from pathlib import Path

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in BLOCKED else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
from pics_cli.cli import main

def run(code, *words):
    sys.argv = ["pics", *words]
    try:
        main()
    except SystemExit as stop:
        assert (stop.code or 0) == code, (words, stop.code)

run(0, "build-shards", "synth", "--out", "made", "--limit", "3", "--workers", "1", "--set", "source.size=96",
    "--contact-sheet", "sheet.png")
run(0, "build-shards", "--check", "made", "--workers", "1")
run(0, "build-shards", "--convert", "made", "--out", "compact", "--layout", "compact", "--workers", "1")
run(0, "build-shards", "synth", "--inspect", "--dry-run", "--limit", "2", "--workers", "1", "--set", "source.size=96")
run(0, "env")
run(0, "recipes")
run(0, "cache", "ls")
run(2, "explain", "sheet.png")
run(2, "merge-layers", "made")
run(2, "infer", "--input", "sample")
from pics_cli import open_shards
assert len(list(open_shards("compact"))) == 3
try:
    from pics_cli import PicsPipeline
except ImportError as error:
    print(error)
"""


def test_the_list_is_that_of_the_package() -> None:
    listed = ProjectMetadata(str(ROOT), PluginManager()).core.optional_dependencies
    for extra, names in PACKAGES.items():
        required = [text.partition(">")[0].partition("[")[0] for text in listed[extra]]
        assert {*names} == set().union(*(_IMPORTED.get(name, {name.replace("-", "_")}) for name in required)), extra
    assert {*listed["all"]} == {requirement for extra in PACKAGES for requirement in listed[extra]}


def test_the_base_alone_works_with_data(tmp_path: Path) -> None:
    """In a process that can import no package of any extra, nor what they bring, such as SciPy."""
    blocked = {name for names in PACKAGES.values() for name in names} | {"scipy", "pandas", "requests"}
    code = f"BLOCKED = {blocked!r}\n{_BASE_ALONE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "sheet.png: carries no record of pics" in done.stderr
    assert "error: pics infer needs torch, diffusers, " in done.stderr
    assert done.stdout.splitlines()[-1].startswith("PicsPipeline needs torch, diffusers")
    assert done.stdout.endswith(": pip install 'pics-cli[infer]'\n")


@pytest.mark.parametrize(
    ("words", "missing", "extra"),
    [
        (["infer", "--input", "sample"], "torch", "infer"),
        (["convert", "a.ckpt"], "diffusers", "infer"),
        (["new-model", "a"], "transformers", "infer"),
        (["push", "a", "b/c"], "huggingface_hub", "infer"),
        (["eval", "--recipe", "synth_bench"], "pyarrow", "eval"),
        (["train", "--recipe", "tiny"], "tensorboard", "train"),
        (["annotate", "objects365"], "segment_anything", "annotate"),
        (["check-sam"], "segment_anything", "annotate"),
        (["ui"], "uvicorn", "ui"),
    ],
)
def test_commands_name_their_extra(words: list[str], missing: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    done = typed(*words)
    text = f"error: pics {words[0]} needs {missing}\n\nhint: pip install 'pics-cli[{extra}]'\n"
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", text)


def _open_ray() -> None:
    with open_engine("ray", 1):
        pass


def _rendered() -> None:
    open_reader(DatasetSplit(load_dataset(find_recipe("rendered", "dataset")), "train", None))


def _cut_out() -> None:
    with mock.patch.object(cutout, "find_local_model", return_value="vit_b"):
        cutout.ReferenceCutter("auto", "overlay", torch.device("cpu"))


@pytest.mark.parametrize(
    ("call", "missing", "text", "extra"),
    [
        (lambda: location("s3://b/x"), "s3fs", "s3:// needs s3fs", "s3"),
        (lambda: location("gcs://b/x"), "gcsfs", "gcs:// needs gcsfs", "gs"),
        (lambda: location("az://b/x"), "adlfs", "az:// needs adlfs", "az"),
        (lambda: location("ssh://h/x"), "paramiko", "ssh:// needs paramiko", "sftp"),
        (_open_ray, "ray", "--engine ray needs ray", "ray"),
        (lambda: tracker_names(wandb=True), "wandb", "log.wandb needs wandb", "wandb"),
        (lambda: add_adapters(cast(Any, None), LoraSettings(), 0), "peft", "train: lora needs peft", "lora"),
        (_rendered, "mitsuba", "format rendered needs mitsuba", "render"),
        (_cut_out, "segment_anything", "--cutout auto with Segment Anything needs segment_anything", "annotate"),
        (lambda: pics_cli.Projector, "torch", "Projector needs torch", "infer"),
    ],
)
def test_what_else_names_its_extra(
    call: Callable[[], Any], missing: str, text: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingPackage) as caught:
        call()
    assert isinstance(caught.value, PicsError)
    assert (caught.value.message, caught.value.hint) == (text, f"pip install 'pics-cli[{extra}]'")
