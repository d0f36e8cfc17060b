"""The images of an evaluation, read once and embedded by each encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.measures.ground_truth import Pixels
from indexer.measures.metrics import score_blocks, score_chunks
from indexer.vectors import Floats
from training.console import Progress
from training.data.reader import Loaded, Request, read_files
from training.data.sources import SourceImage, SourceProblem, read_images
from training.extras import extras
from training.preprocessing import Preprocessing
from training.reference import Metric, describe_encoder

if TYPE_CHECKING:
    from training.encoder import Encoder

BATCH = 128
COMPONENTS = 64  # of the PCA baseline
CHUNK = 4096  # images whose vectors are in memory at a time if the gallery is not kept
DRAWN = 96  # drawn images if no source is given
KEPT_NUMBERS = 150_000_000  # largest gallery (vectors x dim) kept in memory: 600 MB


class VectorEncoder(Protocol):
    """What an evaluation asks of an encoder; `training.encoder.Encoder` is one."""

    @property
    def encoder_id(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def metric(self) -> Metric: ...
    @property
    def preprocessing(self) -> Preprocessing: ...

    def embed(self, pixels: NDArray[np.uint8]) -> Floats:
        """Search vectors `(B, dim)` of prepared images `(B, C, S, S)` uint8."""
        ...


class EmbedderEncoder:
    """A stored encoder run by the fastest engine there is for it, without PyTorch where it has an ONNX file."""

    def __init__(self, ref: str) -> None:
        from training.embedder import load_embedder

        described = describe_encoder(ref)
        self.embed = load_embedder(described).embed
        self.encoder_id = described.encoder_id
        self.family = described.family
        self.dim = described.dim
        self.metric: Metric = described.metric
        self.preprocessing = described.preprocessing


@dataclass(frozen=True)
class ImageSet:
    """The readable images of a source, `(N, C, S, S)` uint8, and the rejected ones."""

    images: list[SourceImage]
    pixels: NDArray[np.uint8]
    sha256: list[str]
    rejected: list[SourceProblem]


def read_image_set(
    images: Sequence[SourceImage],
    preprocessing: Preprocessing,
    advance: Callable[[int], None],
    *,
    processes: int | None = None,
) -> ImageSet:
    """Read the images of a source; unreadable files are listed as rejected."""
    side = preprocessing.size
    pixels = np.empty((len(images), preprocessing.channels, side, side), dtype=np.uint8)
    kept: list[SourceImage] = []
    contents: list[str] = []
    rejected: list[SourceProblem] = []
    requests = ((image, Request(image.path)) for image in images)
    for image, outcome in read_files(requests, preprocessing, processes=processes):
        advance(1)
        if isinstance(outcome, Loaded) and outcome.pixels is not None:
            pixels[len(kept)] = outcome.pixels
            kept.append(image)
            contents.append(outcome.sha256)
        elif not isinstance(outcome, Loaded):
            rejected.append(SourceProblem(image.where, outcome.reason, image.item_id, str(image.path)))
    return ImageSet(kept, pixels[: len(kept)], contents, rejected)


def choose_images(
    source: Path | None, preprocessing: Preprocessing, count: int, seed: int, progress: Progress
) -> ImageSet:
    """At most `count` random images of a source; photos of the synthetic shop if there is no source."""
    if source is None:
        return _drawn_images(preprocessing, min(count, DRAWN), seed, progress)
    images, problems = read_images(source)
    rng = np.random.default_rng(seed)
    chosen = [images[place] for place in rng.permutation(len(images))[:count]]
    progress.started(len(chosen))
    found = read_image_set(chosen, preprocessing, progress.advance)
    return replace(found, rejected=[*problems, *found.rejected])


def _drawn_images(preprocessing: Preprocessing, count: int, seed: int, progress: Progress) -> ImageSet:
    """Photos of the synthetic shop, two of each item."""
    from training.data.studio import make_item, random_scene, render

    progress.started(count)
    pixels = []
    for number in range(count):
        item = make_item(seed, number // 2)
        photo = render(item, random_scene(item, number % 2), max(128, preprocessing.size))
        pixels.append(preprocessing.apply(photo.image))
        progress.advance(1)
    return ImageSet([], np.stack(pixels), [], [])


def batches(pixels: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(pixels), BATCH):
        yield pixels[start : start + BATCH]


def embed_pixels(encoder: VectorEncoder, pixels: NDArray[np.uint8]) -> Floats:
    """Vectors `(N, dim)` float32 of preprocessed pixels."""
    vectors = [encoder.embed(batch) for batch in batches(pixels)]
    return np.concatenate(vectors) if vectors else np.empty((0, encoder.dim), np.float32)


def embed_pictures(encoder: VectorEncoder, pictures: Pixels) -> Floats:
    """Vectors `(..., dim)` of pictures `(..., S, S, 3)`."""
    lead = pictures.shape[:-3]
    flat = pictures.reshape(-1, *pictures.shape[-3:])
    vectors = [embed_pixels(encoder, prepared(encoder, part)) for part in batches(flat)]
    return np.concatenate(vectors).reshape(*lead, encoder.dim)


def prepared(encoder: VectorEncoder, pictures: Pixels) -> Pixels:
    return np.stack([encoder.preprocessing.apply(picture) for picture in pictures])


class GalleryVectors:
    """The vectors of a gallery in chunks; kept in memory if they fit, otherwise encoded again for each pass."""

    def __init__(self, encoder: VectorEncoder, pixels: NDArray[np.uint8]) -> None:
        self._encoder = encoder
        self._pixels = pixels
        numbers = len(pixels) * encoder.dim
        self.kept = embed_pixels(encoder, pixels) if numbers <= KEPT_NUMBERS else None

    def __call__(self) -> Iterator[Floats]:
        for start in range(0, len(self._pixels), CHUNK):
            yield embed_pixels(self._encoder, self._pixels[start : start + CHUNK])

    def scored(self, queries: Floats) -> Iterator[tuple[slice, Floats]]:
        """Scores of the queries against the whole gallery, in blocks of queries."""
        metric = self._encoder.metric
        if self.kept is not None:
            return score_blocks(queries, self.kept, metric)
        return score_chunks(queries, self, len(self._pixels), metric)


def fit_pca(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> Encoder:
    """Fit the PCA baseline on the gallery; a small gallery limits the number of components."""
    from dataclasses import asdict

    with extras("the pca baseline"):
        import torch

        from training.encoder import Encoder
        from training.models import MODELS

    family = MODELS["pca"]
    components = max(1, min(COMPONENTS, len(pixels) - 1))
    config = family.config(size=preprocessing.size, channels=preprocessing.channels, components=components)
    model = family.model(config)
    for start in range(0, len(pixels), 1024):
        model.partial_fit(torch.from_numpy(pixels[start : start + 1024]).float() / 255.0)
    model.check_fitted()
    return Encoder(model, family="pca", config=asdict(config), preprocessing=preprocessing)
