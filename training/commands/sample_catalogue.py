"""`nitamono sample-catalogue`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from training.console import JsonOption, progress_bar, say


def sample_catalogue(
    out: Annotated[Path, typer.Option(help="New or empty folder for the photos, masks and manifests.")],
    items: Annotated[int, typer.Option(help="Number of items.")] = 300,
    photos_per_item: Annotated[int, typer.Option(help="Photos per item.")] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    size: Annotated[int, typer.Option(help="Width and height of the photos in pixels.")] = 256,
    stock: Annotated[
        str, typer.Option(help="shop (drawn flat) or solids (3-D objects, seen from several sides).")
    ] = "shop",
    processes: Annotated[
        int | None, typer.Option(min=0, help="Number of processes that draw; omit for one per core.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Draw a synthetic shop to try Nitamono with.

    The items vary in pose, light and background and have exact masks. Writes catalogue.csv to index, scenes.csv with
    the background, pose and light of each photo, and gallery.csv and queries.csv for an evaluation by item_id.

    \b
    Examples:
      nitamono sample-catalogue --out shop
      nitamono sample-catalogue --out shop --items 50 --photos-per-item 4 --stock solids
    """
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
            progress=progress.advance,
            processes=processes,
        )
    document = {"manifest": str(manifest), "items": items, "photos": items * photos_per_item}
    say(document, json_output, f"{manifest}: {items} items, {items * photos_per_item} photos")
