"""Batches of training samples, read ahead by worker processes; their order does not depend on the number of workers."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import count
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from pics_cli.core.loading.dataset import TrainingDataset, WorkerError
from pics_cli.core.runtime.engines import exit_with_parent, follow_logging, log_level
from pics_cli.core.runtime.signals import ignore_terminal_signals
from pics_cli.errors import FAILED, PicsError

Batch = dict[str, Any]

# Seconds that the end of a worker may take after its connection.
_EXIT_TIMEOUT = 5.0


def batch_positions(start: int, rank: int, size: int, batch: int) -> Iterator[list[int]]:
    """Positions of each batch of one of `size` processes, from `start` on, without end.

    All processes' n-th batches together are the n-th `batch * size` positions, so that a step of any number of batches
    takes the next ones without a gap.
    """
    for number in count():
        first = start + (number * size + rank) * batch
        yield list(range(first, first + batch))


def collate(samples: Sequence[Mapping[str, Any]] | WorkerError) -> Batch | WorkerError:
    """Samples to a batch: arrays stacked to tensors, `keys` and `bad` as lists.

    Samples with fewer objects get empty boxes, 0 0 0 0, and black references.
    """
    if isinstance(samples, WorkerError):
        return samples
    objects = max(len(sample["boxes"]) for sample in samples)
    batch: Batch = {}
    for name, first in samples[0].items():
        if not isinstance(first, np.ndarray):
            continue
        shape = (objects, *first.shape[1:]) if name in ("boxes", "references") else first.shape
        tensor = torch.empty((len(samples), *shape), dtype=torch.from_numpy(first[...]).dtype)
        if torch.utils.data.get_worker_info() is not None:
            tensor.share_memory_()  # with the main process, so that it is not copied once more
        rows = tensor.numpy()
        for i, sample in enumerate(samples):
            array = sample[name]
            if array.shape == shape:
                rows[i] = array
            else:
                rows[i, : len(array)] = array
                rows[i, len(array) :] = 0
        batch[name] = tensor
    batch["keys"] = [sample["key"] for sample in samples if "key" in sample]
    batch["bad"] = [bad for sample in samples for bad in sample.get("bad", ())]
    return batch


class TrainingDataLoader(DataLoader[Batch]):
    """Batches in the given order; errors of the workers are raised as they are."""

    def check_worker_number_rationality(self) -> None:
        """PyTorch warns, twice, where there are more workers than cores; a recipe is for machines of any size."""

    def __iter__(self) -> Generator[Batch, None, None]:  # type: ignore[override]
        """Close the generator to end the workers.

        Raises:
            PicsError: of a worker, or because one died.
        """
        handler = signal.getsignal(signal.SIGCHLD)
        batches = super().__iter__()
        if self.num_workers and threading.current_thread() is threading.main_thread():
            # PyTorch's handler would raise in whatever line the main thread is; the broken connection is noticed below.
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
        failure = None
        try:
            for batch in batches:
                if isinstance(batch, WorkerError):
                    raise batch.error
                yield batch
        except (RuntimeError, ConnectionError, EOFError) as error:
            failure = explain_worker_exit(error, getattr(batches, "_workers", []))
            if failure is None:
                raise
        finally:
            del batches
        if failure is not None:  # raised here, so that nothing of the error keeps the other workers
            raise failure


def build_dataloader(
    dataset: TrainingDataset, positions: Iterator[list[int]], workers: int, pin: bool = False
) -> TrainingDataLoader:
    """A loader of batches, which are read ahead by workers, two for each.

    Args:
        dataset: the samples.
        positions: of each batch.
        workers: processes; 0: this one.
        pin: into page-locked memory, from which a GPU copies by itself.
    """
    return TrainingDataLoader(
        dataset,
        batch_sampler=positions,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=functools.partial(init_worker, log_level()),
        generator=torch.Generator(),  # of workers' seeds, which nothing uses: torch's own generator stays as it is
    )


def init_worker(level: int, _: int) -> None:
    """Leave signals to the main process, which still wants samples for the step it is in; one thread for OpenCV.

    Args:
        level: of what it tells the user; see `follow_logging`.
    """
    follow_logging(level)
    ignore_terminal_signals()
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_sigterm_of_parent, daemon=True).start()
    exit_with_parent()
    cv2.setNumThreads(0)


def explain_worker_exit(error: Exception, workers: Sequence[BaseProcess] = ()) -> PicsError | None:
    """The error for the user where a worker died, or could not hand over what it read; None for another error."""
    if workers and not isinstance(error, RuntimeError):  # its connection broke, but it may not have exited yet
        ended = wait([worker.sentinel for worker in workers], _EXIT_TIMEOUT)
        for worker in workers:
            if worker.sentinel in ended:
                worker.join(_EXIT_TIMEOUT)
    codes = [worker.exitcode for worker in workers]
    fewer = "run the same command again with fewer --set data.workers: it resumes"
    if "open files" in str(error):
        return PicsError("too many open files", f"allow more (ulimit -n 65536), or {fewer}", FAILED)
    if -signal.SIGBUS in codes:
        hint = f"give the container more (docker run --shm-size=8g), or {fewer}"
        return PicsError("a process that reads samples ran out of shared memory", hint, FAILED)
    if any(codes) or "DataLoader worker (pid" in str(error):
        return PicsError("a process that reads samples died; often the machine ran out of memory", fewer, FAILED)
    return None


def _exit_on_sigterm_of_parent() -> None:
    """Schedulers send SIGTERM to all processes of a job: only that of the main process ends a worker."""
    parent = multiprocessing.parent_process()  # not the process that forked this one, where a server does that
    while parent is not None and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)
