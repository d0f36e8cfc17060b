"""Commands that need neither catalogue nor index: `train`, `train-finder` and `sample-catalogue`.

Those that ask a model for images are in `training.commands.density`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, cast

import typer

from training.commands import density as density_commands
from training.commands.finder import train_finder
from training.console import JsonOption, note, progress_bar, say


def register(app: typer.Typer) -> None:
    app.command()(train)
    app.command("sample-catalogue")(sample_catalogue)
    app.command("train-finder")(train_finder)
    density_commands.register(app)


def train(
    recipe: Annotated[str | None, typer.Argument(help="Recipe name, or a YAML file.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="SOURCE of photos: folder or manifest; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory of the new encoder.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override: key=value, repeatable.")] = None,
    backgrounds: Annotated[Path | None, typer.Option(help="Folder of backgrounds to train on.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in OUT.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    precision: Annotated[str, typer.Option(help="32 or bf16-mixed.")] = "32",
    seed: Annotated[int | None, typer.Option(help="Seed; as --set seed=N.")] = None,
    deterministic: Annotated[bool, typer.Option(help="The same weights every time, slower.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the recipes and exit.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Train an encoder on a catalogue's own photos, without labels."""
    from training.recipes import load_recipe, recipe_names

    if list_:
        names = recipe_names()
        say({"recipes": names}, json_output, "\n".join(f"{name}\t{text}" for name, text in names.items()))
        return
    if recipe is None or not data or out is None:
        raise typer.BadParameter("give RECIPE, --data SOURCE and --out DIR (or --list)")
    from training.data.sources import read_all

    overrides = [*(set_ or []), *([f"seed={seed}"] if seed is not None else [])]
    if backgrounds is not None:
        overrides.append(f"backgrounds.folder={json.dumps(str(backgrounds))}")
    loaded = load_recipe(recipe, [*overrides, "deterministic=true"] if deterministic else overrides)
    images, problems = read_all(data)
    for problem in problems[:20]:
        note(f"{problem.where}: {problem.reason}")
    from training.encoder import load_encoder
    from training.loop import train as run
    from training.onnx.export import add_onnx

    directory = run(loaded, images, out, resume=resume, device=device, precision=precision)
    add_onnx(directory)
    encoder = load_encoder(directory)
    document = {
        "encoder": str(directory),
        "encoder_id": encoder.encoder_id,
        "family": encoder.family,
        "dim": encoder.dim,
        "rejected": len(problems),
        "card": encoder.card,
    }
    say(document, json_output, f"{directory}: {encoder.family}, {encoder.dim} numbers, id {encoder.encoder_id[:12]}")


def sample_catalogue(
    out: Annotated[Path, typer.Option(help="New folder for the photos, masks and manifests.")],
    items: Annotated[int, typer.Option(help="How many products.")] = 300,
    photos_per_item: Annotated[int, typer.Option(help="Photos of each.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same shop.")] = 0,
    size: Annotated[int, typer.Option(help="Side of the photos in pixels.")] = 256,
    stock: Annotated[str, typer.Option(help="shop (drawn flat) or solids (seen from several sides).")] = "shop",
    processes: Annotated[int | None, typer.Option(min=0, help="Drawing processes; one per core by default.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Draw a synthetic shop: products in varied pose, light and background, with exact masks."""
    from training.data.studio import Stock
    from training.data.studio.catalogue import write_catalogue

    with progress_bar("drawing", "photo") as progress:
        progress.started(max(items, 0) * max(photos_per_item, 0))
        manifest = write_catalogue(
            out,
            items=items,
            photos_per_item=photos_per_item,
            seed=seed,
            size=size,
            stock=cast(Stock, stock),
            processes=processes,
            progress=progress.advance,
        )
    document = {"manifest": str(manifest), "items": items, "photos": items * photos_per_item}
    say(document, json_output, f"{manifest}: {items} items, {items * photos_per_item} photos")
