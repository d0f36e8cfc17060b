"""`nitamono compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from indexer.errors import InvalidRequestError
from training.console import JsonOption, note, note_unusable, progress_bar, say, to_json

if TYPE_CHECKING:
    from indexer.swaps.swap_set import SwapSet


def compare(
    data: Annotated[Path | None, typer.Option(metavar="SOURCE", help="SOURCE of the catalogue's photos.")] = None,
    studio: Annotated[str | None, typer.Option(help="Use a synthetic shop instead of --data: shop or solids.")] = None,
    encoder: Annotated[
        list[str] | None, typer.Option(metavar="REF", help="Encoder directory or name; repeatable.")
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="REF", help="Further encoders.")] = None,
    backgrounds: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of background photos; omit to draw backgrounds.")
    ] = None,
    items: Annotated[int, typer.Option(min=8, max=5000, help="Maximum number of items, chosen at random.")] = 300,
    per_item: Annotated[int, typer.Option(min=2, max=50, help="Backgrounds per item.")] = 5,
    masks: Annotated[
        str, typer.Option(help="Masks to use: all, or given (only those from a mask column or an alpha channel).")
    ] = "all",
    report: Annotated[
        Path | None, typer.Option(help="HTML report to write; figures go to a .json file next to it.")
    ] = None,
    baselines: Annotated[bool, typer.Option(help="Also compare the pixels and hog baselines.")] = True,
    placement: Annotated[bool, typer.Option(help="Also measure recall by the item's scale and place.")] = True,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Measure how much the background changes each vector.

    Puts the same items on different backgrounds and reports, for each encoder, what its latent keeps of the item and
    what of the background. Differences are tested against the first encoder. Photos without a usable mask are left out
    and counted.

    \b
    Examples:
      nitamono compare --studio shop --encoder default --encoder ENCODER
      nitamono compare --data photos --encoder default --report report.html
    """
    from indexer.compare.comparison import compare_encoders
    from indexer.compare.report import comparison_json, write_comparison
    from training.files import check_output_file, publish_file
    from training.reference import describe_encoder

    refs = [*(encoder or []), *(more or [])] or ["default"]
    for ref in refs:
        describe_encoder(ref)  # fails now instead of after minutes of work
    if report is not None:
        check_output_file(report)
    made = _make_set(data, studio, backgrounds, items, per_item, masks, seed)
    with progress_bar("comparing", "encoder") as progress:
        comparison = compare_encoders(
            made, refs, baselines=baselines, placement=placement, seed=seed,
            started=progress.started, advance=progress.advance,
        )  # fmt: skip
    document = comparison_json(comparison)
    if report is not None:
        write_comparison(comparison, report)
        publish_file(report.with_suffix(".json"), (to_json(document) + "\n").encode())
        note(f"report: {report}, figures: {report.with_suffix('.json')}")
    say(document, json_output, comparison.to_text())


def _make_set(
    data: Path | None, studio: str | None, backgrounds: Path | None, items: int, per_item: int, masks: str, seed: int
) -> SwapSet:
    from indexer.swaps.sources import photo_set, studio_set
    from indexer.swaps.swap_set import BANK_SEED, GIVEN
    from training.data.masks import SOURCES
    from training.data.sources import read_images
    from training.data.studio import Stock, check_stock

    if (data is None) == (studio is None):
        raise InvalidRequestError("data", "give either --data SOURCE or --studio shop|solids, not both")
    if masks not in ("all", "given"):
        raise InvalidRequestError("masks", f"masks must be all or given, not {masks!r}")
    if studio is not None:
        check_stock(studio)
        with progress_bar("drawing", "photo") as progress:
            return studio_set(
                cast(Stock, studio), items, backgrounds=backgrounds, per_item=per_item, seed=BANK_SEED + seed,
                advance=progress.advance,
            )  # fmt: skip
    source = cast(Path, data)
    images, problems = read_images(source)
    note_unusable(problems)
    return photo_set(
        source.stem, images, backgrounds=backgrounds, per_item=per_item, limit=items,
        masks=GIVEN if masks == "given" else SOURCES, seed=seed,
    )  # fmt: skip
