"""`nitamono encoders`: `list`, `show`, `compare`, `import`, `fuse` and `item-first`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from indexer.options import DEFAULT_HOME, DeviceOption, HomeOption
from training.commands.group import command_group
from training.console import JsonOption, note_unusable, progress_bar, say
from training.errors import EncoderError

if TYPE_CHECKING:
    from indexer.encoders.fusion_weights import Choice

encoders = command_group("List, show, compare, import and combine encoders.")
CARD_PARTS = ("source", "data", "recipe", "run", "figures")
REF_HELP = "Encoder directory, name, or the first six or more characters of an id."


@encoders.command("list")
def encoders_list(home: HomeOption = DEFAULT_HOME, json_output: JsonOption = False) -> None:
    """List the shipped encoders and those of this home.

    Each line shows id, name, family, dimensions, metric, what the encoder was trained from, and where it is.

    \b
    Example:
      nitamono encoders list
    """
    from indexer.encoders.details import list_encoders

    listed = list_encoders(home)
    lines = [
        f"{e.encoder_id[:12]}\t{e.name}{f' ({e.role})' if e.role else ''}\t{e.family}\t{e.dim}\t{e.metric}\t"
        f"{e.trained_from}\t{'shipped' if e.shipped else e.ref}"
        for e in listed
    ]
    say({"encoders": [asdict(e) for e in listed]}, json_output, "\n".join(lines))


@encoders.command("show")
def encoders_show(
    ref: Annotated[str, typer.Argument(metavar="REF", help=REF_HELP)],
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Show an encoder's settings, sizes and figures.

    Includes the description, data and recipe from the encoder's card.

    \b
    Example:
      nitamono encoders show default
    """
    from indexer.encoders.details import details, find_encoder, flat

    described = find_encoder(ref, home)
    document = details(described)
    card = document["card"]
    lines = [f"{card.get('name', described.family)}: {card.get('description', 'no description')}"]
    parts = {
        "": {name: document[name] for name in ("encoder_id", "directory", "family", "dim", "metric", "trained_from")},
        "sizes": document["sizes"],
        "config": document["config"],
        "preprocessing": document["preprocessing"],
        **{name: card[name] for name in CARD_PARTS if isinstance(card.get(name), dict)},
    }
    for title, values in parts.items():
        lines += [title] * bool(title) + [f"  {name:<28s} {_text(value)}" for name, value in flat(values)]
    say(document, json_output, "\n".join(lines))


@encoders.command("compare")
def encoders_compare(
    refs: Annotated[list[str], typer.Argument(metavar="REF", help=REF_HELP)],
    home: HomeOption = DEFAULT_HOME,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Compare encoders side by side, including speed.

    Shows settings, sizes, figures of the cards, and images per second on this machine (prepared pixels to vectors).

    \b
    Example:
      nitamono encoders compare default ENCODER
    """
    from indexer.encoders.details import comparison, find_encoder, throughput

    if len(set(refs)) < 2:
        raise typer.BadParameter("give at least two different encoders")
    described = {ref: find_encoder(ref, home) for ref in refs}
    rows = comparison(described, {ref: throughput(d, device) for ref, d in described.items()})
    say({"encoders": list(described), "rows": rows}, json_output, _table(list(described), rows))


@encoders.command("import")
def encoders_import(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.onnx", help="ONNX graph from images (B, C, H, W) float32 to vectors.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory of the new encoder.")],
    size: Annotated[int | None, typer.Option(help="Image width and height, if the graph accepts any size.")] = None,
    mean: Annotated[
        str, typer.Option(help="Mean of pixel values in [0, 1]: one number, or one per channel such as .485,.456,.406.")
    ] = "0",
    std: Annotated[str, typer.Option(help="Standard deviation of pixel values: one number, or one per channel.")] = "1",
    metric: Annotated[
        str, typer.Option(help="Metric of the vectors: cosine, or l2 for Euclidean distance.")
    ] = "cosine",
    output: Annotated[str | None, typer.Option(help="Name of the output to use, if the graph has several.")] = None,
    pool: Annotated[
        str, typer.Option(help="Pooling of an output of tokens or a feature map: none, cls or mean.")
    ] = "none",
    fit: Annotated[str, typer.Option(help="How to make photos square: stretch, pad or crop.")] = "stretch",
    channels: Annotated[
        int | None, typer.Option(help="Number of channels, 3 or 1, if the graph accepts any number.")
    ] = None,
    trained_from: Annotated[
        str | None, typer.Option(help="What the network was trained from, such as ImageNet labels.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Import an ONNX graph as an encoder.

    No code from the file is run. An unsupported graph is refused before anything is written.

    \b
    Example:
      nitamono encoders import model.onnx --out encoders/model --mean .485,.456,.406 --std .229,.224,.225
    """
    from training.onnx.importing import ImportRequest, import_onnx

    request = ImportRequest(
        size=size, channels=channels, mean=_numbers("mean", mean), std=_numbers("std", std), output=output,
        pool=cast(Any, pool), metric=cast(Any, metric), fit=cast(Any, fit), trained_from=trained_from, licence=licence,
    )  # fmt: skip
    d = import_onnx(file, out, request)
    document = {
        "encoder": str(out), "encoder_id": d.encoder_id, "family": d.family, "dim": d.dim, "card": d.card,
    }  # fmt: skip
    say(document, json_output, f"{out}: {d.family}, {d.dim} dimensions, id {d.encoder_id[:12]}")


@encoders.command("fuse")
def encoders_fuse(
    refs: Annotated[list[str], typer.Argument(metavar="REF", help=REF_HELP)],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory of the new encoder.")],
    weights: Annotated[str | None, typer.Option(help="Comma-separated weights of the encoders, such as .3,.7.")] = None,
    choose_on: Annotated[
        Path | None, typer.Option(metavar="SOURCE", help="SOURCE of photos to choose the weights on, by MAP@R.")
    ] = None,
    relevance: Annotated[
        str, typer.Option(help="What makes photos relevant to each other: item_id, category or attribute:NAME.")
    ] = "item_id",
    items: Annotated[
        int, typer.Option(min=8, max=5000, help="Maximum number of items of SOURCE, chosen at random.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed.")] = 0,
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Combine encoders by a weighted mean of cosines.

    Give the weights, or choose them on half of the items of a source; figures are then reported on the other half.

    \b
    Examples:
      nitamono encoders fuse default ENCODER --out fused --weights .3,.7
      nitamono encoders fuse default ENCODER --out fused --choose-on photos
    """
    from indexer.encoders.details import find_encoder
    from training.onnx.importing import check_encoder_directory

    if len(refs) < 2 or (weights is None) == (choose_on is None):
        raise typer.BadParameter("give at least two encoders, and either --weights or --choose-on SOURCE")
    check_encoder_directory(out)
    directories = [find_encoder(ref, home).directory for ref in refs]
    from training.fusing import fuse, save_fusion

    shares: tuple[float, ...] = _numbers("weights", weights) if weights is not None else ()
    choice = None
    if choose_on is not None:
        choice = _choose(directories, refs, choose_on, relevance, items, seed)
        shares = choice.weights
    fusion = fuse(directories, shares)
    if choice is not None:
        fusion.card["figures"] = choice.to_json()
    d = save_fusion(fusion, out)
    document = {
        "encoder": str(out), "encoder_id": d.encoder_id, "family": d.family, "dim": d.dim,
        "weights": d.config["weights"], "choice": None if choice is None else choice.to_json(), "card": d.card,
    }  # fmt: skip
    parts = ", ".join(f"{ref} {weight:g}" for ref, weight in zip(refs, d.config["weights"], strict=True))
    lines = [f"{out}: {d.family} of {parts}; {d.dim} dimensions, id {d.encoder_id[:12]}"]
    say(document, json_output, "\n".join(lines + ([] if choice is None else [choice.to_text()])))


def _choose(directories: list[Path], refs: list[str], source: Path, relevance: str, items: int, seed: int) -> Choice:
    from indexer.encoders.fusion_weights import choose_weights, read_items
    from training.fusing import fuse

    fusion = fuse(directories)
    with progress_bar("reading", "img") as progress:
        images = read_items(source, fusion.preprocessing, items, seed, progress)
    note_unusable(images.rejected)
    return choose_weights(fusion, refs, images, relevance, seed=seed)


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as exc:
        raise EncoderError(f"--{name} {text!r}: expected comma-separated numbers such as .485,.456,.406") from exc


def _table(refs: list[str], rows: Mapping[str, Mapping[str, Any]]) -> str:
    cells = [["", *refs], *([name, *(_text(row[ref]) for ref in refs)] for name, row in rows.items())]
    widths = [max(len(row[column]) for row in cells) for column in range(len(refs) + 1)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10_000:
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1 else str(value)


@encoders.command("item-first")
def encoders_item_first(
    ref: Annotated[str, typer.Argument(metavar="REF", help=REF_HELP)],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory of the new encoder.")],
    finder: Annotated[Path | None, typer.Option(help="Finder directory; omit to use the shipped finder.")] = None,
    size: Annotated[int, typer.Option(help="Width and height of the images that items are cut out of.")] = 192,
    fit: Annotated[
        str | None, typer.Option(help="How to make photos square: stretch, pad or crop; omit to keep the encoder's.")
    ] = None,
    passes: Annotated[
        int, typer.Option(min=1, max=2, help="Number of finder passes; a second pass runs on the cut-out.")
    ] = 1,
    paint: Annotated[float, typer.Option(help="How white to paint the background, 0 to 1; 0 only crops.")] = 1.0,
    spare_plain: Annotated[bool, typer.Option(help="Keep a background of a single colour.")] = False,
    beside: Annotated[
        float,
        typer.Option(
            help="Weight of the whole photo's vector, added to the item's; above 0, encoding takes twice as long."
        ),
    ] = 0.0,
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Put the item finder in front of an encoder.

    The new encoder finds the item in a photo, cuts it out with a margin, paints the background white as far as the
    finder is confident, and encodes the result with REF. Search results then say which region was used.

    \b
    Example:
      nitamono encoders item-first default --out encoders/item-first
    """
    from indexer.encoders.details import find_encoder
    from training.encoder import load_encoder
    from training.finder.store import load_finder
    from training.item_first import write_item_first
    from training.preprocessing import check_fit

    if (out / "encoder.json").exists():
        raise EncoderError(f"{out} already holds an encoder; choose another --out")
    inner = load_encoder(find_encoder(ref, home).directory)
    try:
        chosen = None if fit is None else check_fit(fit)
        settings = {"size": size, "passes": passes, "paint": paint, "spare_plain": spare_plain, "beside": beside}
        write_item_first(inner, load_finder(finder), out, fit=chosen, **settings)
    except ValueError as exc:
        raise EncoderError(f"{ref}: {exc}") from exc
    written = load_encoder(out)
    document = {"encoder": str(out), "encoder_id": written.encoder_id, "family": written.family, "dim": written.dim}
    say(document, json_output, f"{out}: {written.family}, {written.dim} dimensions, id {written.encoder_id[:12]}")
