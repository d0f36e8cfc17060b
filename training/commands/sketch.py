"""`nitamono sketch`: what encoders of drawings do beside searching."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training.commands.group import command_group
from training.commands.options import DeviceOption, EncoderOption, SeedOption, TemperatureOption
from training.console import JsonOption, note_unusable, progress_bar, say
from training.errors import DrawingError, SourceError

if TYPE_CHECKING:
    from training.sketches.encoder import SketchEncoder
    from training.sketches.reading import SourceDrawing
    from training.sketches.sheets import Cell

sketch = command_group("Draw, complete and evaluate with encoders of drawings.")

ACROSS = 10  # drawings of a row
OF_EVALUATION = ("test",)  # part of an `.npz` file that the commands read, if there is one

SourceArgument = Annotated[
    Path, typer.Argument(metavar="SOURCE", help="Drawings: .npz, .ndjson or .svg file, or a folder of them.")
]
OutOption = Annotated[Path, typer.Option(help="SVG or PNG file to write.")]
DrawingsOption = Annotated[int, typer.Option(min=1, max=256, help="Maximum number of drawings.")]


@sketch.command()
def sample(
    encoder: EncoderOption,
    out: OutOption,
    count: Annotated[int, typer.Option(min=1, max=64, help="Drawings per temperature.")] = 10,
    temperature: Annotated[
        list[float] | None,
        typer.Option(min=0, help="Sampling temperature, one row each; repeatable. Default: 0.1, 0.5 and 1."),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Sample drawings from a model, a row per temperature.

    \b
    Example:
      nitamono sketch sample --encoder ENCODER --out samples.svg --temperature 0.3 --temperature 0.8
    """
    from training.sketches.sheets import Cell

    loaded = _load(encoder, out, device)
    rows = []
    for value in temperature or [0.1, 0.5, 1.0]:
        drawn = loaded.sample(count, temperature=value, seed=seed)
        rows.append([Cell(each.strokes, f"T {value:g}" if not place else "") for place, each in enumerate(drawn)])
    _write(rows, loaded, out, json_output, f"{len(rows) * count} drawings", count=count)


@sketch.command()
def reconstruct(
    source: SourceArgument,
    encoder: EncoderOption,
    out: OutOption,
    drawings: DrawingsOption = 10,
    temperature: TemperatureOption = 0.1,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Show drawings above the model's redrawings of them.

    \b
    Example:
      nitamono sketch reconstruct drawings.ndjson --encoder ENCODER --out redrawn.svg
    """
    from training.sketches.sheets import Cell

    loaded = _load(encoder, out, device)
    found = _read(loaded, source, drawings)
    again = loaded.reconstruct([each.strokes for each in found], temperature=temperature, seed=seed)
    given, redrawn = ([Cell(each.strokes) for each in side] for side in (found, again))
    rows = [side[first : first + ACROSS] for first in range(0, len(found), ACROSS) for side in (given, redrawn)]
    _write(rows, loaded, out, json_output, f"{len(found)} drawings", drawings=[each.item_id for each in found])


@sketch.command()
def interpolate(
    source: SourceArgument,
    encoder: EncoderOption,
    out: OutOption,
    pairs: Annotated[int, typer.Option(min=1, max=64, help="Maximum number of pairs of consecutive drawings.")] = 4,
    steps: Annotated[int, typer.Option(min=2, max=32, help="Drawings of each row, with both ends.")] = 8,
    temperature: TemperatureOption = 0.1,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Draw what lies between pairs of drawings.

    Latents are interpolated along the arc from one drawing's to the other's.

    \b
    Example:
      nitamono sketch interpolate drawings.ndjson --encoder ENCODER --out between.svg --pairs 2
    """
    from training.sketches.encoder import slerp
    from training.sketches.sheets import Cell

    loaded = _load(encoder, out, device)
    found = _read(loaded, source, 2 * pairs)
    if len(found) < 2:
        raise SourceError(f"{source}: interpolation needs at least 2 drawings, found {len(found)}")
    latents = loaded.latents([each.strokes for each in found])
    rows = []
    for first in range(0, len(found) - 1, 2):
        between = loaded.decode(slerp(latents[first], latents[first + 1], steps), temperature=temperature, seed=seed)
        ends = [Cell(each.strokes, "drawing") for each in found[first : first + 2]]
        rows.append([ends[0], *(Cell(each.strokes) for each in between), ends[1]])
    _write(rows, loaded, out, json_output, f"{len(rows)} pairs", drawings=[each.item_id for each in found])


@sketch.command()
def arithmetic(
    first: Annotated[Path, typer.Argument(metavar="A", help="Drawing (.svg) to start from.")],
    minus: Annotated[Path, typer.Argument(metavar="B", help="Drawing to subtract.")],
    plus: Annotated[Path, typer.Argument(metavar="C", help="Drawing to add.")],
    encoder: EncoderOption,
    out: OutOption,
    variants: Annotated[int, typer.Option(min=1, max=32, help="Drawings of the result.")] = 4,
    temperature: TemperatureOption = 0.1,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Draw the latent of A minus that of B plus that of C.

    Each of them is the first drawing of its file.

    \b
    Example:
      nitamono sketch arithmetic cat-head.svg head.svg body.svg --encoder ENCODER --out sum.svg
    """
    from training.sketches.sheets import Cell

    loaded = _load(encoder, out, device)
    found = [_read(loaded, path, 1)[0] for path in (first, minus, plus)]
    a, b, c = loaded.latents([each.strokes for each in found])
    drawn = loaded.decode((a - b + c).expand(variants, -1), temperature=temperature, seed=seed)
    given = [Cell(each.strokes, sign) for each, sign in zip(found, ("A", "- B", "+ C"), strict=True)]
    row = [*given, *(Cell(each.strokes, "=" if not place else "") for place, each in enumerate(drawn))]
    _write([row], loaded, out, json_output, f"{variants} drawings", drawings=[each.item_id for each in found])


@sketch.command()
def complete(
    source: SourceArgument,
    encoder: EncoderOption,
    out: OutOption,
    keep: Annotated[
        float,
        typer.Option(min=0, max=1, help="Fraction of the points to keep; 1 continues unfinished drawings."),
    ] = 0.5,
    variants: Annotated[int, typer.Option(min=1, max=32, help="Completions per drawing.")] = 4,
    drawings: DrawingsOption = 8,
    temperature: TemperatureOption = 0.5,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Keep the beginnings of drawings and let a model finish them.

    \b
    Example:
      nitamono sketch complete drawings.ndjson --encoder ENCODER --out completions.svg --keep 0.3
    """
    from training.sketches.preparing import SIDE
    from training.sketches.sheets import Cell
    from training.sketches.strokes import beginning, extent

    loaded = _load(encoder, out, device)
    found = _read(loaded, source, drawings)
    rows = []
    for each in found:
        kept, box = beginning(each.strokes, keep), extent(each.strokes)
        drawn = loaded.complete(kept, box=box, variants=variants, temperature=temperature, seed=seed)
        row = [Cell(each.strokes, "drawing"), Cell(kept, "kept", box)]
        rows.append([*row, *(Cell(one.strokes, "finished", SIDE) for one in drawn)])
    _write(rows, loaded, out, json_output, f"{len(rows)} drawings", drawings=[each.item_id for each in found])


@sketch.command()
def evaluate(
    source: SourceArgument,
    encoder: EncoderOption,
    k: Annotated[int, typer.Option(min=1, max=100, help="Nearest drawings to count.")] = 10,
    drawings: Annotated[int, typer.Option(min=2, max=20_000, help="Maximum number of drawings.")] = 5_000,
    samples: Annotated[int, typer.Option(min=1, max=10_000, help="Samples to compare lengths with.")] = 1_000,
    temperature: TemperatureOption = 1.0,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Evaluate an encoder on drawings it was not trained on.

    Reports the bound in nats per drawing, the lengths of drawings and of samples, the share of drawings that find
    themselves first with their strokes in another order or direction, and, if the drawings have categories, the
    precision among the k nearest of each one, beside that of their pixels.

    \b
    Example:
      nitamono sketch evaluate test.ndjson --encoder ENCODER
    """
    from training.sketches.evaluation import evaluate_sketches

    loaded = _load(encoder, None, device)
    found = _read(loaded, source, drawings)
    report = evaluate_sketches(loaded, found, k=k, samples=samples, temperature=temperature, seed=seed)
    say({"encoder_id": loaded.encoder_id, **report}, json_output, "\n".join(_lines(report, k)))


@sketch.command()
def export(
    source: SourceArgument,
    out: Annotated[Path, typer.Option(help="New or empty folder for the SVG files and drawings.csv.")],
    part: Annotated[
        list[str] | None, typer.Option(help="Part of an .npz file, such as test; repeatable. Default: all of them.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Maximum number of drawings.")] = None,
    json_output: JsonOption = False,
) -> None:
    """Write drawings as SVG files that can be indexed.

    Index them with `nitamono index OUT/drawings.csv --encoder ENCODER`; then the page has a sheet to draw on.

    \b
    Example:
      nitamono sketch export drawings.ndjson --out shapes --limit 1000
    """
    from training.sketches.exporting import write_drawings
    from training.sketches.reading import read_drawings

    read, problems = read_drawings(source, parts=part)
    note_unusable(problems)
    chosen = read[:limit]
    if not chosen:
        raise SourceError(f"{source}: has no drawing that can be read")
    with progress_bar("writing", "drawing") as progress:
        progress.started(len(chosen))
        manifest = write_drawings(chosen, out, advance=progress.advance)
    document = {"manifest": str(manifest), "drawings": len(chosen), "rejected": len(problems)}
    say(document, json_output, f"{manifest}: {len(chosen)} drawings, {len(problems)} rejected")


def _lines(report: dict[str, Any], k: int) -> list[str]:
    found = [f"{report['drawings']} drawings, {report['nats']:.2f} nats per drawing"]
    for name in ("data", "samples"):
        lengths = report["lengths"][name]
        found.append(
            f"{name}: {lengths['ended']:.1%} end, points {lengths['mean']:.1f} "
            f"(5 % {lengths['p05']:.0f}, median {lengths['median']:.0f}, 95 % {lengths['p95']:.0f})"
        )
    shares = report["same_ink"]
    found.append(
        f"found first with strokes in another order: {shares['order']:.1%}, direction: {shares['direction']:.1%}"
    )
    if report["retrieval"] is None:
        return [*found, "no category has two drawings: retrieval is not evaluated"]
    for name, value in report["retrieval"].items():
        if name != "chance":
            found.append(f"precision@{k} {name}: {value['precision']:.3f} [{value['low']:.3f}, {value['high']:.3f}]")
    return [*found, f"precision@{k} by chance: {report['retrieval']['chance']:.3f}"]


def _load(encoder: str, out: Path | None, device: str) -> SketchEncoder:
    from training.sketches.encoder import load_sketch_encoder
    from training.sketches.sheets import check_sheet

    if out is not None:
        check_sheet(out)
    return load_sketch_encoder(encoder, device)


def _read(encoder: SketchEncoder, source: Path, limit: int) -> list[SourceDrawing]:
    """At most `limit` drawings that the encoder can take; the others are noted on stderr."""
    from training.data.entries import SourceProblem
    from training.sketches.reading import read_drawings

    read, problems = read_drawings(source, parts=OF_EVALUATION)
    found: list[SourceDrawing] = []
    for each in read:
        if len(found) == limit:
            break
        try:
            encoder.preprocessing.simplified(each.strokes)
            found.append(each)
        except DrawingError as exc:
            problems.append(SourceProblem(each.where, str(exc)))
    note_unusable(problems)
    if not found:
        raise SourceError(f"{source}: has no drawing that this encoder can take")
    return found


def _write(
    rows: list[list[Cell]], encoder: SketchEncoder, out: Path, json_output: bool, what: str, **fields: Any
) -> None:
    from training.sketches.sheets import write_sheet

    write_sheet(rows, out)
    say({"encoder_id": encoder.encoder_id, "file": str(out), **fields}, json_output, f"{out}: {what}")
