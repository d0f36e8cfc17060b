"""Pictures of what an encoder has learnt: reconstructions, samples, traversals, neighbours and more.

    reconstructions   images above their reconstructions
    samples           images drawn from the model; for families with a decoder, from latents drawn from the prior
    completions       images whose lower half is hidden, and completions by a model that draws pixel by pixel
    traversals        one latent at a time varied by up to 3 standard deviations (Higgins et al.: beta-VAE, 2017,
                      https://openreview.net/forum?id=Sy2fzU9gl, figure 1); the latents with the most KL or deviation
    interpolations    decoded latents on the line between those of two images
    labels            latents of images decoded under one label after another (Kingma et al.: Semi-Supervised Learning
                      with Deep Generative Models, 2014, https://arxiv.org/abs/1406.5298, figure 1: the style stays, the
                      content changes); the most frequent labels, for families with labels
    codes             maps of codes, one colour per code
    steps             an animation: images with the window that the model reads, and its canvas with the window that it
                      writes, after each step (Gregor et al.: DRAW, 2015, https://arxiv.org/abs/1502.04623, figure 7)
    neighbours        images with the most similar other images, best first, and their scores

A family that cannot draw images gets only `neighbours`; one whose latents are codes gets no traversals and no
interpolations.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from training.encoder import Encoder
from training.errors import EncoderError
from training.files import publish_file
from training.fitting.pictures import encode_gif, encode_png
from training.protocols import (
    Batch,
    CodeModel,
    CompletingModel,
    LabelDecodingModel,
    LatentModel,
    SamplingModel,
    StepwiseModel,
    VariationalModel,
)
from training.step_pictures import step_rows

NAMES = (
    "reconstructions", "samples", "completions", "traversals", "interpolations", "labels", "codes", "steps",
    "neighbours",
)  # fmt: skip
SHOWN, ACROSS = 16, 8  # reconstructed images, and images per row
UNITS, STEPS, DEVIATIONS = 10, 7, 3.0  # traversed latents, pictures per latent, and range in standard deviations
STYLES, LABELS = 6, 10  # images that are decoded under other labels, and number of labels
PAIRS, BETWEEN = 6, 8  # interpolated pairs, and pictures per pair including both ends
SAMPLES = 64
COMPLETED, VARIANTS = 6, 4  # completed images, and completions per image
LAST, MILLISECONDS = 8, 150  # frames of the finished drawing, and time per frame
QUERIES, FOUND = 10, 8  # queries, and neighbours per query
CELL, GAP, TEXT = 64, 4, 12  # pixels: smallest side of a picture, gap between pictures, font size
MARGIN = 3.0 * GAP
Pixels = NDArray[np.uint8]


class Row(NamedTuple):
    """Pictures `(N, C, H, W)` in [0, 1] with a label on the left and optional captions below."""

    label: str
    pictures: Tensor
    captions: Sequence[str] = ()


@dataclass
class Gallery:
    """The written files, and the reasons for pictures that were skipped."""

    written: dict[str, Path] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


@torch.inference_mode()
def write_gallery(encoder: Encoder, pixels: NDArray[np.uint8], out: Path, *, seed: int = 0) -> Gallery:
    """Write one file per kind of picture that the encoder supports into a folder: PNG, or GIF for `steps`.

    Args:
        pixels: preprocessed images `(N, C, S, S)` uint8, at least 2.
        seed: random seed of samples, completions and steps.
    """
    if len(pixels) < 2:
        raise ValueError(f"pictures need at least 2 images, not {len(pixels)}")
    images = torch.from_numpy(pixels)
    draw: dict[str, Callable[[], Pixels | list[Pixels]]] = {
        "reconstructions": lambda: draw_reconstructions(encoder, images),
        "samples": lambda: draw_samples(encoder, seed),
        "completions": lambda: draw_sheet(completion_rows(encoder, images[:COMPLETED], variants=VARIANTS, seed=seed)),
        "traversals": lambda: draw_traversals(encoder, images),
        "interpolations": lambda: draw_interpolations(encoder, images),
        "labels": lambda: draw_labels(encoder, images),
        "codes": lambda: draw_codes(encoder, images),
        "steps": lambda: draw_steps(encoder, images, seed),
        "neighbours": lambda: draw_neighbours(encoder, images),
    }
    gallery = Gallery()
    for name in NAMES:
        reason = why_not(encoder, name)
        if reason is None:
            drawn = draw[name]()
            if isinstance(drawn, list):
                gallery.written[name] = publish_file(out / f"{name}.gif", encode_gif(drawn, MILLISECONDS))
            else:
                gallery.written[name] = publish_file(out / f"{name}.png", encode_png(drawn))
        else:
            gallery.skipped[name] = reason
    return gallery


def why_not(encoder: Encoder, name: str) -> str | None:
    """Why an encoder does not support a kind of picture; None if it does."""
    model, family = encoder.model, f"family {encoder.family!r}"
    if name == "codes":
        return None if isinstance(model, CodeModel) else f"{family} has no codes"
    if name == "samples":
        return None if isinstance(model, SamplingModel) else f"{family} draws no images"
    if name == "completions":
        return None if isinstance(model, CompletingModel) else f"{family} does not draw pixel by pixel"
    if name == "steps":
        return None if isinstance(model, StepwiseModel) else f"{family} does not draw in steps"
    if name != "neighbours" and not encoder.is_generative:
        return f"{family} has no decoder"
    if name == "labels":
        return None if isinstance(model, LabelDecodingModel) else f"{family} has no labels"
    if name in ("traversals", "interpolations"):
        if isinstance(model, CodeModel):
            return f"the latents of {family} are codes, which cannot be interpolated"
        return None if isinstance(model, LatentModel) else f"{family} has no latent vector"
    return None


def draw_reconstructions(encoder: Encoder, images: Tensor) -> Pixels:
    """Up to 16 images above their reconstructions, with the mean squared error for channels in [0, 1]."""
    originals = _float(images[:SHOWN])
    again = encoder.reconstruct(images[:SHOWN])
    errors = torch.square(again - originals).mean(dim=(1, 2, 3))
    rows = []
    for first in range(0, len(originals), ACROSS):
        part = slice(first, first + ACROSS)
        rows += [
            Row("original", originals[part]),
            Row("reconstruction", again[part], [f"mse {error:.4f}" for error in errors[part]]),
        ]
    return draw_sheet(rows)


def draw_samples(encoder: Encoder, seed: int) -> Pixels:
    return draw_sheet([Row("", row) for row in _parts(encoder.sample(SAMPLES, seed=seed), ACROSS)])


def completion_rows(
    encoder: Encoder, images: Tensor, *, variants: int, seed: int, keep: float = 0.5, temperature: float = 1.0
) -> list[Row]:
    """One row per image: the image, the part that is kept, and completions.

    Args:
        images: `(N, C, S, S)` uint8.
        variants: completions per image.
        keep: fraction of the pixel rows to keep, from the top.
    """
    if not 0.0 <= keep <= 1.0:
        raise EncoderError(f"keep must be between 0 and 1, not {keep}")
    size = images.shape[-1]
    known = torch.zeros(size, size, dtype=torch.bool)
    known[: round(keep * size)] = True
    kept = torch.where(known, _float(images), torch.ones(()))
    repeated = images.repeat_interleave(variants, dim=0)
    drawn = _parts(encoder.complete(repeated, known, seed=seed, temperature=temperature), variants)
    captions = ["original", "kept", *(f"drawn {number + 1}" for number in range(variants))]
    return [
        Row("", torch.cat([_float(image)[None], left[None], each]), captions)
        for image, left, each in zip(images, kept, drawn, strict=True)
    ]


def draw_traversals(encoder: Encoder, images: Tensor) -> Pixels:
    """The latent of the first image, with one unit at a time varied about its mean over the images."""
    latents = _latents(encoder, images)
    mean, deviation = latents.mean(dim=0), latents.std(dim=0)
    use, measure = unit_use(encoder, images, deviation)
    steps = torch.linspace(-DEVIATIONS, DEVIATIONS, STEPS)
    captions = [f"{step:+.0f} sd" if step else "mean" for step in steps]
    start = latents[:1]
    rows = [Row("image", torch.cat([_float(images[:1]), encoder.decode(start)]), ["original", "reconstruction"])]
    for unit in use.argsort(descending=True)[:UNITS].tolist():
        moved = start.repeat(STEPS, 1)
        moved[:, unit] = mean[unit] + steps * deviation[unit]
        rows.append(Row(f"unit {unit}\n{measure} {use[unit]:.2f}", encoder.decode(moved), captions))
    return draw_sheet(rows)


def unit_use(encoder: Encoder, images: Tensor, deviation: Tensor) -> tuple[Tensor, str]:
    """Use of each latent `(latent_dim,)` and its name: KL in nats for models with a posterior, else deviation."""
    if not isinstance(encoder.model, VariationalModel):
        return deviation, "sd"
    model = encoder.model
    noise = torch.Generator().manual_seed(0)
    parts = (_float(part).to(encoder.device) for part in _parts(images))
    kl = [model.elbo(Batch(part, part), generator=noise).kl.cpu() for part in parts]
    return torch.cat(kl).mean(dim=0), "KL"


def draw_interpolations(encoder: Encoder, images: Tensor) -> Pixels:
    """Consecutive pairs of images, and decoded latents on the line between theirs."""
    pairs = images[: min(2 * PAIRS, len(images) // 2 * 2)]
    latents = _latents(encoder, pairs)
    shares = torch.linspace(0.0, 1.0, BETWEEN)[:, None]
    captions = ["original", *(f"{share:.2f}" for share in shares[:, 0]), "original"]
    rows = []
    for first in range(0, len(pairs), 2):
        line = encoder.decode(torch.lerp(latents[first].expand(BETWEEN, -1), latents[first + 1], shares))
        ends = _float(pairs[first : first + 2])
        rows.append(Row("", torch.cat([ends[:1], line, ends[1:]]), captions))
    return draw_sheet(rows)


def draw_labels(encoder: Encoder, images: Tensor) -> Pixels:
    """Images, and their latents, inferred without a label, decoded under the most frequent labels."""
    model: LabelDecodingModel = encoder.model
    shares = model.label_shares.cpu()
    labels = shares.topk(min(LABELS, len(shares))).indices.sort().values
    names = encoder.label_names
    captions = ["original", *(names[label] if label < len(names) else str(label) for label in labels.tolist())]
    rows = []
    for image, latent in zip(images[:STYLES], _latents(encoder, images[:STYLES]), strict=True):
        z = latent.expand(len(labels), -1).to(encoder.device)
        rows.append(torch.cat([_float(image)[None], model.generate(labels.to(encoder.device), z).cpu()]))
    return draw_sheet([Row("", pictures, captions) for pictures in rows])


def draw_codes(encoder: Encoder, images: Tensor) -> Pixels:
    """Images above their code maps, coarsest first; a code has the same colour on the whole sheet."""
    shown = images[:ACROSS]
    model: CodeModel = encoder.model
    rows = [Row("image", _float(shown))]
    for level in (codes.cpu() for codes in model.code_maps(_float(shown).to(encoder.device)).values()):
        distinct = [f"{len(one.unique())} codes" for one in level]
        colours = torch.tensor([_colour(code) for code in range(int(level.max()) + 1)])
        picture = colours[level].permute(0, 3, 1, 2)
        side = images.shape[-1]
        enlarged = torch.nn.functional.interpolate(picture, size=(side, side), mode="nearest")
        rows.append(Row(f"codes\n{level.shape[1]} x {level.shape[2]}", enlarged, distinct))
    return draw_sheet([*rows, Row("reconstruction", encoder.reconstruct(shown))] if encoder.is_generative else rows)


def draw_steps(encoder: Encoder, images: Tensor, seed: int) -> list[Pixels]:
    """Frames of up to 8 images and as many samples; the last one is repeated."""
    shown = _float(images[:ACROSS]).to(encoder.device)
    steps = step_rows(encoder.model, shown, torch.Generator().manual_seed(seed))
    frames = [
        draw_sheet([Row(f"{label}\nstep {number}", pictures) for label, pictures in rows.items()])
        for number, rows in enumerate(steps, start=1)
    ]
    return frames + [frames[-1]] * LAST


def draw_neighbours(encoder: Encoder, images: Tensor) -> Pixels:
    """Evenly spaced query images, and the most similar other images with their scores."""
    vectors = torch.cat([encoder.encode(part) for part in _parts(images)])
    queries = torch.linspace(0, len(images) - 1, min(QUERIES, len(images))).round().long()
    scores = vectors[queries] @ vectors.T
    if encoder.metric == "l2":
        scores = -torch.cdist(vectors[queries], vectors)
    scores[torch.arange(len(queries)), queries] = -torch.inf
    top = scores.topk(min(FOUND, len(images) - 1), dim=1)
    rows = []
    for query, values, rows_found in zip(queries.tolist(), top.values, top.indices, strict=True):
        pictures = torch.cat([images[query : query + 1], images[rows_found]])
        rows.append(Row("", _float(pictures), ["query", *(f"{value:.3f}" for value in values)]))
    return draw_sheet(rows)


def draw_sheet(rows: Sequence[Row]) -> Pixels:
    """A sheet `(H, W, 3)` of rows of equally sized pictures with labels and captions; enlarges small pictures."""
    font = ImageFont.load_default(TEXT)
    side = max(rows[0].pictures.shape[-2:])
    zoom = max(1, -(-CELL // side))
    height, width = (zoom * n for n in rows[0].pictures.shape[-2:])
    labels = max(_width(font, row.label) for row in rows)
    left = GAP if labels == 0 else int(labels + MARGIN)
    across = left + max(len(row.pictures) for row in rows) * (width + GAP)
    heights = [height + GAP + (TEXT + GAP if row.captions else 0) for row in rows]
    sheet = Image.new("RGB", (across, GAP + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for row, down in zip(rows, heights, strict=True):
        draw.multiline_text((GAP, top + height // 2 - TEXT), row.label, fill="black", font=font)
        for column, pixels in enumerate(_pixels(row.pictures)):
            x = left + column * (width + GAP)
            sheet.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST), (x, top))
            if column < len(row.captions):
                draw.text((x, top + height), row.captions[column], fill="#555", font=font)
        top += down
    return np.asarray(sheet)


def _latents(encoder: Encoder, images: Tensor) -> Tensor:
    model: LatentModel = encoder.model
    return torch.cat([model.latent(_float(part).to(encoder.device)).float().cpu() for part in _parts(images)])


def _parts(images: Tensor, count: int = 64) -> list[Tensor]:
    return [images[first : first + count] for first in range(0, len(images), count)]


def _float(images: Tensor) -> Tensor:
    return images.float() / 255.0


def _pixels(pictures: Tensor) -> Pixels:
    three = pictures.float().cpu().clamp(0.0, 1.0).expand(-1, 3, -1, -1)
    pixels: Pixels = (three * 255.0).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return pixels


def _width(font: Any, text: str) -> float:
    return max(float(font.getlength(line)) for line in text.split("\n"))


def _colour(code: int) -> tuple[float, float, float]:
    """A colour per code; hues advance by the golden ratio, so that consecutive codes differ strongly."""
    return colorsys.hsv_to_rgb(code * 0.618034 % 1.0, 0.45 + 0.15 * (code % 4), 0.95 - 0.2 * (code // 4 % 3))
