"""A training run from start to end: folder, data, model, optimizer, resuming, training, export."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DistributedType

from pics_cli.core.model.devices import choose_device, choose_dtype, explain_out_of_memory
from pics_cli.core.recipes.training import TrainingRecipe, training_identity
from pics_cli.core.runtime.outputs import refuse_overwriting
from pics_cli.core.runtime.ranks import Ranks, mark_local_error, report_lost_peer
from pics_cli.core.runtime.resumable import ResumableFolder, identity_differences
from pics_cli.core.runtime.signals import defer_signals, process_pending_signals, signal_pending
from pics_cli.core.training import checkpoint
from pics_cli.core.training.adapters import add_adapters
from pics_cli.core.training.checkpoint import Checkpoint
from pics_cli.core.training.data import DataSplit, find_data
from pics_cli.core.training.ema import ModelEma
from pics_cli.core.training.export import export
from pics_cli.core.training.initial_model import InitialModel, find_named_base, load_initial_model
from pics_cli.core.training.networks import TrainingNetworks, on_device, prepare_for_training
from pics_cli.core.training.objective import DiffusionLoss
from pics_cli.core.training.optimizer import make_optimizer
from pics_cli.core.training.progress import TrainingProgress, TrainingReport
from pics_cli.core.training.state import TrainingState
from pics_cli.core.training.tracking import tracker_names
from pics_cli.core.training.trainer import Trainer
from pics_cli.errors import PicsError

logger = logging.getLogger(__name__)
MODEL, ADAPTER = "model", "adapter"
_SUPPORTED = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)


@dataclass(frozen=True)
class TrainingJob:
    """What a training run is asked to do.

    Attributes:
        recipe: data, model and optimisation.
        root: folder of logs, checkpoints and the trained model or adapter.
        resume: `auto`: from the newest undamaged checkpoint in it, if any; `none`: from the start; else the folder of
            a checkpoint.
        allow_missing: train on those sets that have shards.
        allow_pipe: run the commands of `pipe:` addresses.
        max_bad: unreadable samples that are allowed; None: 1 % of all, at least 100.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
    """

    recipe: TrainingRecipe
    root: Path
    resume: str = "auto"
    allow_missing: bool = False
    allow_pipe: bool = False
    max_bad: int | None = None
    device: str = "auto"


def train(job: TrainingJob, ranks: Ranks, progress: TrainingProgress) -> TrainingReport:
    """Train until the recipe's last step, from where an earlier run of the same folder stopped.

    Raises:
        PicsError: data, model or folder are not what they should be; a loss that is nan or inf; out of memory; disk
            full. What was saved before stays.
        KeyboardInterrupt: after saving, when a signal came.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(report_lost_peer(ranks))
        trainer = set_up(job, ranks, stack, progress)
        with (
            mark_local_error(ranks),
            explain_out_of_memory(trainer.device, lambda: memory_advice(job.recipe)),
            defer_signals(),
        ):
            report = trainer.train()
            if any(ranks.all_gather(signal_pending())):  # while the last step was validated or saved
                process_pending_signals()
                raise KeyboardInterrupt

        out = job.root / (ADAPTER if job.recipe.train == "lora" else MODEL)

        def write_model() -> None:
            if ranks.rank == 0:
                progress.activity = "writing the model"
                saved = checkpoint.read(checkpoint.path_of(job.root, report.step))
                export(job.recipe, saved, out, overwrite=True)

        ranks.run_on_all(write_model)
    report.model = out
    return report


def memory_advice(recipe: TrainingRecipe) -> str:
    """Advice on options with which a recipe takes less memory."""
    options = []
    if recipe.batch_size > 1:
        half = recipe.batch_size // 2
        accumulation = recipe.accumulation * -(-recipe.batch_size // half)
        options.append(f"--batch-size {half} --set accumulation={accumulation} (the same steps in smaller parts)")
    if not recipe.gradient_checkpointing:
        options.append("--set gradient_checkpointing=true")
    if recipe.ema.enabled and recipe.ema.device == "same":
        options.append("--set ema.device=cpu")
    if recipe.train not in ("published", "lora"):
        options.append("--set train=published")
    return f"try {', then '.join(options or ['a smaller --set model.image_size'])}; what was saved is kept"


def set_up(job: TrainingJob, ranks: Ranks, stack: contextlib.ExitStack, progress: TrainingProgress) -> Trainer:
    """A trainer in the state that the run starts or resumes from; `stack` gets what must be undone at the end.

    Raises:
        PicsError: see `train`.
    """
    recipe, is_first = job.recipe, ranks.rank == 0
    device = torch.device(ranks.device) if ranks.device else choose_device(job.device)
    trackers = tracker_names(recipe.log.wandb)
    progress.total = recipe.steps
    progress.activity = "looking at the data"
    data = ranks.run_on_all(
        lambda: find_data(recipe, allow_missing=job.allow_missing, allow_pipe=job.allow_pipe) if is_first else None
    )[0]
    assert data is not None
    for name, words in data.summary():
        logger.info("%s: %s", name, words)
    ranks.run_on_all(lambda: _check_outputs(job, data) if is_first else None)
    ranks.run_on_all(lambda: _claim(job.root, stack) if is_first else None)
    progress.activity = "loading the model"
    if (base := recipe.model.base) is not None:
        ranks.run_first_alone(lambda: find_named_base(base))  # should it have to be converted
    initial = ranks.run_local(lambda: load_initial_model(recipe))
    dtype = choose_dtype(recipe.precision, device, initial.model.config.full_size)
    accelerator = _make_accelerator(device, dtype, trackers, job.root)
    state, loss = _prepare_model(recipe, initial, accelerator, device, dtype)
    trainer = Trainer(recipe, job.root, ranks, accelerator, state, loss, data, progress, job.max_bad)
    torch.manual_seed(recipe.seed)  # no step draws from it, but a library might, and checkpoints keep its state
    saved = ranks.run_on_all(lambda: _find_checkpoint(job, trainer) if is_first else None)[0]
    if saved is not None:
        ranks.run_local(lambda: trainer.resume(saved))
        logger.info("resuming from step %s: %s", f"{saved.step:,}", saved.folder)
        _log_changes(trainer, saved)
    progress.done = progress.done_before = state.step
    progress.activity = ""
    ranks.run_local(trainer.load_validation_samples)
    return trainer


def _check_outputs(job: TrainingJob, data: DataSplit) -> None:
    """Refuse a folder for the run, or in it for its model, that the run reads."""
    model = job.recipe.model
    inputs = [(f"model.{name}", Path(text)) for name, text in (("base", model.base), ("dinov2", model.dinov2)) if text]
    inputs += [("the shards in", folder) for folder in {path.parent for path in data.local_shards}]
    outputs = [("--root-dir", path) for path in (job.root, job.root / MODEL, job.root / ADAPTER)]
    refuse_overwriting(outputs, inputs)


def _claim(root: Path, stack: contextlib.ExitStack) -> None:
    """Create the folder, and be its only writer; a run that does not even begin leaves no empty folder behind."""
    stack.callback(_remove_if_empty, root)
    stack.enter_context(ResumableFolder(root, "--root-dir").hold(checkpoint.FOLDER))
    checkpoint.remove_temporaries(root)


def _remove_if_empty(root: Path) -> None:
    with contextlib.suppress(OSError):
        (root / checkpoint.FOLDER).rmdir()
        root.rmdir()


def _make_accelerator(device: torch.device, dtype: torch.dtype, trackers: list[str], root: Path) -> Accelerator:
    precision = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    if precision == "fp16" and device.type == "cpu":
        raise PicsError("precision: fp16 needs a GPU", "take fp32, or bf16 on a CPU that computes in it")
    # A batch without overlaps gives some experts no gradient.
    data_parallel = DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision,
        log_with=trackers,
        project_dir=str(root),
        kwargs_handlers=[data_parallel],
    )
    if accelerator.distributed_type not in _SUPPORTED:
        raise PicsError(
            f"accelerate launch: {accelerator.distributed_type.value} is not supported, only one process for each GPU",
            "leave its flag out, or make a plain configuration with `accelerate config`",
        )
    return accelerator


def _prepare_model(
    recipe: TrainingRecipe, initial: InitialModel, accelerator: Accelerator, device: torch.device, dtype: torch.dtype
) -> tuple[TrainingState, DiffusionLoss]:
    """The model on its device with optimizer and moving average, and its loss."""
    if recipe.train == "lora":
        add_adapters(initial.model, recipe.lora_settings, recipe.seed)
    model = on_device(initial.model, device)
    trained = prepare_for_training(model, recipe.train, recipe.train_encoder, dtype, recipe.gradient_checkpointing)
    network = accelerator.prepare(TrainingNetworks(model))
    optimizer = accelerator.prepare(make_optimizer(trained, recipe.optimizer))
    ema = ModelEma(trained, recipe.ema) if recipe.ema.enabled else None
    state = TrainingState(model, initial.new_network, initial.base_sha256, trained, optimizer, ema, accelerator)
    return state, DiffusionLoss(model, network, recipe.objective, dtype)


def _find_checkpoint(job: TrainingJob, trainer: Trainer) -> Checkpoint | None:
    """The checkpoint to resume from; None: there is none, or none is wanted.

    Raises:
        PicsError: the folder holds checkpoints of another run.
    """
    existing = list(checkpoint.list_folders(job.root))
    if job.resume == "none":
        if existing:
            raise PicsError(
                f"--resume none: {job.root} holds checkpoints of an earlier run ({existing[-1][1].name}, …)",
                "choose another --root-dir, or remove them",
            )
        return None
    if job.resume != "auto":
        saved = checkpoint.read(Path(job.resume).resolve())
        saved.check_state()
        if later := [folder.name for step, folder in existing if step > saved.step]:
            raise PicsError(
                f"--resume {job.resume}: {job.root} holds later checkpoints ({later[-1]}, …)",
                "choose another --root-dir for what comes now, or remove them",
            )
        for line in _differences(saved, trainer):
            logger.warning("resuming with other values: %s", line)
        return saved
    newest = checkpoint.newest(job.root.resolve())
    if newest is not None:
        newest.check_state()
        hint = f"give the same values, or choose another --root-dir; to go on with others: --resume {newest.folder}"
        ResumableFolder(job.root, "--root-dir").refuse(_differences(newest, trainer), hint)
    return newest


def _differences(saved: Checkpoint, trainer: Trainer) -> list[str]:
    """One line for each value in which the run of a checkpoint differed from this one."""
    recorded = {**saved.state["identity"], "recipe": training_identity(saved.state["recipe"])}
    lines = identity_differences(recorded, trainer.identity)
    if saved.state["base"] != trainer.state.base_sha256:
        lines.append("the base model: other files")
    return lines


def _log_changes(trainer: Trainer, saved: Checkpoint) -> None:
    """Log changes that resuming allows but that change the numbers or the meaning of a step."""
    old_precision, precision = saved.state["precision"], trainer.accelerator.mixed_precision
    if old_precision != precision:
        logger.warning(
            "precision was %s, is %s: the numbers will differ from those of an uninterrupted run",
            old_precision,
            precision,
        )
    old_world, world = saved.state["world"], trainer.world
    if old_world != world:
        old_words, words = (" × ".join(str(values[key]) for key in old_world) for values in (old_world, world))
        logger.info(
            "processes × batch × accumulation was %s, is %s: resuming at sample %s of the same order, as step %s",
            old_words, words, f"{trainer.state.position:,}", f"{trainer.state.step + 1:,}",
        )  # fmt: skip
