"""`nitamono search`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.catalogue.records import Rerank
from indexer.options import DEFAULT_HOME, CollectionOption, HomeOption
from training.console import JsonOption, note, say
from training.errors import ImageError, NitamonoError

if TYPE_CHECKING:
    from indexer.search.regions import Region
    from indexer.search.results import SearchPage


def search(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image file to search with.")],
    k: Annotated[int, typer.Option("-k", help="Number of results.")] = 10,
    offset: Annotated[int, typer.Option(help="Results to skip.")] = 0,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="KEY=VALUE", help="Attribute that results must have: key=value; repeatable."),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(help="Part of the image to search with: x,y,width,height as fractions of the upright image."),
    ] = None,
    rerank: Annotated[
        Rerank, typer.Option(help="Second stage: expand the query, or use reciprocal neighbours.")
    ] = "none",
    home: HomeOption = DEFAULT_HOME,
    collection: CollectionOption = "default",
    json_output: JsonOption = False,
) -> None:
    """Find the items most similar to an image.

    Each line shows rank, score, probability of being the same product, item_id and title. The score is the cosine
    similarity, or the negated distance for an l2 encoder. The probability is known once the collection is calibrated
    (see `nitamono calibrate`). A note says when nothing in the collection looks like the image: it is then less typical
    than 99 % of held-out items. Collections of fewer than 100 items have no such note.

    \b
    Examples:
      nitamono search photo.jpg
      nitamono search photo.jpg -k 5 --filter category=bag
      nitamono search photo.jpg --region 0.1,0.2,0.5,0.6
    """
    from indexer.catalogue.home import Home
    from indexer.search.filters import parse_filters
    from indexer.search.regions import parse_region
    from indexer.search.searcher import Searcher

    wanted = parse_filters(filters or [])
    part = parse_region(region) if region is not None else None
    data = _read_file(image)
    with Home.open(home) as opened:
        try:
            page = Searcher(opened).search_image(
                collection, data, k=k, offset=offset, filters=wanted, region=part, find_items=part is None,
                rerank=rerank,
            )  # fmt: skip
        except ImageError as exc:
            raise ImageError(f"{image}: {exc}") from exc
    _note_regions(page)
    if page.typicality is not None and not page.typicality.like_catalogue:
        note(
            f"nothing here looks like that (typicality {page.typicality.percentile:.2g} %); the results are the nearest"
        )
    lines = [
        f"{rank}\t{hit.score:.4f}\t{_percentage(hit.probability)}\t{hit.item_id}\t{' '.join((hit.title or '').split())}"
        for rank, hit in enumerate(page.results, start=offset + 1)
    ]
    say(asdict(page), json_output, "\n".join(lines) or "no results")


def _note_regions(page: SearchPage) -> None:
    if page.used is not None and page.used.confidence is not None:
        used, confidence = _region_text(page.used.region), page.used.confidence
        note(f"found the item at {used} (confidence {confidence:.2f}); use --region to choose another part")
    items = page.regions or []
    if len(items) > 1:
        for number, item in enumerate(items, start=1):
            note(f"item {number} of {len(items)}: --region {_region_text(item.region)}")


def _region_text(region: Region) -> str:
    return ",".join(f"{value:.3f}" for value in (region.x, region.y, region.width, region.height))


def _percentage(probability: float | None) -> str:
    return "-" if probability is None else f"{probability:.0%}"


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise NitamonoError(f"{path}: cannot be read ({exc.strerror})") from exc
