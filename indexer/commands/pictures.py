"""`nitamono pictures`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indexer.errors import InvalidRequestError
from indexer.options import DeviceOption
from training.console import JsonOption, note, note_unusable, progress_bar, say


def pictures(
    encoder: Annotated[str, typer.Option(metavar="REF", help="Encoder directory or name.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the pictures.")],
    data: Annotated[
        Path | None, typer.Option(metavar="SOURCE", help="SOURCE of photos; omit to use synthetic ones.")
    ] = None,
    images: Annotated[int, typer.Option(min=2, max=10_000, help="Maximum number of photos, chosen at random.")] = 500,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed of the choice and the samples.")] = 0,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Draw what an encoder has learnt.

    Writes one PNG file for each kind of picture that the family supports: reconstructions, samples, latent traversals,
    interpolations, completions, labels, codes and nearest neighbours; and for `draw` an animation of its steps (GIF).

    \b
    Example:
      nitamono pictures --encoder ENCODER --data photos --out pictures
    """
    from indexer.evaluate.images import choose_images
    from training.files import check_output_folder
    from training.reference import describe_encoder

    check_output_folder(out)
    described = describe_encoder(encoder)
    with progress_bar("reading", "img") as progress:
        chosen = choose_images(data, described.preprocessing, images, seed, progress)
    note_unusable(chosen.rejected)
    if len(chosen.pixels) < 2:
        raise InvalidRequestError("data", f"{data}: has {len(chosen.pixels)} readable photos; give 2 or more")
    from training.encoder import load_encoder
    from training.gallery import write_gallery

    gallery = write_gallery(load_encoder(encoder, device), chosen.pixels, out, seed=seed)
    for name, reason in gallery.skipped.items():
        note(f"no {name}: {reason}")
    document = {
        "encoder_id": described.encoder_id,
        "images": len(chosen.pixels),
        "written": {name: str(path) for name, path in gallery.written.items()},
        "skipped": gallery.skipped,
    }
    say(document, json_output, "\n".join(str(path) for path in gallery.written.values()))
