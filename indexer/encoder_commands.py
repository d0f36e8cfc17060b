"""`nitamono encoders`: list, show and compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from indexer.options import DEFAULT_HOME, DeviceOption, HomeOption
from training.console import JsonOption, say

encoders = typer.Typer(no_args_is_help=True, help="Encoders: what there is, what each is, how they compare.")
REF_HELP = "Encoder directory, name, or the first characters of an id."


@encoders.command("list")
def encoders_list(home: HomeOption = DEFAULT_HOME, json_output: JsonOption = False) -> None:
    """List the shipped encoders and those that this home uses."""
    from indexer.encoders import list_encoders

    listed = list_encoders(home)
    lines = [
        f"{e.encoder_id[:12]}\t{e.name}{' (default)' if e.default else ''}\t{e.family}\t{e.dim}\t{e.metric}\t"
        f"{'shipped' if e.shipped else e.ref}"
        for e in listed
    ]
    say({"encoders": [asdict(e) for e in listed]}, json_output, "\n".join(lines))


@encoders.command("show")
def encoders_show(
    ref: Annotated[str, typer.Argument(help=REF_HELP)],
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Show what an encoder is: description, sizes, settings, data, recipe and figures."""
    from indexer.encoders import details, find_encoder, flat

    described = find_encoder(ref, home)
    document = details(described)
    card = document["card"]
    lines = [f"{card.get('name', described.family)}: {card.get('description', 'no description')}"]
    parts = {
        "": {name: document[name] for name in ("encoder_id", "directory", "family", "dim", "metric")},
        "sizes": document["sizes"],
        "config": document["config"],
        "preprocessing": document["preprocessing"],
        **{name: card[name] for name in ("data", "recipe", "run", "figures") if isinstance(card.get(name), dict)},
    }
    for title, values in parts.items():
        lines += [title] * bool(title) + [f"  {name:<28s} {_text(value)}" for name, value in flat(values)]
    say(document, json_output, "\n".join(lines))


@encoders.command("compare")
def encoders_compare(
    refs: Annotated[list[str], typer.Argument(metavar="REF REF...", help=REF_HELP)],
    home: HomeOption = DEFAULT_HOME,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Set encoders side by side: settings, sizes, figures, and images a second on this machine."""
    from indexer.encoders import comparison, find_encoder, throughput

    if len(set(refs)) < 2:
        raise typer.BadParameter("give two encoders or more")
    described = {ref: find_encoder(ref, home) for ref in refs}
    rows = comparison(described, {ref: throughput(d, device) for ref, d in described.items()})
    say({"encoders": list(described), "rows": rows}, json_output, _table(list(described), rows))


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
    ref: Annotated[str, typer.Argument(help=REF_HELP)],
    out: Annotated[Path, typer.Option(help="Directory of the new encoder.")],
    finder: Annotated[Path | None, typer.Option(help="Finder directory; the shipped finder without it.")] = None,
    size: Annotated[int, typer.Option(help="Side of the pictures that items are cut out of.")] = 192,
    fit: Annotated[str | None, typer.Option(help="stretch, pad or crop; as the encoder has it without it.")] = None,
    passes: Annotated[int, typer.Option(min=1, max=2, help="Times that the finder looks.")] = 1,
    home: HomeOption = DEFAULT_HOME,
    json_output: JsonOption = False,
) -> None:
    """Put the item finder before an encoder, so that it sees the item and not what is around it."""
    from indexer.encoders import find_encoder
    from training.encoder import load_encoder
    from training.errors import EncoderError
    from training.finder.store import load_finder
    from training.item_first import write_item_first
    from training.preprocessing import check_fit

    if (out / "encoder.json").exists():
        raise EncoderError(f"{out} holds an encoder already; choose another --out")
    inner = load_encoder(find_encoder(ref, home).directory)
    try:
        chosen = None if fit is None else check_fit(fit)
        write_item_first(inner, load_finder(finder), out, size=size, fit=chosen, passes=passes)
    except ValueError as exc:
        raise EncoderError(f"{ref}: {exc}") from exc
    written = load_encoder(out)
    document = {"encoder": str(out), "encoder_id": written.encoder_id, "family": written.family, "dim": written.dim}
    say(document, json_output, f"{out}: {written.family}, {written.dim} numbers, id {written.encoder_id[:12]}")
