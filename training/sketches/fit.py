"""Train an encoder of drawings: the loop of `training.loop`, on strokes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data.dataset import split_items
from training.data.entries import SourceProblem
from training.errors import RecipeError, SourceError
from training.files import publish_file
from training.fitting.devices import Devices
from training.fitting.examples import Examples
from training.fitting.figures import latent_use
from training.fitting.pictures import encode_png, tile
from training.fitting.stage import Execution
from training.fitting.training_data import TrainingData
from training.layers.strokes import lengths_of
from training.loop import STORED_AS, Finished, fit_by_gradient, in_order
from training.models import MODELS
from training.protocols import Batch
from training.provenance import compose_card, describe_skipped
from training.recipes import Recipe, check_device_and_precision
from training.run_directory import RunDirectory
from training.sketches.dataset import DrawingSet, prepare_drawings, scaled_to
from training.sketches.encoder import SketchEncoder
from training.sketches.preparing import DrawingPreparation
from training.sketches.raster import draw_strokes
from training.sketches.reading import SourceDrawing
from training.sketches.strokes import from_stroke3, from_stroke5
from training.sketches.views import SketchViews
from training.stored import round_weights

JUDGED = 2_000  # drawings of each side that figures are computed on
SHOWN = 16  # drawings of a row in pictures


def train_on_drawings(
    recipe: Recipe,
    drawings: Sequence[SourceDrawing],
    out: Path,
    *,
    problems: Sequence[SourceProblem] = (),
    resume: bool = False,
    device: str = "auto",
    devices: int = 1,
    precision: str = "32",
    compiled: bool = False,
    progress: bool = True,
) -> Path:
    """Train a recipe's model on drawings and write its encoder directory, which is returned.

    Args:
        recipe: of a family of drawings; see `training.recipes.load_recipe`.
        drawings: those that cannot be used are skipped, counted and listed on the card, with the source's `problems`.
        out, resume, device, devices, precision, compiled, progress: as for `training.loop.train`.

    Raises:
        RecipeError: `out` holds another run, the recipe is not of a family of drawings, or its batches do not divide
            over the devices.
        SourceError: no drawing can be used, or there are too few of them.
        EncoderError: the device is not available, there are not so many, or device or precision is unknown.
        ProcessError: the process of another device ended unexpectedly.
    """
    started = time.monotonic()
    settings = recipe.drawings
    if settings is None:
        raise RecipeError(f"recipe {recipe.name}: family {recipe.family} takes images; train it on images")
    check_device_and_precision(device, precision)
    used = Devices(device, devices)
    used.check_batches(recipe)
    run = RunDirectory(out)
    run.check_available(resume=resume)
    preparation = DrawingPreparation(settings.longest, settings.epsilon)
    found = prepare_drawings(drawings, preparation, problems=problems, progress=progress)
    training, held_out = split_items(found.item_ids, recipe.validation)
    if len(training) < 2:
        raise SourceError(f"training needs at least 2 drawings besides the held-out ones, found {len(training)}")
    run.claim(recipe, found.fingerprint)
    if run.is_finished:
        return run.path
    dataset = scaled_to(found, training)
    examples = Examples(torch.from_numpy(dataset.rows), torch.arange(len(dataset)))
    sides = [examples.take(torch.from_numpy(side)) for side in (training, held_out)]
    data = TrainingData(sides[0], sides[1], SketchViews(recipe), [], 0)
    torch.manual_seed(recipe.seed)
    family = MODELS[recipe.family]
    model = family.model(family.config(**recipe.model_config_values()))
    with closing(used):
        finished = fit_by_gradient(model, recipe, data, Execution(run, used, precision, progress, draw_rows, compiled))
    return run.publish(_encoder(recipe, dataset, data, finished, run, started))


def _encoder(
    recipe: Recipe, dataset: DrawingSet, data: TrainingData, finished: Finished, run: RunDirectory, started: float
) -> SketchEncoder:
    """The encoder to ship with its card; writes the last pictures."""
    round_weights(finished.model, STORED_AS[recipe.weights])
    figures = drawing_figures(finished.model, data)
    for name, picture in draw_rows(finished.model, data.held_out.images).items():
        publish_file(run.pictures / f"{name}.png", encode_png(picture))
    record = {**finished.run, "wall_seconds": round(time.monotonic() - started, 1), "threads": torch.get_num_threads()}
    counts = {"drawings": len(dataset), "train": len(data.training), "validation": len(data.held_out)}
    about = {
        "fingerprint": dataset.fingerprint,
        **counts,
        "points": _points_of(dataset.rows),
        **describe_skipped(dataset.skipped, "drawings"),
    }
    return SketchEncoder(
        finished.model,
        family=recipe.family,
        config=json.loads(json.dumps(asdict(finished.config))),
        preprocessing=dataset.preparation,
        card=compose_card(recipe, f"label-free: {len(dataset):,} drawings", about, record, figures),
        stored_as=STORED_AS[recipe.weights],
    )


def _points_of(rows: NDArray[np.float32]) -> dict[str, float]:
    """How many points drawings have."""
    points = lengths_of(torch.from_numpy(rows)).double()
    at = torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)
    low, middle, high = (round(value, 1) for value in torch.quantile(points, at).tolist())
    return {"mean": round(float(points.mean()), 2), "p05": low, "median": middle, "p95": high}


@torch.no_grad()
def drawing_figures(model: Any, data: TrainingData) -> dict[str, Any]:
    """Nats per drawing on both sides of the split, for up to 2,000 drawings of each, and the use of the latents.

    `elbo` is the bound, exact for the decoder alone, in nats of offsets with a deviation of 1; `kl` its KL. `offsets`
    and `pens` are L_s and L_p of Sketch-RNN, equation 9, without augmentation.
    """
    figures: dict[str, Any] = {}
    for side, examples in (("train", data.training), ("validation", data.held_out)):
        noise = torch.Generator().manual_seed(0)
        batches = list(in_order(examples.take(torch.arange(min(JUDGED, len(examples)))), data.views)())
        bounds = [model.elbo(batch, generator=noise) for batch in batches]
        kl = torch.cat([bound.kl for bound in bounds])
        figures[side] = {
            "elbo": round(float(torch.cat([bound.elbo for bound in bounds]).double().mean()), 2),
            "kl": round(float(kl.sum(1).mean()), 3),
            **_mean_losses(model, batches),
        }
        if side == "train" and model.is_conditional:
            use = latent_use(torch.cat([model.latent(batch.x) for batch in batches]), kl)
            figures["active_units"] = use.active_units
            figures["kl_per_unit"] = [round(value, 4) for value in use.kl_per_unit]
    return figures


def _mean_losses(model: Any, batches: Sequence[Batch]) -> dict[str, float]:
    torch.manual_seed(0)
    found = [(len(batch.x), model.loss(batch, 0).scalars) for batch in batches]
    total = sum(count for count, _ in found)
    return {
        name: round(sum(count * float(scalars[name]) for count, scalars in found) / total, 4)
        for name in ("offsets", "pens")
    }


@torch.no_grad()
def draw_rows(model: Any, rows: Tensor) -> dict[str, NDArray[np.uint8]]:
    """Grids of 64 `samples`, and for models with a latent of up to 16 drawings above their `reconstructions`.

    Args:
        rows: originals `(N, N_max, 5)`.
    """
    noise = torch.Generator().manual_seed(0)
    grids = {"samples": tile(_pictures(model.sample(4 * SHOWN, noise)), SHOWN)}
    if model.is_conditional:
        originals = rows[:SHOWN].to(next(model.parameters()).device)
        both = torch.cat([originals, model.reconstruct(originals)])
        grids["reconstructions"] = tile(_pictures(both), len(originals))
    return grids


def _pictures(rows: Tensor) -> Tensor:
    """Pictures `(N, 1, S, S)` in [0, 1]."""
    drawn = [draw_strokes(from_stroke3(from_stroke5(each))) for each in rows.float().cpu().numpy()]
    return torch.from_numpy(np.stack(drawn))[:, None].float() / 255.0
