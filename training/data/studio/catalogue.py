"""Write a synthetic shop to disk as a source: photos, masks and manifests."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from training.data.processes import map_in_processes
from training.data.studio import Item, Scene, Stock, check_stock, make_item, random_scene, render
from training.data.studio.scenes import background_kind
from training.errors import NitamonoError
from training.files import publish_file

OF_ITEM = ("item_id", "image", "mask", "title", "category", "colour", "second_colour", "print")
OF_SCENE = ("background", "background_kind", "figure", "rotation", "yaw", "pitch", "scale", "exposure", "warmth")
COLUMNS = (*OF_ITEM, *OF_SCENE)
QUALITY = 90  # of JPEG files
FEW = 32  # fewer photos than this are drawn in this process, because starting others would take longer
Row = dict[str, str]


def write_catalogue(
    out: Path,
    *,
    items: int,
    photos_per_item: int,
    seed: int = 0,
    size: int = 256,
    stock: Stock = "shop",
    processes: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Draw the shop of a seed into a folder; returns its `catalogue.csv`, which is written last.

    The files do not depend on the number of processes. `scenes.csv` lists the same photos with their background,
    figure, pose and light. With several photos per item, `gallery.csv` lists the first photo of each item and
    `queries.csv` the others, for offline evaluation by item_id.

    Args:
        size: side of the photos in pixels, 32 to 1024.
        stock: `shop`, products drawn flat, or `solids`, three-dimensional objects seen from several sides.
        processes: number of drawing processes; None starts one per core, 0 and 1 draw in this process.
        progress: called with the number of photos drawn since the last call.

    Raises:
        NitamonoError: a number is out of range, or the folder is not empty.
        ProcessError: a drawing process ended unexpectedly.
    """
    _check(out, items, photos_per_item, size, stock)
    for name in ("images", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    rows: dict[int, list[Row]] = {}
    for number, written in _draw_all(out, items, photos_per_item, seed, size, stock, processes):
        rows[number] = written
        if progress is not None:
            progress(len(written))
    ordered = [rows[number] for number in range(items)]
    everything = [row for written in ordered for row in written]
    _write_manifest(out / "scenes.csv", COLUMNS, everything)
    if photos_per_item > 1:
        _write_manifest(out / "gallery.csv", COLUMNS, (written[0] for written in ordered))
        _write_manifest(out / "queries.csv", COLUMNS, (row for written in ordered for row in written[1:]))
    return _write_manifest(out / "catalogue.csv", OF_ITEM, everything)


def _check(out: Path, items: int, photos_per_item: int, size: int, stock: str) -> None:
    check_stock(stock)
    if items < 1:
        raise NitamonoError(f"items must be at least 1, not {items}")
    if photos_per_item < 1:
        raise NitamonoError(f"photos-per-item must be at least 1, not {photos_per_item}")
    if not 32 <= size <= 1024:
        raise NitamonoError(f"size must be between 32 and 1024 pixels, not {size}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise NitamonoError(f"{out} is not empty; choose a new folder")


def _draw_all(
    out: Path, items: int, photos: int, seed: int, size: int, stock: Stock, processes: int | None
) -> Iterator[tuple[int, list[Row]]]:
    draw = partial(_draw_item, out, seed, photos=photos, size=size, stock=stock)
    processes = os.cpu_count() or 1 if processes is None else processes
    if processes < 2 or items * photos < FEW:
        return map(draw, range(items))
    return map_in_processes(draw, range(items), processes)


def _draw_item(out: Path, seed: int, number: int, *, photos: int, size: int, stock: Stock) -> tuple[int, list[Row]]:
    """Draw all photos of one item, which is painted once; returns its number and their rows."""
    item = make_item(seed, number, stock)
    rows = []
    for photo in range(photos):
        scene = random_scene(item, photo)
        taken = render(item, scene, size)
        name = f"{item.item_id}-{photo}"
        (out / "images" / f"{name}.jpg").write_bytes(_encoded(Image.fromarray(taken.image), "JPEG"))
        (out / "masks" / f"{name}.png").write_bytes(_encoded(Image.fromarray(taken.mask), "PNG"))
        rows.append(_row(item, scene, name))
    return number, rows


def _row(item: Item, scene: Scene, name: str) -> Row:
    values = (
        item.item_id, f"images/{name}.jpg", f"masks/{name}.png", item.title, item.category, item.colour,
        item.second_colour, item.print, f"{scene.background_id:03d}", background_kind(item.seed, scene.background_id),
        "yes" if scene.figure is not None else "no", f"{scene.pose.rotation:.1f}", f"{scene.pose.yaw % 360:.1f}",
        f"{scene.pose.pitch:.1f}", f"{scene.pose.scale:.3f}",
        f"{scene.light.exposure:.3f}", f"{scene.light.warmth:.2f}",
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=QUALITY)
    return buffer.getvalue()


def _write_manifest(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> Path:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return publish_file(path, buffer.getvalue().encode())
