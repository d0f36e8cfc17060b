"""Commands that ask a model what it takes images for: `sample`, `complete` and `likelihood`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training.console import JsonOption, note, progress_bar, say
from training.errors import EncoderError

if TYPE_CHECKING:
    from training.encoder import Encoder

EncoderOption = Annotated[str, typer.Option(help="Encoder directory or name.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
SeedOption = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Equal seeds draw equal images.")]
TemperatureOption = Annotated[float, typer.Option(min=0, help="Below 1 for likelier images.")]
AT_ONCE = 64


def register(app: typer.Typer) -> None:
    for command in (sample, complete, likelihood):
        app.command()(command)


def sample(
    encoder: EncoderOption,
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    count: Annotated[int, typer.Option(min=1, max=1024, help="How many images.")] = 64,
    temperature: TemperatureOption = 1.0,
    label: Annotated[str | None, typer.Option(help="Label of all of them, by name or number.")] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Draw images from a model, as one sheet."""
    from training.encoder import load_encoder
    from training.files import publish_file
    from training.fitting.pictures import encode_png, tile

    loaded = load_encoder(encoder, device)
    started = time.monotonic()
    drawn = loaded.sample(count, seed=seed, temperature=temperature, label=_label_number(loaded, label))
    seconds = time.monotonic() - started
    publish_file(out, encode_png(tile(drawn, min(count, 16))))
    document = {"encoder_id": loaded.encoder_id, "file": str(out), "count": count, "seconds": round(seconds, 3)}
    say(document, json_output, f"{out}: {count} images in {seconds:.1f} s")


def complete(
    source: Annotated[Path, typer.Argument(help="Image file, folder or manifest.")],
    encoder: EncoderOption,
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    keep: Annotated[float, typer.Option(min=0, max=1, help="Share of the rows that is kept, from the top.")] = 0.5,
    variants: Annotated[int, typer.Option(min=1, max=32, help="Completions of each image.")] = 4,
    images: Annotated[int, typer.Option(min=1, max=256, help="How many images to take at most.")] = 8,
    temperature: TemperatureOption = 1.0,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Hide the lower part of images and let a model draw it; rows show an image, what was kept, and completions."""
    from training.encoder import load_encoder
    from training.files import publish_file
    from training.fitting.pictures import encode_png
    from training.gallery import completion_rows, draw_sheet

    loaded = load_encoder(encoder, device)
    found = _read(loaded, source, images)
    rows = completion_rows(loaded, found.pixels, keep=keep, variants=variants, temperature=temperature, seed=seed)
    publish_file(out, encode_png(draw_sheet(rows)))
    document = {
        "encoder_id": loaded.encoder_id,
        "file": str(out),
        "images": found.item_ids,
        "rejected": found.rejected,
    }
    say(document, json_output, f"{out}: {len(found.item_ids)} images, {variants} completions of each")


def likelihood(
    source: Annotated[Path, typer.Argument(help="Image file, folder or manifest.")],
    encoder: EncoderOption,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """How likely a model finds images: nats and bits per value of each, exact or a lower bound."""
    import math

    import torch

    from training.encoder import load_encoder

    loaded = load_encoder(encoder, device)
    found = _read(loaded, source, None)
    with progress_bar("judging", "img") as progress:
        progress.started(len(found.pixels))
        nats, exact = [], True
        for part in found.pixels.split(AT_ONCE):
            judged = loaded.log_likelihood(part)
            exact = judged.exact
            nats.append(judged.nats)
            progress.advance(len(part))
    each = torch.cat(nats).double()
    bits = -each / (found.pixels[0].numel() * math.log(2.0))
    rows = [
        {"item_id": item_id, "nats": nat, "bits_per_dim": bit}
        for item_id, nat, bit in zip(found.item_ids, each.tolist(), bits.tolist(), strict=True)
    ]
    document = {
        "encoder_id": loaded.encoder_id,
        "exact": exact,
        "count": len(rows),
        "nats": float(each.mean()),
        "bits_per_dim": float(bits.mean()),
        "images": rows,
        "rejected": found.rejected,
    }
    kind = "exact" if exact else "at least (a lower bound)"
    lines = [f"{row['item_id']}\t{row['nats']:.2f}\t{row['bits_per_dim']:.4f}" for row in rows]
    mean = f"mean of {len(rows)}: {document['nats']:.2f} nats, {document['bits_per_dim']:.4f} bits per value, {kind}"
    say(document, json_output, "\n".join([*lines, mean]))


class _Found:
    """Images ready for an encoder `(N, C, S, S)` uint8, their item ids, and what could not be read."""

    def __init__(self, pixels: Any, item_ids: list[str], rejected: list[dict[str, str]]) -> None:
        self.pixels = pixels
        self.item_ids = item_ids
        self.rejected = rejected


def _read(encoder: Encoder, source: Path, limit: int | None) -> _Found:
    """The images of a source, or one file; those that cannot be read are noted."""
    import torch

    from training.data.dataset import load_dataset
    from training.data.sources import MANIFESTS, SourceImage, SourceProblem, read_images

    if source.is_file() and source.suffix.lower() not in MANIFESTS:
        images, problems = [SourceImage(source.name, source)], list[SourceProblem]()
    else:
        images, problems = read_images(source)
    dataset = load_dataset(images[:limit], encoder.preprocessing, progress=limit is None)
    rejected = [{"where": problem.where, "reason": problem.reason} for problem in problems]
    rejected += [{"where": where, "reason": reason} for where, reason in dataset.skipped]
    for each in rejected[:20]:
        note(f"{each['where']}: {each['reason']}")
    return _Found(torch.from_numpy(dataset.images), dataset.item_ids, rejected)


def _label_number(encoder: Encoder, label: str | None) -> int | None:
    """The number of a label given by name, as the card has it, or by number."""
    if label is None:
        return None
    names = encoder.card.get("labels", {}).get("names") or []
    if label in names:
        return int(names.index(label))
    if label.isdecimal():
        return int(label)
    raise EncoderError(f"label {label!r} is not one of this encoder's: {', '.join(names) or 'it has none'}")
