"""The training run: the loop, looking and saving in between, and how it ends."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from pics_cli.core.model.devices import out_of_memory_told, peak, start_measuring
from pics_cli.core.runtime.bad_samples import stop_at_max_bad
from pics_cli.core.runtime.files import write_json
from pics_cli.core.runtime.ranks import Agreed, Ranks, mark_local_error, report_lost_peer
from pics_cli.core.runtime.signals import defer_signals, process_pending_signals, signal_pending
from pics_cli.core.training import checkpoint
from pics_cli.core.training.export import export
from pics_cli.core.training.job import Job, Progress, Report
from pics_cli.core.training.live import Run
from pics_cli.core.training.objective import Losses
from pics_cli.core.training.optimizer import make_schedule
from pics_cli.core.training.setup import set_up_run
from pics_cli.core.training.tracking import Recorder
from pics_cli.errors import FAILED

MODEL, BAD = "model", "bad.json"
# Steps in a row that the gradient scaler of fp16 may leave out: it halves its factor each time, from 65536.
_OVERFLOWS = 40


def train(job: Job, ranks: Ranks, progress: Progress, note: Callable[[str], None]) -> Report:
    """Train until the recipe's last step, from where an earlier run of the same folder stopped.

    Args:
        job: what to do.
        ranks: the processes that share it; each calls this.
        progress: updated as the work goes on.
        note: told single lines worth reading.

    Raises:
        PicsError: data, model or folder are not what they should be; a loss that is no number; out of memory; disk
            full. What was saved before stays.
        KeyboardInterrupt: after saving, when a signal came.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(report_lost_peer(ranks))
        run = set_up_run(job, ranks, stack, progress, note)
        with mark_local_error(ranks), out_of_memory_told(run.device, lambda: advice(job)), defer_signals():
            report = Loop(run, progress, note).go()
            if any(ranks.all_gather(signal_pending())):  # while the last step was validated or saved
                process_pending_signals()
                raise KeyboardInterrupt

        def write_model() -> None:
            if ranks.rank == 0:
                progress.doing = "writing the model"
                found = checkpoint.read(checkpoint.path_of(job.root, run.state.step))
                export(job.recipe, found, job.root / MODEL, note, replace_it=True)

        ranks.run_on_all(write_model)
    report.model = job.root / MODEL
    return report


def advice(job: Job) -> str:
    """What makes a run cheaper in memory."""
    recipe, ways = job.recipe, []
    if recipe.batch_size > 1:
        half = recipe.batch_size // 2
        doubled = f"--set accumulation={recipe.accumulation * -(-recipe.batch_size // half)}"
        ways.append(f"--batch-size {half} {doubled} (the same steps in smaller parts)")
    if not recipe.gradient_checkpointing:
        ways.append("--set gradient_checkpointing=true")
    if recipe.ema.enabled and recipe.ema.device == "same":
        ways.append("--set ema.device=cpu")
    if recipe.train != "published":
        ways.append("--set train=published")
    return f"try {', then '.join(ways or ['a smaller --set model.image_size'])}; what was saved is kept"


class Loop:
    """Steps of a run, with validation and checkpoints between them."""

    def __init__(self, run: Run, progress: Progress, note: Callable[[str], None]) -> None:
        self.run, self.progress, self.note = run, progress, note
        self.recipe, self.state = run.job.recipe, run.state
        self.report = Report(steps=(self.state.step, 0), bad=list(run.bad))
        self.schedule = make_schedule(self.state.optimizer, self.recipe.optimizer, self.recipe.steps, self.state.step)
        self.recorder: Recorder | None = None
        self.saved = run.saved
        self.looked = run.looked
        self.overflows = 0

    def go(self) -> Report:
        """Train to the end."""
        start_measuring(self.run.device)
        begun = self.state.step
        if self.run.ranks.rank == 0:
            self.recorder = Recorder(
                self.run.job.root, self.run.accelerator, self.recipe.name, begun if self.run.resumed else -1
            )
        try:
            # What training is to improve; or what a signal left undone.
            if self._is_due() and self.looked != self.state.step:
                self._look()
            with self.run.batches() as batches:
                while self.state.step < self.recipe.steps:
                    self._step(batches)
                    self._between()
            if self.saved != self.state.step:
                self._save()
        finally:
            if self.recorder is not None:
                self.recorder.close()
        self.report.steps = (self.state.step, self.state.step - begun)
        self.report.peak = peak(self.run.device)
        return self.report

    def _step(self, batches: Iterator[dict[str, Any]]) -> None:
        """One optimiser step."""
        run, state, parts = self.run, self.state, self.recipe.accumulation
        began, waited, losses, seen = time.perf_counter(), 0.0, [], []
        bad: list[dict[str, str]] = []
        for part in range(parts):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            bad += batch.pop("bad")
            with self._synchronised(part + 1 == parts):
                found: Losses = run.step(batch, run.device)
                run.accelerator.backward(found.weighted.mean() / parts)
            losses.append(found.weighted.detach())
            seen += batch["keys"]
        mine = torch.cat(losses).cpu()
        loss, faults, signalled, met = self._agree(mine, bad)
        if faults:
            self._stop_at_nan(mine, seen)
        norm = float(run.accelerator.clip_grad_norm_(state.trained.values(), self.recipe.optimizer.clip or math.inf))
        if not math.isfinite(norm) and run.accelerator.scaler is None:
            self._stop_at_nan(torch.full((len(seen),), norm), seen)
        self._count_overflows(norm)
        rate = self.schedule.get_last_lr()[0]
        state.optimizer.step()
        self.schedule.step()
        state.optimizer.zero_grad(set_to_none=True)
        if state.average is not None:
            state.average.step()
        state.step += 1
        state.position += run.samples_a_step
        took = time.perf_counter() - began
        self.report.seconds += took
        self.report.samples += run.samples_a_step
        self.progress.passed(loss, run.samples_a_step, waited, took - waited, peak(run.device)[0])
        if met:
            self._count_bad(bad)
        self.report.last |= {"loss": loss}
        if self.recorder is not None and (state.step % self.recipe.log.every == 0 or state.step == self.recipe.steps):
            values = {"loss": loss, "learning_rate": rate, "gradient_norm": norm if math.isfinite(norm) else None,
                      "samples": state.position}  # fmt: skip
            timing = {"samples_per_second": run.samples_a_step / took, "data_seconds": waited,
                      "compute_seconds": took - waited, "memory_bytes": self.progress.memory}  # fmt: skip
            self.recorder.write("train", state.step, {**values, **timing, "bad": len(self.report.bad)})
        if signalled:
            self._stop()

    def _between(self) -> None:
        """What happens after a step now and then."""
        if self._is_due():
            self._look()
        if self.state.step % self.recipe.checkpoints.every == 0:
            self._save()

    def _is_due(self) -> bool:
        """Whether this step is one after which to validate; 0 is."""
        return self.state.step % self.recipe.validation.every == 0 or self.state.step == self.recipe.steps

    def _look(self) -> None:
        """Validate, and draw what the model makes of some samples."""
        self.progress.doing, step = "validating", self.state.step
        values = self.run.validate()
        if values is None:
            self._stop()
            return
        self.report.last |= {f"validation_{name}": value for name, value in values.items()}
        if self.recorder is not None and values:
            self.recorder.write("validation", step, values)
            if (sheet := self.run.draw()) is not None:
                self.recorder.draw(step, sheet)
            self.note(f"step {step:,}: {self.run.verdict(values)}")
        self.run.ranks.all_gather(None)
        self.looked = step
        self.progress.doing = ""

    def _save(self) -> None:
        self.progress.doing = "saving"
        run = self.run

        def write() -> None:
            if run.ranks.rank == 0:
                facts = run.facts(self.looked, self.report.bad)
                self.state.save(checkpoint.path_of(run.job.root, self.state.step), facts)
                checkpoint.tidy(run.job.root, self.recipe.checkpoints)

        run.ranks.run_on_all(write)
        self.saved = self.state.step
        self.progress.doing = ""

    def _synchronised(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """Gradients of several processes are averaged with the last batch of a step only."""
        if last or self.run.ranks.size == 1:
            return contextlib.nullcontext()
        return self.run.accelerator.no_sync(self.run.step.network)

    def _agree(self, losses: torch.Tensor, bad: list[dict[str, str]]) -> tuple[float, bool, bool, bool]:
        """Over all processes: the mean loss; whether one is no number, a signal came, bad samples were met."""
        mean = losses.double().mean()
        words = [mean, ~torch.isfinite(losses).all(), torch.tensor(signal_pending()), torch.tensor(bool(bad))]
        if self.run.ranks.size == 1:
            return float(mean), bool(words[1]), bool(words[2]), bool(words[3])
        sums = torch.stack([word.to(self.run.device, torch.float64) for word in words])
        torch.distributed.all_reduce(sums)
        found = sums.tolist()
        return found[0] / self.run.ranks.size, found[1] != 0, found[2] > 0, found[3] > 0

    def _stop_at_nan(self, losses: torch.Tensor, seen: list[str]) -> None:
        mine = [key for key, loss in zip(seen, losses.tolist(), strict=True) if not math.isfinite(loss)]
        keys = [key for some in self.run.ranks.all_gather(mine) for key in some]
        last = "none yet" if self.saved < 0 else str(checkpoint.path_of(self.run.job.root, self.saved))
        raise Agreed(
            f"step {self.state.step + 1:,}: the loss or its gradient is no number (nan or inf); samples: "
            + ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else ""),
            f"nothing was saved since; last good checkpoint: {last}. Look at these samples; or lower --learning-rate, "
            "or --set precision=fp32",
            FAILED,
        )  # fmt: skip

    def _count_overflows(self, norm: float) -> None:
        """Half-precision gradients overflow now and then, and the scaler leaves such a step out; not for ever."""
        self.overflows = 0 if math.isfinite(norm) else self.overflows + 1
        if self.overflows > _OVERFLOWS:
            raise Agreed(
                f"step {self.state.step + 1:,}: the gradient has overflowed in {self.overflows} steps in a row",
                "take --set precision=bf16 or fp32, or a smaller --learning-rate; what was saved is kept",
                FAILED,
            )

    def _count_bad(self, bad: list[dict[str, str]]) -> None:
        """Note samples that could not be read, each once, and stop where there are too many."""
        for some in self.run.ranks.all_gather(bad):
            for one in some:
                if one not in self.report.bad:
                    self.report.bad.append(one)
        if self.run.ranks.rank == 0:
            write_json(self.run.job.root / BAD, self.report.bad)
        items = [{"item": f"{one['set']} {one['key']}", **one} for one in self.report.bad]
        allowed, total = self.run.job.max_bad, self.run.samples
        self.run.ranks.run_on_all(
            lambda: stop_at_max_bad(allowed, total, items, what="samples", kept="checkpoints are kept")
        )

    def _stop(self) -> None:
        """Save and end: a signal came to one of the processes."""
        if self.saved != self.state.step:
            self._save()
        self.run.ranks.all_gather(None)
        process_pending_signals()
        raise KeyboardInterrupt
