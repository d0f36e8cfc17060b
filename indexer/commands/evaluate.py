"""`nitamono evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indexer.catalogue.records import Rerank
from training.console import JsonOption, note, note_unusable, progress_bar, say


def evaluate(
    gallery: Annotated[Path, typer.Option(metavar="SOURCE", help="SOURCE to search in.")],
    queries: Annotated[Path, typer.Option(metavar="SOURCE", help="SOURCE of query photos.")],
    relevance: Annotated[
        str, typer.Option(help="What makes a result relevant: category, item_id, attribute:NAME or a .qrels file.")
    ] = "category",
    encoder: Annotated[
        list[str] | None, typer.Option(metavar="REF", help="Encoder directory or name; repeatable.")
    ] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="REF", help="Further encoders.")] = None,
    report: Annotated[Path | None, typer.Option(help="HTML report to write.")] = None,
    baselines: Annotated[bool, typer.Option(help="Also evaluate the pixels, pca and hog baselines.")] = True,
    place: Annotated[
        bool, typer.Option("--place", help="Also measure recall by the scale and place of the query's item.")
    ] = False,
    rerank: Annotated[Rerank, typer.Option(help="Also evaluate each encoder with this second stage.")] = "none",
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the bootstrap and of breaking ties.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Measure the retrieval quality of encoders.

    Searches for each query in the gallery and reports recall, precision, MAP, nDCG and MRR with 95 % confidence
    intervals, next to simple baselines.

    \b
    Examples:
      nitamono evaluate --gallery shop/gallery.csv --queries shop/queries.csv --relevance item_id
      nitamono evaluate --gallery photos --queries photos --encoder default --report report.html
    """
    from indexer.evaluate.retrieval import evaluate_retrieval
    from indexer.reports.html import check_packages
    from training.data.sources import read_images
    from training.files import check_output_file

    if report is not None:
        check_output_file(report)
        check_packages()
    refs = [*(encoder or []), *(more or [])] or ["default"]
    gallery_images, gallery_problems = read_images(gallery)
    query_images, query_problems = read_images(queries)
    note_unusable([*gallery_problems, *query_problems])
    with progress_bar("reading", "img") as progress:
        evaluation = evaluate_retrieval(
            gallery_images, query_images, relevance, refs, baselines=baselines, place=place,
            reranks=("none", rerank), seed=seed,
            started=progress.started, advance=progress.advance,
        )  # fmt: skip
    for remark in evaluation.notes:
        note(remark)
    if report is not None:
        from indexer.evaluate.report import write_report

        write_report(evaluation, report)
        note(f"report: {report}")
    say(evaluation.to_json(), json_output, evaluation.to_text())
