"""A model that is loaded once and composites one job after the other, each as `pics infer` would."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch

from pics_cli.core.inference.cutout import Cutout, CutReference, ReferenceCutter
from pics_cli.core.inference.inputs import SampleFiles
from pics_cli.core.inference.plan import InferenceJob, Task
from pics_cli.core.inference.run import cheaper_flags, choose_model, common_record, load_model
from pics_cli.core.inference.sample import Bytes
from pics_cli.core.inference.worker import InferenceProgress, InferenceReport, Worker
from pics_cli.core.model.adapters import warn_of_other_base
from pics_cli.core.model.config import HintKind, ModelConfig
from pics_cli.core.model.devices import choose_device, explain_out_of_memory
from pics_cli.core.model.find_model import find_model
from pics_cli.core.runtime.files import make_folder

# Bytes of cut-outs that are kept.
_KEPT = 200_000_000


class RememberingCutter(ReferenceCutter):
    """A `ReferenceCutter` that cuts out the same reference only once, and one at a time."""

    def __init__(self, cutout: Cutout, hint: HintKind, device: torch.device) -> None:
        super().__init__(cutout, hint, device)
        self._lock = threading.Lock()
        self._kept = OrderedDict[tuple[str, bytes], CutReference]()

    def __call__(self, reference: Bytes, name: str) -> CutReference:
        """As that of `ReferenceCutter`."""
        with self._lock:
            key = f"{name} {reference.shape}", hashlib.sha256(np.ascontiguousarray(reference).data).digest()
            if key not in self._kept:
                self._kept[key] = super().__call__(reference, name)
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(cut.picture.nbytes for cut in self._kept.values()) > _KEPT:
                self._kept.popitem(last=False)
            return self._kept[key]


class WarmModel:
    """A loaded model.

    Args:
        job: its model, adapters, device, dtype and memory are those of every job; samples and output are not looked at.

    Raises:
        PicsError: as `pics infer` raises it for these.
    """

    def __init__(self, job: InferenceJob) -> None:
        self.job = job
        folder = find_model(job.model)
        self._chosen = choose_model(job, choose_device(job.device), folder)
        warn_of_other_base(self._chosen.adapters, job.model, self._chosen.fingerprint)
        self._cutters = dict[Cutout, RememberingCutter]()
        with self._explained(job):
            self._model = load_model(self._chosen, job.memory)

    @property
    def config(self) -> ModelConfig:
        """Of the model."""
        return self._chosen.config

    def cutter(self, cutout: Cutout) -> RememberingCutter:
        """Cuts out references for this model.

        Raises:
            PicsError: `sam` without weights.
        """
        if cutout not in self._cutters:
            self._cutters[cutout] = RememberingCutter(cutout, self.config.hint, self._chosen.device)
        return self._cutters[cutout]

    def composite(
        self,
        job: InferenceJob,
        samples: Sequence[SampleFiles],
        progress: InferenceProgress,
        callback_on_step_end: Callable[[], None],
    ) -> InferenceReport:
        """Composite samples into a new folder: pictures with their records, and the sheets asked for.

        Args:
            job: with the output, and all that decides the pixels.
            samples: of the job.
            progress: updated as the work goes on.
            callback_on_step_end: called after each denoising step; what it raises stops the work.

        Returns:
            How it went; samples that cannot be composited are its failures.

        Raises:
            PicsError: out of memory, disk full, an option that this model does not have.
        """
        options = job.options.resolve(self.config)
        make_folder(job.output / "composed")
        cutter = self.cutter(job.cutout)
        common = common_record(job, options, self._chosen, cutter.description)
        tasks = [Task(files, tuple(range(job.num)), None) for files in samples]
        worker = Worker(job, options, common, cutter, tasks, progress)
        with self._explained(job):
            worker.composite_all(self._model, callback_on_step_end)
        return worker.report

    def _explained(self, job: InferenceJob) -> contextlib.AbstractContextManager[None]:
        return explain_out_of_memory(self._chosen.device, lambda: cheaper_flags(job, self._chosen.device))
