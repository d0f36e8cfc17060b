"""Read image files and embed them in batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.data.decode import ImageLimits
from training.data.reader import Failed, Loaded, Outcome, Request, read_files
from training.data.sources import SourceImage, SourceProblem
from training.reference import EncoderDescription

if TYPE_CHECKING:
    from training.embedder import Embedder

BATCH = 128  # images per forward pass
T = TypeVar("T")
Advance = Callable[[int], None]


class Embedded(NamedTuple):
    """The outcome of one image; `vector` `(dim,)` is None if reading failed or the content was already known."""

    outcome: Outcome
    vector: NDArray[np.float32] | None


def embed_files(
    requests: Iterable[tuple[T, Request]],
    encoder: EncoderDescription,
    *,
    processes: int | None = None,
    limits: ImageLimits | None = None,
    device: str = "cpu",
) -> Iterator[list[tuple[T, Embedded]]]:
    """Read and embed files in order, batch by batch.

    The encoder is loaded while the reading processes start, and not at all without requests.
    """
    iterator = iter(requests)
    first = next(iterator, None)
    if first is None:
        return
    with ThreadPoolExecutor(1) as background:
        embedder = background.submit(_load, encoder, device)
        batch: list[tuple[T, Outcome]] = []
        fresh = 0
        chained = itertools.chain([first], iterator)
        for tag, outcome in read_files(chained, encoder.preprocessing, processes=processes, limits=limits):
            batch.append((tag, outcome))
            fresh += isinstance(outcome, Loaded) and outcome.pixels is not None
            if fresh == BATCH or len(batch) == 8 * BATCH:
                yield _embed_batch(batch, embedder.result())
                batch, fresh = [], 0
        if batch:
            yield _embed_batch(batch, embedder.result())


@dataclass
class EmbedReport:
    """The number of images that `embed_source` wrote, and those it rejected."""

    images: int = 0
    rejected: list[SourceProblem] = field(default_factory=list)


def embed_source(
    entries: Sequence[SourceImage | SourceProblem],
    encoder: EncoderDescription,
    out: Path,
    *,
    advance: Advance,
    processes: int | None = None,
    limits: ImageLimits | None = None,
    device: str = "cpu",
) -> EmbedReport:
    """Embed every image of a source into an `.npz` of ids `(N,)`, vectors `(N, dim)` float32 and encoder_id."""
    import io

    from training.files import publish_file

    report = EmbedReport(rejected=[entry for entry in entries if isinstance(entry, SourceProblem)])
    advance(len(report.rejected))
    ids: list[str] = []
    vectors: list[NDArray[np.float32]] = []
    requests = ((entry, Request(entry.path)) for entry in entries if isinstance(entry, SourceImage))
    for batch in embed_files(requests, encoder, processes=processes, limits=limits, device=device):
        for entry, embedded in batch:
            if isinstance(embedded.outcome, Failed):
                problem = SourceProblem(entry.where, embedded.outcome.reason, entry.item_id, entry.stored_as)
                report.rejected.append(problem)
            elif embedded.vector is not None:
                ids.append(entry.item_id)
                vectors.append(embedded.vector)
        advance(len(batch))
    report.images = len(ids)
    stacked = np.stack(vectors) if vectors else np.empty((0, encoder.dim), np.float32)
    buffer = io.BytesIO()
    # A fixed-width text array needs no pickle; without the dtype, an empty list would become float64.
    np.savez(buffer, ids=np.array(ids, dtype=np.str_), vectors=stacked, encoder_id=np.array(encoder.encoder_id))
    publish_file(out, buffer.getvalue())
    return report


def _load(encoder: EncoderDescription, device: str) -> Embedder:
    from training.embedder import load_embedder

    return load_embedder(encoder, device=device)


def _embed_batch(batch: Sequence[tuple[T, Outcome]], embedder: Embedder) -> list[tuple[T, Embedded]]:
    pixels = [o.pixels for _, o in batch if isinstance(o, Loaded) and o.pixels is not None]
    vectors: Iterator[NDArray[np.float32]] = iter(embedder.embed(np.stack(pixels)) if pixels else ())
    return [
        (tag, Embedded(outcome, next(vectors) if isinstance(outcome, Loaded) and outcome.pixels is not None else None))
        for tag, outcome in batch
    ]
