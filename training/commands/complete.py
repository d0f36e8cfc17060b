"""`nitamono complete`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.commands.inputs import read_inputs
from training.commands.options import DeviceOption, EncoderOption, SeedOption, TemperatureOption
from training.console import JsonOption, say


def complete(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Image file, folder or manifest.")],
    encoder: EncoderOption,
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    keep: Annotated[float, typer.Option(min=0, max=1, help="Fraction of the rows to keep, from the top.")] = 0.5,
    variants: Annotated[int, typer.Option(min=1, max=32, help="Completions per image.")] = 4,
    images: Annotated[int, typer.Option(min=1, max=256, help="Maximum number of images.")] = 8,
    temperature: TemperatureOption = 1.0,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Hide the lower part of images and let a model draw it.

    Writes one sheet; each row shows an image, the part that was kept, and the completions. The encoder must be
    autoregressive: made, pixel-cnn, pixel-cnn++ or pixel-rnn.

    \b
    Example:
      nitamono complete photos --encoder ENCODER --out completions.png --keep 0.3
    """
    from training.encoder import load_encoder
    from training.files import publish_file
    from training.fitting.pictures import encode_png
    from training.gallery import completion_rows, draw_sheet

    loaded = load_encoder(encoder, device)
    found = read_inputs(loaded, source, images)
    rows = completion_rows(loaded, found.pixels, keep=keep, variants=variants, temperature=temperature, seed=seed)
    publish_file(out, encode_png(draw_sheet(rows)))
    document = {
        "encoder_id": loaded.encoder_id,
        "file": str(out),
        "images": found.item_ids,
        "rejected": found.rejected,
    }
    say(document, json_output, f"{out}: {len(found.item_ids)} images, {variants} completions of each")
