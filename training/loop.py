"""One training loop for all models: images in, encoder directory out.

OUT/weights.safetensors, encoder.json, card.json    the encoder, written last and at once visible
OUT/run.json                                        which recipe and data this run is of
OUT/checkpoints/                                    training state, for `resume` alone
OUT/pictures/, OUT/tensorboard/                     reconstructions and samples; scalars
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.loggers import TensorBoardLogger
from pydantic import ValidationError
from torch import Tensor

from training.card import build_card
from training.data.dataset import Dataset, load_dataset
from training.data.decode import ImageLimits
from training.data.sources import SourceImage
from training.encoder import Encoder, round_weights
from training.errors import EncoderError, RecipeError, SourceError
from training.files import publish_file
from training.finder.store import load_finder
from training.fitting.averaging import MovingAverage
from training.fitting.examples import Batches, Examples
from training.fitting.figures import final_figures
from training.fitting.item_crops import crop_to_items
from training.fitting.module import Fitting
from training.fitting.pictures import Pictures, draw_pictures, encode_png
from training.fitting.prepare import Prepared, prepare
from training.fitting.progress import Progress
from training.fitting.views import ViewMaker
from training.item_first import item_first
from training.layers.code_prior import SecondStage
from training.models import MODELS
from training.pretrained_backbones import load_backbone
from training.protocols import Batch, GradientModel, IncrementalModel, SamplingModel, TwoStageModel
from training.recipes import Recipe, check_place
from training.reference import first_line


class _Place(NamedTuple):
    """Where and how a fit runs; what it gives does not depend on it, but for rounding."""

    out: Path
    device: str
    precision: Any  # one of `recipes.PRECISIONS`, which Lightning's types spell out
    progress: bool


class Finished(NamedTuple):
    """A fitted model, the config that builds it, and what the run was."""

    model: torch.nn.Module
    config: Any
    run: dict[str, Any]


def train(
    recipe: Recipe,
    images: Sequence[SourceImage],
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    precision: str = "32",
    progress: bool = True,
    limits: ImageLimits | None = None,
) -> Path:
    """Train a recipe's model on images and write its encoder directory, which is returned.

    Args:
        recipe: see `training.recipes.load_recipe`.
        images: what to train on; unreadable ones are skipped, counted and listed on the card.
        out: becomes the encoder directory, and holds the run.
        resume: go on with the run that `out` holds from its last complete epoch; a finished one is left as it is.
        device: where to train: auto, cpu or gpu.
        precision: 32, or bf16-mixed for bfloat16 where that is safe.
        progress: show bars on stderr.
        limits: of bytes and pixels per image.

    Raises:
        RecipeError: `out` holds another run, or the recipe does not fit the data.
        SourceError: no image can be read, or there are too few of them.
        EncoderError: the device is not there, or device or precision are other words.
    """
    started = time.monotonic()
    check_place(device, precision)
    out = Path(out)
    _refuse_another_run(out, resume)
    masks = recipe.masks if recipe.needs_masks else None
    dataset = load_dataset(images, recipe.photo_preprocessing(), limits=limits, progress=progress, masks=masks)
    if recipe.item_first is not None:
        dataset = crop_to_items(dataset, load_finder(), recipe.item_first, recipe.preprocessing.size)
    prepared = prepare(recipe, dataset)
    if len(prepared.training) < 2:
        raise SourceError(f"training needs at least 2 images besides those held out, found {len(prepared.training)}")
    if not _claim(out, recipe, dataset):
        return out
    torch.manual_seed(recipe.seed)
    family = MODELS[recipe.family]
    values = {**recipe.model_config_values(), **({"classes": prepared.classes} if prepared.classes else {})}
    model: torch.nn.Module = family.model(family.config(**values))
    borrowed = load_backbone(model, recipe.backbone_weights)
    if isinstance(model, GradientModel):
        finished = _fit_by_gradient(model, recipe, prepared, _Place(out, device, precision, progress))
    else:
        finished = _fit_in_one_pass(model, recipe, prepared)
    round_weights(finished.model, getattr(torch, recipe.weights))
    sides = prepared.training, prepared.held_out
    figures = final_figures(finished.model, *(_in_order(side, prepared.views) for side in sides))
    if isinstance(finished.model, SamplingModel):
        for name, picture in draw_pictures(finished.model, prepared.held_out.images).items():
            publish_file(out / "pictures" / f"{name}.png", encode_png(picture))
    counts = {
        "images": len(dataset),
        "items": len(set(dataset.item_ids)),
        "train": len(prepared.training),
        "validation": len(prepared.held_out),
    }
    run = {**finished.run, "wall_seconds": round(time.monotonic() - started, 1), "threads": torch.get_num_threads()}
    card = {**build_card(recipe, dataset, counts, run, figures), **borrowed}
    if prepared.classes:
        card["labels"] = {"condition": recipe.objective.condition, "names": prepared.label_names}
    return _publish(out, recipe, finished, card)


def _refuse_another_run(out: Path, resume: bool) -> None:
    is_run, is_encoder = (out / "run.json").exists(), (out / "encoder.json").exists()
    if is_run and not resume:
        raise RecipeError(f"{out} holds a training run already; continue it with --resume, or choose another --out")
    if is_encoder and not is_run:
        raise RecipeError(f"{out} holds an encoder already; choose another --out")


def _claim(out: Path, recipe: Recipe, dataset: Dataset) -> bool:
    """Take `out` for this run, or go on with it; False where it is finished."""
    this = {"recipe": recipe.model_dump(mode="json"), "data": dataset.fingerprint}
    record = out / "run.json"
    if not record.exists():
        publish_file(record, (json.dumps(this, indent=2) + "\n").encode())
        return True
    try:
        other = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise RecipeError(f"{record} is damaged ({exc}); choose another --out") from exc
    for part, remedy in (("recipe", "give the same recipe and --set values"), ("data", "give the same photos")):
        if _of_today(part, other.get(part)) != this[part]:
            raise RecipeError(f"{out} holds a run with another {part}; {remedy}, or choose another --out")
    return not (out / "encoder.json").exists()


def _of_today(part: str, recorded: Any) -> Any:
    """What a run recorded; a recipe from before a setting was there has its default."""
    if part != "recipe":
        return recorded
    try:
        return Recipe.model_validate(recorded).model_dump(mode="json")
    except ValidationError:
        return recorded


def _fit_in_one_pass(model: torch.nn.Module, recipe: Recipe, prepared: Prepared) -> Finished:
    """Models without a gradient: an incremental fit, or none at all."""
    started = time.monotonic()
    if isinstance(model, IncrementalModel):
        for batch in _in_order(prepared.training, prepared.views)():
            model.partial_fit(batch.x)
        try:
            model.check_fitted()
        except ValueError as exc:
            raise RecipeError(f"recipe {recipe.name}: model.{exc}") from exc
    return Finished(model.eval(), model.config, {"fit_seconds": round(time.monotonic() - started, 1)})


def _fit_by_gradient(model: torch.nn.Module, recipe: Recipe, prepared: Prepared, place: _Place) -> Finished:
    """Fit, let the model finish itself, and fit the prior over its codes where it has one to fit."""
    run = _run_lightning(model, recipe, prepared, place, "")
    shipped, config = model.eval().finish(_in_order(prepared.training, prepared.views)())  # type: ignore[operator]
    if isinstance(shipped, TwoStageModel) and shipped.has_second_stage:
        second = recipe.for_prior()
        views = ViewMaker(second, prepared.views.bank if second.backgrounds is not None else None)
        run["prior"] = _run_lightning(SecondStage(shipped), second, prepared._replace(views=views), place, "prior")
    return Finished(shipped.eval(), config, run)


def _run_lightning(
    model: torch.nn.Module, recipe: Recipe, prepared: Prepared, place: _Place, part: str
) -> dict[str, Any]:
    """Lightning's part: fit, and go back to the best epoch. What the run was is returned, and kept: a fit that is
    finished is not gone on with.

    Args:
        part: names the folders of a fit that is one of several.
    """
    finished = place.out / "checkpoints" / part / "finished.json"
    if not finished.exists():
        ended = _fit_to_the_end(model, recipe, prepared, place, part)
        publish_file(finished, (json.dumps(ended, indent=2) + "\n").encode())
    best = torch.load(finished.parent / "best.ckpt", map_location="cpu", weights_only=True)
    model.cpu().load_state_dict(_weights_of_model(best["state_dict"]))
    return {**json.loads(finished.read_text(encoding="utf-8")), "best_epoch": int(best["epoch"]) + 1}


def _fit_to_the_end(
    model: torch.nn.Module, recipe: Recipe, prepared: Prepared, place: _Place, part: str
) -> dict[str, Any]:
    module = Fitting(model, recipe, prepared.training, prepared.held_out, prepared.views)
    checkpoints = place.out / "checkpoints" / part
    last = checkpoints / "last.ckpt"
    with _quiet_lightning():
        trainer = _trainer(recipe, prepared.held_out.images, place, checkpoints, f"tensorboard{part and '-'}{part}")
        started = time.monotonic()
        trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
        seconds = time.monotonic() - started
    return {
        "resumed_from_epoch": module.first_epoch,
        "fit_seconds": round(seconds, 1),
        "images_per_second": round(module.images_seen / seconds, 1),
        "epochs": trainer.current_epoch,
        "stopped_by": _stopped_by(trainer),
        "device": str(trainer.strategy.root_device.type),
        "precision": place.precision,
    }


def _weights_of_model(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The model's part of a checkpoint; what the objectives have learnt besides does not ship."""
    return {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}


def _trainer(recipe: Recipe, held_out: Tensor, place: _Place, folder: Path, board: str) -> Trainer:
    kept: dict[str, Any] = {"dirpath": folder, "save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(filename="best", monitor="val/objective", mode="min", **kept)
    last = ModelCheckpoint(filename="last", **kept)  # `save_last` of the other follows only when there is a better one
    callbacks: list[Callback] = [best, last, Pictures(place.out / "pictures", held_out, recipe.pictures_every)]
    if recipe.ema is not None:
        callbacks.append(MovingAverage(recipe.ema))
    if recipe.patience is not None:
        callbacks.append(EarlyStopping("val/objective", patience=recipe.patience, check_on_train_epoch_end=True))
    if recipe.max_minutes is not None:
        callbacks.append(Timer(timedelta(minutes=recipe.max_minutes), verbose=False))
    if place.progress:
        callbacks.append(Progress())
    try:
        return Trainer(
            accelerator=place.device,
            devices=1,
            precision=place.precision,
            max_epochs=recipe.epochs,
            callbacks=callbacks,
            logger=TensorBoardLogger(place.out, name="", version=board),
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
        raise EncoderError(f"device {place.device!r} cannot be used here ({reason}); choose cpu or auto") from exc


def _stopped_by(trainer: Trainer) -> str:
    """The setting that ended the fit."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer) and (callback.time_remaining() or 0.0) <= 0.0:
            return "max_minutes"
        if isinstance(callback, EarlyStopping) and callback.stopped_epoch:
            return "patience"
    return "epochs"


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's advice is for people who write loops, not for those who run ours; its switches end with the fit."""
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


def _in_order(examples: Examples, views: ViewMaker) -> Callable[[], Iterator[Batch]]:
    """Batches of the images as they are, any number of times."""

    def batches() -> Iterator[Batch]:
        for part in Batches(examples, views.recipe.batch_size, torch.arange(len(examples))):
            yield views.plain(part)

    return batches


def _publish(out: Path, recipe: Recipe, finished: Finished, card: dict[str, Any]) -> Path:
    encoder = Encoder(
        finished.model,
        family=recipe.family,
        config=json.loads(json.dumps(asdict(finished.config))),
        preprocessing=recipe.preprocessing.build(),
        card=card,
        stored_as=getattr(torch, recipe.weights),
    )
    if recipe.item_first is not None:
        encoder = item_first(encoder, load_finder(), card=card, **recipe.item_first.model_dump())
    files = encoder.files()
    # `out` holds the run too, so the files go in one by one; encoder.json, which makes it an encoder, comes last.
    for name in sorted(files, key=lambda name: name == "encoder.json"):
        publish_file(out / name, files[name])
    return out
