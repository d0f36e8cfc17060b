"""`nitamono train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training.console import JsonOption, note, note_unusable, say

if TYPE_CHECKING:
    from training.data.entries import SourceProblem
    from training.recipes import Recipe
    from training.stored import StoredModel


def train(
    recipe: Annotated[str | None, typer.Argument(metavar="RECIPE", help="Recipe name or YAML file.")] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="SOURCE",
            help="SOURCE of photos (folder or manifest), or of drawings for sketch-rnn; repeatable. "
            "The same item_id in two sources denotes two items.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Directory of the new encoder.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe setting: key=value; repeatable."),
    ] = None,
    backgrounds: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of background photos to train with.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Resume from the last checkpoint in OUT.")] = False,
    device: Annotated[str, typer.Option(help="Device to train on: auto, cpu or gpu.")] = "auto",
    devices: Annotated[
        int,
        typer.Option(min=1, help="Number of devices that share each batch; with --device cpu, of processes."),
    ] = 1,
    precision: Annotated[str, typer.Option(help="Numeric precision: 32 or bf16-mixed.")] = "32",
    compile_: Annotated[
        bool,
        typer.Option("--compile", help="Compile the step with torch.compile: a slow start, then faster on a GPU."),
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Random seed; the same as --set seed=N.")] = None,
    deterministic: Annotated[
        bool, typer.Option(help="Train reproducibly: the same weights every time, slower.")
    ] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the recipes and exit.")] = False,
    json_output: JsonOption = False,
) -> None:
    """Train an encoder on your own photos, without labels.

    Family sketch-rnn is trained on drawings: `.npz`, `.ndjson` or `.svg` files, or a folder of them.
    Losses are logged to OUT/tensorboard, pictures to OUT/pictures.

    \b
    Examples:
      nitamono train --list
      nitamono train vae --data photos --out encoders/vae
      nitamono train vae --data photos --out encoders/small --set model.latent_dim=64
      nitamono train robust-vae --data photos --out encoders/robust --device gpu --devices 4
      nitamono train sketch-rnn --data drawings.ndjson --out encoders/sketches
    """
    from training.recipes import load_recipe, recipe_names

    if list_:
        names = recipe_names()
        say({"recipes": names}, json_output, "\n".join(f"{name}\t{text}" for name, text in names.items()))
        return
    if recipe is None or not data or out is None:
        raise typer.BadParameter("give RECIPE, --data SOURCE and --out DIR (or --list)")
    overrides = [*(set_ or []), *([f"seed={seed}"] if seed is not None else [])]
    if backgrounds is not None:
        overrides.append(f"backgrounds.folder={json.dumps(str(backgrounds))}")
    loaded = load_recipe(recipe, [*overrides, "deterministic=true"] if deterministic else overrides)
    from training.device import precision_advice

    if advice := precision_advice(device, precision):
        note(advice)
    fit = _fit_images if loaded.drawings is None else _fit_drawings
    encoder, problems = fit(
        loaded, data, out, resume=resume, device=device, devices=devices, precision=precision, compiled=compile_
    )
    document = {
        "encoder": str(out),
        "encoder_id": encoder.encoder_id,
        "family": encoder.family,
        "dim": encoder.dim,
        "rejected": len(problems),
        "card": encoder.card,
    }
    say(document, json_output, f"{out}: {encoder.family}, {encoder.dim} dimensions, id {encoder.encoder_id[:12]}")


def _fit_images(
    recipe: Recipe, data: list[Path], out: Path, **options: Any
) -> tuple[StoredModel[Any], list[SourceProblem]]:
    from training.data.sources import read_all
    from training.encoder import load_encoder
    from training.loop import train as run
    from training.onnx.export import add_onnx

    images, problems = read_all(data)
    note_unusable(problems)
    directory = run(recipe, images, out, **options)
    add_onnx(directory)
    return load_encoder(directory), problems


def _fit_drawings(
    recipe: Recipe, data: list[Path], out: Path, **options: Any
) -> tuple[StoredModel[Any], list[SourceProblem]]:
    from training.sketches.encoder import load_sketch_encoder
    from training.sketches.fit import train_on_drawings
    from training.sketches.reading import TRAINING_PARTS, read_all_drawings

    drawings, problems = read_all_drawings(data, parts=TRAINING_PARTS)
    note_unusable(problems)
    directory = train_on_drawings(recipe, drawings, out, problems=problems, **options)
    return load_sketch_encoder(directory), problems
