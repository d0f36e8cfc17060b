"""`nitamono train-finder`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.console import JsonOption, note, progress_bar, say


def train_finder(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory of the new finder.")],
    photos: Annotated[
        list[Path] | None, typer.Option(metavar="SOURCE", help="SOURCE of training photos; repeatable.")
    ] = None,
    cutouts: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of PNG or WebP cut-outs with an alpha channel, used as further items."
        ),
    ] = None,
    backgrounds: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of background photos or textures.")
    ] = None,
    shapes: Annotated[int, typer.Option(min=0, help="Number of random shapes to draw.")] = 6000,
    studio: Annotated[int, typer.Option(min=0, help="Number of synthetic shop items to draw.")] = 1400,
    steps: Annotated[int, typer.Option(min=1, help="Number of training steps.")] = 8000,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Maximum training time in minutes.")] = None,
    self_training: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Fraction of the steps that use masks which the finder predicted itself."),
    ] = 0.35,
    precision: Annotated[str, typer.Option(help="Numeric precision: 32 or bf16-mixed.")] = "32",
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Train a network that finds the item in a photo.

    The finder predicts which pixels belong to the item, whatever kind of item it is. It needs no labels: it learns from
    composed pictures, and with --photos also from photos.

    \b
    Examples:
      nitamono train-finder --out finder
      nitamono train-finder --out finder --photos photos --minutes 30
    """
    from training.device import precision_advice
    from training.recipes import check_device_and_precision

    check_device_and_precision("cpu", precision)
    if advice := precision_advice("cpu", precision):
        note(advice)
    from training.finder.make import FinderPlan, make_finder

    plan = FinderPlan(
        photos or [], cutouts, backgrounds, shapes, studio, steps, minutes, self_training, precision, seed
    )
    with progress_bar("training", "step") as progress:
        progress.started(steps)
        directory, card = make_finder(plan, out, advance=lambda: progress.advance(1), tell=note)
    say({"finder": str(directory), "card": card}, json_output, f"{directory}: finder, id {card['finder_id'][:12]}")
