"""One training loop for all models: images in, encoder directory out (`training.run_directory`)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from training.data.dataset import Dataset, load_dataset
from training.data.decode import ImageLimits
from training.data.sources import SourceImage
from training.encoder import Encoder
from training.errors import RecipeError, SourceError
from training.files import publish_file
from training.finder.store import load_finder
from training.fitting.devices import Devices
from training.fitting.examples import Examples
from training.fitting.feeding import Batches
from training.fitting.figures import final_figures
from training.fitting.item_crops import crop_to_items
from training.fitting.pictures import draw_pictures, encode_png
from training.fitting.stage import Execution, fit_stage
from training.fitting.training_data import TrainingData, build_training_data
from training.fitting.views import ViewMaker, Views
from training.item_first import item_first
from training.layers.code_prior import SecondStage
from training.models import MODELS
from training.pretrained_backbones import load_backbone
from training.protocols import Batch, GradientModel, IncrementalModel, SamplingModel, TwoStageModel
from training.provenance import build_card
from training.recipes import Recipe, check_device_and_precision
from training.run_directory import RunDirectory
from training.stored import round_weights

STORED_AS = {"float32": torch.float32, "float16": torch.float16}  # by the recipe's `weights`


class Finished(NamedTuple):
    """A fitted model, the config that builds it, and the record of the fit for the card."""

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
    devices: int = 1,
    precision: str = "32",
    compiled: bool = False,
    progress: bool = True,
    limits: ImageLimits | None = None,
) -> Path:
    """Train a recipe's model on images and write its encoder directory, which is returned.

    Args:
        recipe: see `training.recipes.load_recipe`.
        images: training images; unreadable ones are skipped, counted and listed on the card.
        out: becomes the encoder directory and holds the run.
        resume: continue the run in `out` from its last complete epoch; a finished run is left unchanged.
        device: auto, cpu or gpu.
        devices: number of devices, which share the batches of the recipe; on the CPU, of processes.
        precision: 32, or bf16-mixed for bfloat16 where that is safe.
        compiled: compile the loss of the model with `torch.compile`.
        progress: show progress bars on stderr, if that is a terminal.
        limits: of bytes and pixels per image.

    Raises:
        RecipeError: `out` holds another run, or the recipe does not fit the data or the devices.
        SourceError: no image can be read, or there are too few of them.
        EncoderError: the device is not available, there are not so many, or device or precision is unknown.
        ProcessError: the process of another device ended unexpectedly.
    """
    started = time.monotonic()
    check_device_and_precision(device, precision)
    if recipe.drawings is not None:
        raise RecipeError(f"recipe {recipe.name}: family {recipe.family} takes drawings, and these are images")
    used = Devices(device, devices)
    used.check_batches(recipe)
    run = RunDirectory(out)
    run.check_available(resume=resume)
    folder = next(each for each in (out, *out.absolute().parents) if each.is_dir())
    dataset = _load_dataset(recipe, images, limits, progress, folder)
    data = build_training_data(recipe, dataset, folder)
    if len(data.training) < 2:
        raise SourceError(f"training needs at least 2 images besides the held-out ones, found {len(data.training)}")
    run.claim(recipe, dataset.fingerprint)
    if run.is_finished:
        return run.path
    torch.manual_seed(recipe.seed)
    model = _build_model(recipe, data)
    borrowed = load_backbone(model, recipe.backbone_weights)
    if isinstance(model, GradientModel):
        with closing(used):
            finished = fit_by_gradient(
                model, recipe, data, Execution(run, used, precision, progress, compiled=compiled)
            )
    else:
        finished = _fit_in_one_pass(model, recipe, data)
    return _publish(run, recipe, dataset, data, finished, started, borrowed)


def _publish(
    run: RunDirectory,
    recipe: Recipe,
    dataset: Dataset,
    data: TrainingData,
    finished: Finished,
    started: float,
    borrowed: dict[str, Any],
) -> Path:
    """Compute the final figures and pictures, and publish the encoder.

    Args:
        started: monotonic time at which training started.
        borrowed: values of the card on the weights of a backbone.
    """
    round_weights(finished.model, STORED_AS[recipe.weights])
    figures = final_figures(finished.model, *(in_order(side, data.views) for side in (data.training, data.held_out)))
    if isinstance(finished.model, SamplingModel):
        for name, picture in draw_pictures(finished.model, data.held_out.images).items():
            publish_file(run.pictures / f"{name}.png", encode_png(picture))
    record = {**finished.run, "wall_seconds": round(time.monotonic() - started, 1), "threads": torch.get_num_threads()}
    card = {**build_card(recipe, dataset, _counts(dataset, data), record, figures), **borrowed}
    if data.classes:
        card["labels"] = {"condition": recipe.objective.condition, "names": data.label_names}
    return run.publish(_encoder(recipe, finished, card))


def _load_dataset(
    recipe: Recipe, images: Sequence[SourceImage], limits: ImageLimits | None, progress: bool, folder: Path
) -> Dataset:
    masks = recipe.masks if recipe.needs_masks else None
    photos = recipe.photo_preprocessing()
    dataset = load_dataset(images, photos, limits=limits, progress=progress, masks=masks, folder=folder)
    if recipe.item_first is None:
        return dataset
    return crop_to_items(dataset, load_finder(), recipe.item_first, recipe.preprocessing.size, folder)


def _build_model(recipe: Recipe, data: TrainingData) -> torch.nn.Module:
    family = MODELS[recipe.family]
    values = {**recipe.model_config_values(), **({"classes": data.classes} if data.classes else {})}
    model: torch.nn.Module = family.model(family.config(**values))
    return model


def _counts(dataset: Dataset, data: TrainingData) -> dict[str, int]:
    return {
        "images": len(dataset),
        "items": len(set(dataset.item_ids)),
        "train": len(data.training),
        "validation": len(data.held_out),
    }


def _encoder(recipe: Recipe, finished: Finished, card: dict[str, Any]) -> Encoder:
    """The encoder to ship, behind the item finder if the recipe asks for it."""
    encoder = Encoder(
        finished.model,
        family=recipe.family,
        config=json.loads(json.dumps(asdict(finished.config))),
        preprocessing=recipe.preprocessing.build(),
        card=card,
        stored_as=STORED_AS[recipe.weights],
    )
    if recipe.item_first is None:
        return encoder
    return item_first(encoder, load_finder(), card=card, **recipe.item_first.model_dump())


def _fit_in_one_pass(model: torch.nn.Module, recipe: Recipe, data: TrainingData) -> Finished:
    """Fit a model without gradients: incrementally, or not at all."""
    started = time.monotonic()
    if isinstance(model, IncrementalModel):
        for batch in in_order(data.training, data.views)():
            model.partial_fit(batch.x)
        try:
            model.check_fitted()
        except ValueError as exc:
            raise RecipeError(f"recipe {recipe.name}: model.{exc}") from exc
    return Finished(model.eval(), model.config, {"fit_seconds": round(time.monotonic() - started, 1)})


def fit_by_gradient(model: torch.nn.Module, recipe: Recipe, data: TrainingData, execution: Execution) -> Finished:
    """Fit the model, finish it, and fit the prior over its codes if it has a second stage."""
    record = fit_stage(model, recipe, data, execution, "")
    shipped, config = model.eval().finish(in_order(data.training, data.views)())  # type: ignore[operator]
    if isinstance(shipped, TwoStageModel) and shipped.has_second_stage:
        second = recipe.for_prior()
        has_bank = second.backgrounds is not None and isinstance(data.views, ViewMaker)
        views = ViewMaker(second, data.views.bank if has_bank else None)  # type: ignore[attr-defined]
        record["prior"] = fit_stage(SecondStage(shipped), second, data._replace(views=views), execution, "prior")
    return Finished(shipped.eval(), config, record)


def in_order(examples: Examples, views: Views) -> Callable[[], Iterator[Batch]]:
    """A function that iterates over batches of the unchanged images, any number of times."""

    def batches() -> Iterator[Batch]:
        for part in Batches(examples, views.recipe.batch_size, torch.arange(len(examples))):
            yield views.plain(part.examples)

    return batches
