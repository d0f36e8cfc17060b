"""Commands over a home (`index`, `search`, `generations`, `rejects`, `collections`) and over encoders and sources alone
(`embed`, `evaluate`, `pictures`); `encoders` is in `indexer.commands.encoders`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.catalogue.records import Rerank
from indexer.commands.calibrate import calibrate
from indexer.commands.compare import compare
from indexer.commands.drift import drift
from indexer.commands.encoders import encoders
from indexer.commands.retrain import retraining
from indexer.errors import CorruptError, InvalidRequestError
from indexer.options import DEFAULT_HOME, CollectionOption, DeviceOption, HomeOption, ProcessesOption
from training.console import JsonOption, note, progress_bar, say
from training.errors import ImageError, NitamonoError

if TYPE_CHECKING:
    from indexer.catalogue.home import Home
    from indexer.catalogue.records import GenerationRecord
    from indexer.search.regions import Region

generations = typer.Typer(no_args_is_help=True, help="Index generations: list, verify, activate, roll back.")
rejects = typer.Typer(no_args_is_help=True, help="Images and rows that were set aside.")


def register(app: typer.Typer) -> None:
    for command in (index, search, embed, evaluate, compare, pictures, calibrate, collections, drift):
        app.command()(command)
    app.add_typer(encoders, name="encoders")
    app.add_typer(generations, name="generations")
    app.add_typer(rejects, name="rejects")
    app.add_typer(retraining, name="retrain")


def index(
    source: Annotated[Path, typer.Argument(help="Folder, or .csv / .jsonl / .parquet manifest.")],
    home: HomeOption = DEFAULT_HOME,
    collection: CollectionOption = "default",
    encoder: Annotated[str | None, typer.Option(help="Encoder directory or name; its own, or `default`.")] = None,
    processes: ProcessesOption = None,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Bring a collection up to date with a source, and put the new index into service."""
    from indexer.catalogue.home import Home
    from indexer.ingest.ingest import index_source

    with progress_bar("indexing", "img") as progress, Home.open(home, create=True) as opened:
        report = index_source(
            opened, collection, source, encoder_ref=encoder, advance=progress.advance, started=progress.started,
            processes=processes, device=device,
        )  # fmt: skip
    counts = f"added {report.added}, updated {report.updated}, unchanged {report.unchanged}, rejected {report.rejected}"
    say(asdict(report), json_output, f"{counts}; {collection!r} now serves generation {report.generation}")
    if report.rejected:
        note(f"{report.rejected} were set aside; `nitamono rejects list` says why")


def search(
    image: Annotated[Path, typer.Argument(help="Image file to look for.")],
    k: Annotated[int, typer.Option("-k", help="How many items.")] = 10,
    offset: Annotated[int, typer.Option(help="How many to leave out first.")] = 0,
    filters: Annotated[list[str] | None, typer.Option("--filter", help="key=value, repeatable.")] = None,
    region: Annotated[str | None, typer.Option(help="x,y,width,height as fractions of the image.")] = None,
    rerank: Annotated[Rerank, typer.Option(help="Second stage of the search.")] = "none",
    home: HomeOption = DEFAULT_HOME,
    collection: CollectionOption = "default",
    json_output: JsonOption = False,
) -> None:
    """Find the items most like an image."""
    from indexer.catalogue.home import Home
    from indexer.search.filters import parse_filters
    from indexer.search.regions import parse_region
    from indexer.search.searcher import Searcher

    wanted = parse_filters(filters or [])
    part = parse_region(region) if region is not None else None
    find_items = part is None
    data = _read_file(image)
    with Home.open(home) as opened:
        try:
            page = Searcher(opened).search_image(
                collection, data, k=k, offset=offset, filters=wanted, region=part, find_items=find_items, rerank=rerank
            )
        except ImageError as exc:
            raise ImageError(f"{image}: {exc}") from exc
    lines = [
        f"{offset + place}\t{hit.score:.4f}\t{_likely(hit.probability)}\t{hit.item_id}\t{hit.title or ''}"
        for place, hit in enumerate(page.results, start=1)
    ]
    if page.used is not None and page.used.confidence is not None:
        where, sure = _place(page.used.region), page.used.confidence
        note(f"found the item at {where} (confidence {sure:.2f}); use --region to choose another part")
    items = page.regions or []
    if len(items) > 1:
        for number, item in enumerate(items, start=1):
            note(f"item {number} of {len(items)}: --region {_place(item.region)}")
    say(asdict(page), json_output, "\n".join(lines) or "nothing found")


def embed(
    source: Annotated[Path, typer.Argument(help="Folder or manifest.")],
    encoder: Annotated[str, typer.Option(help="Encoder directory or name.")],
    out: Annotated[Path, typer.Option(help="The .npz file to write.")],
    processes: ProcessesOption = None,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Write the vectors of a source's images to a file: ids, vectors, encoder_id."""
    from indexer.ingest.embed import embed_source
    from training.data.sources import read_source
    from training.files import check_output_file
    from training.reference import describe_encoder

    if out.suffix != ".npz":
        raise InvalidRequestError("out", f"{out}: name a file that ends in .npz")
    check_output_file(out)
    described = describe_encoder(encoder)
    entries = list(read_source(source))
    with progress_bar("embedding", "img") as progress:
        progress.started(len(entries))
        report = embed_source(entries, described, out, advance=progress.advance, processes=processes, device=device)
    for problem in report.rejected[:20]:
        note(f"{problem.where}: {problem.reason}")
    document = {
        "out": str(out),
        "images": report.images,
        "dim": described.dim,
        "encoder_id": described.encoder_id,
        "rejected": [asdict(problem) for problem in report.rejected],
    }
    say(document, json_output, f"{out}: {report.images} vectors of {described.dim}, {len(report.rejected)} rejected")


def evaluate(
    gallery: Annotated[Path, typer.Option(help="SOURCE that is searched.")],
    queries: Annotated[Path, typer.Option(help="SOURCE of the query photos.")],
    relevance: Annotated[str, typer.Option(help="category, item_id, attribute:NAME or a .qrels file.")] = "category",
    encoder: Annotated[list[str] | None, typer.Option(help="Encoder directory or name; repeatable.")] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="[REF...]", help="More encoders.")] = None,
    report: Annotated[Path | None, typer.Option(help="HTML report to write.")] = None,
    baselines: Annotated[bool, typer.Option(help="Set pixels, pca and hog beside them.")] = True,
    place: Annotated[
        bool, typer.Option("--place", help="Also search for the queries' items by scale and place.")
    ] = False,
    rerank: Annotated[Rerank, typer.Option(help="Also evaluate every encoder with this second stage.")] = "none",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap and of the order of ties.")] = 0,
    json_output: JsonOption = False,
) -> None:
    """Measure retrieval quality offline, with 95 % intervals, beside simple baselines."""
    from indexer.evaluate.retrieval import evaluate_retrieval
    from training.data.sources import read_images
    from training.files import check_output_file

    if report is not None:
        check_output_file(report)
    refs = [*(encoder or []), *(more or [])] or ["default"]
    gallery_images, gallery_problems = read_images(gallery)
    query_images, query_problems = read_images(queries)
    for problem in [*gallery_problems, *query_problems][:20]:
        note(f"{problem.where}: {problem.reason}")
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


def pictures(
    encoder: Annotated[str, typer.Option(help="Encoder directory or name.")],
    out: Annotated[Path, typer.Option(help="Folder for the PNG files.")],
    data: Annotated[Path | None, typer.Option(help="SOURCE of photos; drawn ones by default.")] = None,
    images: Annotated[int, typer.Option(min=2, max=10_000, help="How many photos to take, by chance.")] = 500,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of that choice and of the samples.")] = 0,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Draw what an encoder has learnt: reconstructions, samples, latents, codes and neighbours."""
    from indexer.evaluate.images import choose_images
    from training.files import check_output_folder
    from training.reference import describe_encoder

    check_output_folder(out)
    described = describe_encoder(encoder)
    with progress_bar("reading", "img") as progress:
        chosen = choose_images(data, described.preprocessing, images, seed, progress)
    for problem in chosen.rejected[:20]:
        note(f"{problem.where}: {problem.reason}")
    if len(chosen.pixels) < 2:
        raise InvalidRequestError("data", f"{data}: has {len(chosen.pixels)} photos that can be read; give 2 or more")
    import torch

    from training.encoder import load_encoder
    from training.gallery import write_gallery

    gallery = write_gallery(load_encoder(encoder, device), torch.from_numpy(chosen.pixels), out, seed=seed)
    for name, reason in gallery.skipped.items():
        note(f"no {name}: {reason}")
    document = {
        "encoder_id": described.encoder_id,
        "images": len(chosen.pixels),
        "written": {name: str(path) for name, path in gallery.written.items()},
        "skipped": gallery.skipped,
    }
    say(document, json_output, "\n".join(str(path) for path in gallery.written.values()))


def collections(home: HomeOption = DEFAULT_HOME, json_output: JsonOption = False) -> None:
    """List collections, with what they hold."""
    from indexer.catalogue.home import Home

    with Home.open(home) as opened:
        records = opened.catalogue.collections.all()
    lines = [
        f"{r.name}\t{r.items} items\t{r.images} images\t{r.rejected} rejected\tgeneration {r.generation or 'none'}"
        for r in records
    ]
    say({"collections": [asdict(r) for r in records]}, json_output, "\n".join(lines) or "no collections")


@generations.command("list")
def generations_list(
    collection: Annotated[str | None, typer.Option("--collection", "-c", help="One collection only.")] = None,
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """List generations; one per collection is active."""
    from indexer.catalogue.home import Home

    with Home.open(home) as opened:
        records = opened.catalogue.generations.all(collection)
    lines = [
        f"{r.collection}\t{r.number}\t{r.status}\t{r.count} vectors\t{r.factory}\tencoder {r.encoder_id[:12]}\t"
        f"recall@10 {r.recall_at_10:.3f}"
        for r in records
    ]
    say({"generations": [asdict(r) for r in records]}, json_output, "\n".join(lines) or "no generations")


@generations.command("verify")
def generations_verify(
    number: Annotated[int | None, typer.Argument(help="One generation; all that are kept by default.")] = None,
    collection: CollectionOption = "default",
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Check files, checksums, encoder and catalogue against each other; exit 1 when something is wrong."""
    from indexer.catalogue.home import Home
    from indexer.generations.store import verify

    with Home.open(home) as opened:
        kept = [r.number for r in opened.catalogue.generations.all(collection) if r.status != "removed"]
        found = {n: verify(opened, collection, n) for n in (kept if number is None else [number])}
    lines = [f"generation {n}: {'; '.join(problems) or 'whole'}" for n, problems in found.items()]
    say({"verified": {str(n): problems for n, problems in found.items()}}, json_output, "\n".join(lines) or "none")
    broken = [str(n) for n, problems in found.items() if problems]
    if broken:
        raise CorruptError(
            f"generation {', '.join(broken)} of {collection!r} does not verify; activate another one, or index again"
        )


@generations.command("activate")
def generations_activate(
    number: Annotated[int, typer.Argument(help="The generation to put into service.")],
    collection: CollectionOption = "default",
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Put a kept generation into service, once it verifies."""
    from indexer.catalogue.home import Home
    from indexer.ingest.promotion import activate

    with Home.open(home) as opened:
        record = activate(opened, collection, number)
        _note_newer(opened, record)
    say({"activated": asdict(record)}, json_output, f"{collection!r} now serves generation {number}")


@generations.command("rollback")
def generations_rollback(
    collection: CollectionOption = "default", home: HomeOption = DEFAULT_HOME, json_output: JsonOption = False
) -> None:
    """Put the generation before the present one back into service."""
    from indexer.catalogue.home import Home
    from indexer.ingest.promotion import rollback

    with Home.open(home) as opened:
        record = rollback(opened, collection)
        _note_newer(opened, record)
    say({"activated": asdict(record)}, json_output, f"{collection!r} now serves generation {record.number}")


def _note_newer(home: Home, record: GenerationRecord) -> None:
    """Say so where a source was indexed after a generation: what it brought is not in there."""
    collection_id = home.catalogue.collection_id(record.collection)
    if missing := home.catalogue.changes.items_indexed_since(collection_id, record.watermark):
        note(
            f"{missing} items that were indexed after generation {record.number} was built are not in it; "
            "`nitamono index SOURCE` brings them back"
        )


@rejects.command("list")
def rejects_list(
    collection: CollectionOption = "default", home: HomeOption = DEFAULT_HOME, json_output: JsonOption = False
) -> None:
    """List the images and source rows that were set aside, with the reason."""
    from indexer.catalogue.home import Home

    with Home.open(home) as opened:
        records = opened.catalogue.rejects.all(collection)
    lines = [f"{r.place}\t{r.item_id or '-'}\t{r.reason}" for r in records]
    say({"rejects": [asdict(r) for r in records]}, json_output, "\n".join(lines) or "nothing was set aside")


def _place(region: Region) -> str:
    return ",".join(f"{value:.3f}" for value in (region.x, region.y, region.width, region.height))


def _likely(probability: float | None) -> str:
    return "-" if probability is None else f"{probability:.0%}"


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise NitamonoError(f"{path}: cannot be read ({exc.strerror})") from exc
