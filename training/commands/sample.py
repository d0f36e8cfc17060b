"""`nitamono sample`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.commands.inputs import read_inputs
from training.commands.options import DeviceOption, EncoderOption, SeedOption, TemperatureOption
from training.console import JsonOption, say
from training.errors import EncoderError

if TYPE_CHECKING:
    from training.encoder import Encoder

MAX_COLUMNS = 16


def sample(
    encoder: EncoderOption,
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    count: Annotated[int, typer.Option(min=1, max=1024, help="Number of images.")] = 64,
    temperature: TemperatureOption = 1.0,
    label: Annotated[str | None, typer.Option(help="Label of all images, by name or number.")] = None,
    prior: Annotated[
        Path | None,
        typer.Option(metavar="SOURCE", help="Photos whose latents replace N(0, I) as the prior, by a flow."),
    ] = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    json_output: JsonOption = False,
) -> None:
    """Sample images from a model.

    Writes one sheet of images. Families with a decoder sample latents or codes from their prior and show the mean
    image; flows turn latents into images; autoregressive families sample each pixel. `--label` needs a model that was
    trained with labels. `--prior` fits a flow to the latents of your photos, and draws latents from that: a trained
    VAE's latents differ from N(0, I), so samples look more like photos.

    \b
    Examples:
      nitamono sample --encoder ENCODER --out samples.png --count 16
      nitamono sample --encoder ENCODER --out bags.png --label bag --seed 7
      nitamono sample --encoder vae-clothing-64 --out clothes.png --prior photos
    """
    from training.encoder import load_encoder
    from training.files import publish_file
    from training.fitting.pictures import encode_png, tile
    from training.latent_flow import check_prior, fit_prior, sample_images

    loaded = load_encoder(encoder, device)
    started = time.monotonic()
    if prior is None:
        drawn = loaded.sample(count, seed=seed, temperature=temperature, label=_label_number(loaded, label))
    elif label is not None:
        raise EncoderError("--prior and --label exclude each other: the flow does not know labels")
    else:
        check_prior(loaded)
        images = read_inputs(loaded, prior, None).pixels.float() / 255.0
        drawn = sample_images(loaded, fit_prior(loaded, images, seed=seed), count, seed=seed, temperature=temperature)
    seconds = time.monotonic() - started
    publish_file(out, encode_png(tile(drawn, min(count, MAX_COLUMNS))))
    document = {"encoder_id": loaded.encoder_id, "file": str(out), "count": count, "seconds": round(seconds, 3)}
    say(document, json_output, f"{out}: {count} images in {seconds:.1f} s")


def _label_number(encoder: Encoder, label: str | None) -> int | None:
    """The number of a label, given by number or by its name in the card."""
    if label is None:
        return None
    names = encoder.card.get("labels", {}).get("names") or []
    if label in names:
        return int(names.index(label))
    if label.isdecimal():
        return int(label)
    known = f"its labels are {', '.join(names)}" if names else "it has no labels"
    raise EncoderError(f"this encoder does not know the label {label!r}; {known}")
