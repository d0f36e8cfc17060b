"""`nitamono train-finder`: train an item finder of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.console import JsonOption, note, progress_bar, say


def train_finder(
    out: Annotated[Path, typer.Option(help="Directory of the new finder.")],
    photos: Annotated[list[Path] | None, typer.Option(help="SOURCE of photos to learn from; repeatable.")] = None,
    cutouts: Annotated[Path | None, typer.Option(help="Folder of pictures with an alpha channel: more items.")] = None,
    backgrounds: Annotated[Path | None, typer.Option(help="Folder of background photos or textures.")] = None,
    shapes: Annotated[int, typer.Option(min=0, help="Random shapes to draw.")] = 6000,
    studio: Annotated[int, typer.Option(min=0, help="Items of the sample shop to draw.")] = 1400,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 8000,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Stop after this many minutes of training.")] = None,
    self_training: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Share of the steps on photos that the finder labelled itself."),
    ] = 0.35,
    precision: Annotated[str, typer.Option(help="32 or bf16-mixed.")] = "32",
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Train a network that finds the item in a photo, without labels."""
    from training.recipes import check_device_and_precision

    check_device_and_precision("cpu", precision)
    from training.finder.make import FinderPlan, make_finder

    plan = FinderPlan(
        photos or [], cutouts, backgrounds, shapes, studio, steps, minutes, self_training, precision, seed
    )
    with progress_bar("training", "step") as progress:
        progress.started(steps)
        directory, card = make_finder(plan, out, advance=lambda: progress.advance(1), tell=note)
    say({"finder": str(directory), "card": card}, json_output, f"{directory}: finder, id {card['finder_id'][:12]}")
