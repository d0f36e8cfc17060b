"""`nitamono drift`: compare new items and recent queries with the catalogue that the active encoder was activated on.

The reference is the items that the catalogue had when the first generation with the active encoder was built; later
items are new. `indexer.drift.statistics` defines the measures and when a difference counts as drift.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from indexer.catalogue.home import Home
from indexer.catalogue.queries import distinct_vectors
from indexer.catalogue.records import StoredPhoto
from indexer.drift.report import NEW_ITEMS, NEW_PHOTOS, QUERIES, QUERY_PHOTOS, DriftReport, Group
from indexer.drift.statistics import (
    MIN_SAMPLE,
    Doubles,
    flag_drift,
    kl_test,
    nearest_other,
    one_photo_each,
    shift_of,
    surprise,
)
from indexer.errors import InvalidRequestError
from indexer.evaluate.images import batches, embed_pixels, read_image_set
from indexer.vectors import Floats, Ints
from training.console import Progress
from training.data.sources import SourceImage, SourceProblem, read_images

if TYPE_CHECKING:
    from training.encoder import Encoder

# Each group has a random stream of its own, so that its sample does not depend on which other groups exist.
STREAMS = ("reference", NEW_ITEMS, NEW_PHOTOS, QUERIES, QUERY_PHOTOS)


@dataclass(frozen=True)
class DriftRequest:
    """What to compare: additional photos, the date from which items are new, and the maximum number of items."""

    new: Path | None = None
    queries: Path | None = None
    since: datetime | None = None
    limit: int = 1000
    seed: int = 0


def measure_drift(
    home: Home, collection: str, request: DriftRequest, progress: Progress, *, processes: int | None = None
) -> DriftReport:
    """Compare all available groups with the reference.

    Raises:
        NotFoundError: unknown collection, or it has no index.
        InvalidRequestError: nothing to compare.
        SourceError: a source cannot be read.
    """
    from training.encoder import load_encoder

    known = _read_catalogue(home, collection, request)
    reference, *others = _picks(home, known, request)
    if not others:
        raise InvalidRequestError(
            "new",
            f"collection {collection!r}: nothing to compare: no item was added since "
            f"{request.since or known.since:%Y-%m-%d}, and no query of the active encoder is logged (servers write "
            "queries every few seconds); give --new SOURCE or --queries SOURCE",
        )
    encoder = load_encoder(home.encoder(known.encoder_id).directory)
    reader = _Reader(encoder, known, progress, processes)
    samples = reader.read([reference, *others])
    groups = _flagged([_compare(samples[0], sample, known, encoder, request.seed) for sample in samples[1:]])
    notes = reader.notes + _notes(samples)
    sizes = (len(known.reference_items), len(samples[0].vectors))
    return DriftReport(
        collection, known.generation, known.encoder_id, known.since, *sizes, groups, reader.rejected, notes
    )


@dataclass(frozen=True)
class _Known:
    """The catalogue's photos with vectors of the active encoder; those of the reference are the gallery."""

    collection_id: int
    generation: int
    encoder_id: str
    since: datetime
    reference: list[StoredPhoto]
    later: list[StoredPhoto]

    @property
    def reference_items(self) -> set[int]:
        return {photo.item_pk for photo in self.reference}


@dataclass(frozen=True)
class _Pick:
    """The sampled photos of a group, one of each item.

    `own` are the keys of their items in the catalogue, -1 for unknown items. `vectors` and `own` are None if the photos
    have not been embedded yet.
    """

    name: str
    items: int
    images: list[SourceImage] = field(default_factory=list)
    vectors: Floats | None = None
    own: Ints | None = None
    rejected: list[SourceProblem] = field(default_factory=list)


@dataclass(frozen=True)
class _Sample:
    """A sampled group with its vectors `(n, dim)`, item keys `(n,)`, and reconstruction errors `(m,)`."""

    name: str
    items: int
    vectors: Floats
    own: Ints
    errors: Doubles


def _read_catalogue(home: Home, collection: str, request: DriftRequest) -> _Known:
    state = home.catalogue.active_state(collection)
    built = [g.created_at for g in home.catalogue.generations.all(collection) if g.encoder_id == state.encoder_id]
    since = min(built)
    photos = home.catalogue.vectors.photos(state.collection_id, state.encoder_id)
    until = since if request.since is None else min(since, request.since)
    reference = [photo for photo in photos if photo.created_at < until]
    later = [photo for photo in photos if photo.created_at >= (request.since or since)]
    return _Known(state.collection_id, state.generation, state.encoder_id, since, reference, later)


def _picks(home: Home, known: _Known, request: DriftRequest) -> list[_Pick]:
    """The reference, then every group that is not empty or was requested."""
    picks = [_pick_stored(home, "reference", known.reference, request)]
    if known.later:
        picks.append(_pick_stored(home, NEW_ITEMS, known.later, request))
    if request.new is not None:
        picks.append(_pick_source(NEW_PHOTOS, request.new, request))
    logged = home.catalogue.queries.all(known.collection_id, known.encoder_id)
    # Repeated queries count once; the newest come first.
    asked = distinct_vectors(query for query in logged if request.since is None or query.at >= request.since)
    if asked:
        vectors = _stack(asked[: request.limit])
        picks.append(_Pick(QUERIES, len(asked), vectors=vectors, own=np.full(len(vectors), -1, np.int64)))
    if request.queries is not None:
        picks.append(_pick_source(QUERY_PHOTOS, request.queries, request))
    return picks


def _pick_stored(home: Home, name: str, photos: Sequence[StoredPhoto], request: DriftRequest) -> _Pick:
    pks = np.array([photo.item_pk for photo in photos], dtype=np.int64)
    chosen = one_photo_each(pks, request.limit, _rng(request, name))
    taken = [photos[place] for place in chosen]
    images = [SourceImage(photo.item_id, str(home.uri_path(photo.uri)), where=photo.uri) for photo in taken]
    return _Pick(name, len(np.unique(pks)), images, _stack(photo.vector for photo in taken), pks[chosen])


def _pick_source(name: str, source: Path, request: DriftRequest) -> _Pick:
    images, problems = read_images(source)
    if not images:
        why = f"; the first problem is {problems[0].where}: {problems[0].reason}" if problems else ""
        raise InvalidRequestError(name, f"{source}: contains no photos{why}; give a folder or manifest with some")
    ids = np.array([image.item_id for image in images], dtype=np.str_)
    chosen = one_photo_each(ids, request.limit, _rng(request, name))
    return _Pick(name, len(np.unique(ids)), [images[place] for place in chosen], rejected=problems)


@dataclass
class _Reader:
    """Reads and embeds the photos of picks; unreadable files are listed as rejected."""

    encoder: Encoder
    known: _Known
    progress: Progress
    processes: int | None
    rejected: list[SourceProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def read(self, picks: Sequence[_Pick]) -> list[_Sample]:
        """The samples; photos of the catalogue are only read if reconstruction errors are needed."""
        if not self.encoder.is_generative:
            self.notes.append(f"family {self.encoder.family!r} has no decoder: reconstruction error is not measured")
        if (self.encoder.card.get("recipe") or {}).get("objective", {}).get("clean_target"):
            self.notes.append(
                "this encoder reconstructs items on white: its reconstruction error includes the background"
            )
        needed = self.encoder.is_generative and any(pick.images for pick in picks[1:])
        picks = [pick if needed or pick.vectors is None else replace(pick, images=[]) for pick in picks]
        self.progress.started(sum(len(pick.images) for pick in picks))
        return [self._sample(pick) for pick in picks]

    def _sample(self, pick: _Pick) -> _Sample:
        preprocessing = self.encoder.preprocessing
        found = read_image_set(pick.images, preprocessing, self.progress.advance, processes=self.processes)
        self.rejected += [*pick.rejected, *found.rejected]
        errors = _reconstruction_errors(self.encoder, found.pixels) if self.encoder.is_generative else np.empty(0)
        if pick.vectors is not None and pick.own is not None:
            return _Sample(pick.name, pick.items, pick.vectors, pick.own, errors)
        own = self._own(pick.name, found.images, found.sha256)
        return _Sample(pick.name, pick.items, embed_pixels(self.encoder, found.pixels), own, errors)

    def _own(self, name: str, images: Sequence[SourceImage], contents: Sequence[str]) -> Ints:
        """Keys of the photos' items in the catalogue, matched by content, and for new photos also by item_id."""
        by_content = {photo.sha256: photo.item_pk for photo in self.known.reference}
        by_id = {photo.item_id: photo.item_pk for photo in self.known.reference} if name == NEW_PHOTOS else {}
        pairs = zip(images, contents, strict=True)
        return np.array([by_content.get(c, by_id.get(i.item_id, -1)) for i, c in pairs], dtype=np.int64)


def _reconstruction_errors(encoder: Encoder, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> Doubles:
    """Mean squared reconstruction error `(n,)` of each photo, with values in [0, 1]."""
    import torch

    errors = [np.empty(0)]
    for batch in batches(pixels):
        given = torch.from_numpy(batch)
        squared = (encoder.reconstruct(given) - given.float() / 255.0) ** 2
        errors.append(squared.flatten(1).mean(1).double().numpy())
    return np.concatenate(errors)


def _compare(reference: _Sample, sample: _Sample, known: _Known, encoder: Encoder, seed: int) -> Group:
    """The measures of a group, before `flag_drift`; empty if there are too few photos."""
    if min(len(sample.vectors), len(reference.vectors)) < MIN_SAMPLE:
        return Group(sample.name, sample.items, len(sample.vectors))
    rng = np.random.default_rng([seed, len(STREAMS) + STREAMS.index(sample.name)])
    pairs = {
        "nearest_item": _distances(reference, sample, known, encoder),
        "surprise": surprise(reference.vectors, sample.vectors, rng),
    }
    if min(len(sample.errors), len(reference.errors)) >= MIN_SAMPLE:
        pairs = {"reconstruction_error": (reference.errors, sample.errors), **pairs}
    measures = {name: shift_of(*values) for name, values in pairs.items()}
    kl = kl_test(reference.vectors, sample.vectors, rng)
    return Group(sample.name, sample.items, len(sample.vectors), measures, kl)


def _distances(reference: _Sample, sample: _Sample, known: _Known, encoder: Encoder) -> tuple[Doubles, Doubles]:
    gallery = _stack(photo.vector for photo in known.reference)
    items = np.array([photo.item_pk for photo in known.reference], dtype=np.int64)
    of_reference, of_sample = (
        nearest_other(s.vectors, s.own, gallery, items, encoder.metric) for s in (reference, sample)
    )
    return of_reference, of_sample


def _flagged(groups: Sequence[Group]) -> list[Group]:
    """The groups with drift flags; p-values are adjusted for the tests of all groups together."""
    shifts = {f"{group.name}/{name}": shift for group in groups for name, shift in group.measures.items()}
    flagged = flag_drift(shifts)
    return [replace(g, measures={name: flagged[f"{g.name}/{name}"] for name in g.measures}) for g in groups]


def _notes(samples: Iterable[_Sample]) -> list[str]:
    return [
        f"{sample.name}: only {len(sample.errors)} photos could be read; reconstruction error needs {MIN_SAMPLE}"
        for sample in samples
        if 0 < len(sample.errors) < MIN_SAMPLE <= len(sample.vectors)
    ]


def _rng(request: DriftRequest, name: str) -> np.random.Generator:
    return np.random.default_rng([request.seed, STREAMS.index(name)])


def _stack(vectors: Iterable[NDArray[np.float32]]) -> Floats:
    """Vectors `(dim,)` as `(n, dim)`; `(0, 0)` if there are none."""
    rows = list(vectors)
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)
