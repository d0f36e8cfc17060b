"""One stage of a fit with Lightning, from its last checkpoint to its best epoch."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from training.errors import EncoderError
from training.files import publish_file
from training.fitting.averaging import MovingAverage
from training.fitting.devices import Devices, Processes, Rank
from training.fitting.module import Fitting
from training.fitting.pictures import Draw, Pictures, draw_pictures
from training.fitting.progress import ProgressBar
from training.fitting.training_data import TrainingData
from training.protocols import TwoStageModel
from training.recipes import Recipe
from training.reference import first_line
from training.run_directory import RunDirectory


class Execution(NamedTuple):
    """Where and how a fit runs; apart from rounding, the result does not depend on it.

    Args:
        draw: makes the pictures that are written every few epochs, see `training.fitting.pictures.Pictures`.
        compiled: compile the loss of the model, see `training.fitting.module.Fitting`.
    """

    run: RunDirectory
    devices: Devices
    precision: Any  # one of `recipes.PRECISIONS`, which Lightning's types spell out
    progress: bool
    draw: Draw = draw_pictures
    compiled: bool = False


class Job(NamedTuple):
    """What every process of a stage is given.

    Args:
        stage: names the stage's folders; empty for the first one.
        last: the checkpoint to continue from.
    """

    model: torch.nn.Module
    recipe: Recipe
    data: TrainingData
    execution: Execution
    stage: str
    last: Path | None


def fit_stage(
    model: torch.nn.Module, recipe: Recipe, data: TrainingData, execution: Execution, stage: str
) -> dict[str, Any]:
    """Fit a model and restore the best epoch; returns the record of the fit.

    The record is also written beside the checkpoints, so that a resumed run does not repeat a finished stage.

    Args:
        stage: names the stage's folders; empty for the first one.
    """
    checkpoints = execution.run.checkpoints(stage)
    finished, last = checkpoints / "finished.json", checkpoints / "last.ckpt"
    if not finished.exists():
        job = Job(model, recipe, data, execution, stage, last if last.exists() else None)
        ended = execution.devices.fit(_fit, job, execution.run.path)
        publish_file(finished, (json.dumps(ended, indent=2) + "\n").encode())
    best = torch.load(checkpoints / "best.ckpt", map_location="cpu", weights_only=True)
    model.cpu().load_state_dict(_weights_of_model(best["state_dict"]))
    return {**json.loads(finished.read_text(encoding="utf-8")), "best_epoch": int(best["epoch"]) + 1}


def _fit(job: Job, rank: Rank) -> dict[str, Any]:
    """Fit in one of the processes; returns the record of the fit."""
    data = job.data
    execution = job.execution
    if execution.devices.has_cuda:
        job.model.to(memory_format=torch.channels_last)
    module = Fitting(job.model, job.recipe, data.training, data.held_out, data.views, compiled=execution.compiled)
    with _quiet_lightning(), _tensor_cores(execution.devices.has_cuda):
        trainer = _trainer(job, rank)
        started = time.monotonic()
        trainer.fit(module, ckpt_path=job.last, weights_only=True)
        seconds = time.monotonic() - started
    return {
        "resumed_from_epoch": module.first_epoch,
        "fit_seconds": round(seconds, 1),
        "images_per_second": round(module.images_seen / seconds, 1),
        "epochs": trainer.current_epoch,
        "stopped_by": _stopped_by(trainer),
        "device": str(trainer.strategy.root_device.type),
        "devices": rank.of,
        "precision": execution.precision,
        "compiled": execution.compiled,
    }


def _weights_of_model(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's part of a checkpoint; parameters of the objectives do not ship."""
    return {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}


def _trainer(job: Job, rank: Rank) -> Trainer:
    recipe, execution = job.recipe, job.execution
    kind = execution.devices.kind
    leaves_prior = isinstance(job.model, TwoStageModel) and job.model.has_second_stage
    board = f"tensorboard-{job.stage}" if job.stage else "tensorboard"
    try:
        return Trainer(
            accelerator=kind,
            devices=rank.of,
            strategy=_strategy(kind, rank, leaves_prior) if rank.of > 1 else "auto",
            use_distributed_sampler=False,
            precision=execution.precision,
            max_epochs=recipe.epochs,
            callbacks=_callbacks(job),
            logger=TensorBoardLogger(execution.run.path, name="", version=board),
            gradient_clip_val=recipe.optimiser.clip,
            deterministic=recipe.deterministic,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            log_every_n_steps=10,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except MisconfigurationException as exc:
        reason = first_line(exc)
        raise EncoderError(f"device {kind!r} cannot be used here ({reason}); choose cpu or auto") from exc


def _strategy(kind: str, rank: Rank, leaves_prior: bool) -> DDPStrategy:
    return DDPStrategy(
        cluster_environment=Processes(rank),
        process_group_backend="nccl" if kind == "gpu" else "gloo",
        broadcast_buffers=False,  # they are the same everywhere: their statistics are of all rows
        gradient_as_bucket_view=True,
        find_unused_parameters=leaves_prior,
    )


def _callbacks(job: Job) -> list[Callback]:
    recipe, run = job.recipe, job.execution.run
    kept: dict[str, Any] = {
        "dirpath": run.checkpoints(job.stage), "save_on_train_epoch_end": True, "enable_version_counter": False
    }  # fmt: skip
    best = ModelCheckpoint(filename="best", monitor="val/objective", mode="min", **kept)
    last = ModelCheckpoint(filename="last", **kept)  # `save_last` of `best` is only updated with a better epoch
    pictures = Pictures(run.pictures, job.data.held_out.images, recipe.pictures_every, job.execution.draw)
    callbacks: list[Callback] = [best, last, pictures]
    if recipe.ema is not None:
        callbacks.append(MovingAverage(recipe.ema))
    if recipe.patience is not None:
        callbacks.append(EarlyStopping("val/objective", patience=recipe.patience, check_on_train_epoch_end=True))
    if recipe.max_minutes is not None:
        callbacks.append(Timer(timedelta(minutes=recipe.max_minutes), verbose=False))
    if job.execution.progress:
        callbacks.append(ProgressBar())
    return callbacks


def _stopped_by(trainer: Trainer) -> str:
    """The setting that ended the fit."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (callback.time_remaining() or 0.0) <= 0.0:
            return "max_minutes"
        if isinstance(callback, EarlyStopping) and callback.stopped_epoch:
            return "patience"
    return "epochs"


@contextmanager
def _tensor_cores(has_cuda: bool) -> Iterator[None]:
    """On a GPU, multiply float32 numbers with 10 bits of mantissa (TF32), several times faster; then as before."""
    before = torch.get_float32_matmul_precision()
    if has_cuda:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advice to authors of loops, and restore its global switches after the fit."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    deterministic = torch.are_deterministic_algorithms_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
