"""The directory of a generation: its files, how to read them, and how to verify them.

<number>/index.faiss      the vectors, by position; none if they are in a table of PostgreSQL
<number>/vectors.faiss    the vectors with 16 bits a number, by position; only beside an index of clusters
<number>/ids.npy          (count, 2) int64: image_id and item key of each position
<number>/neighbours.npy   (count, k): position and score of the nearest others of each vector; up to MAX_LISTED vectors
<number>/typicality.npz   what tells how typical a query is (`indexer.typicality`); collections of 100 items and more
<number>/manifest.json    encoder, dim, metric, factory and its search parameters, count, recall@10, checksums
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.errors import CorruptError
from indexer.typicality.typicality import TypicalityModel, read_typicality
from indexer.vectors import Ints
from indexer.vectors.engines import Engine, engine_of, read_index
from indexer.vectors.kinds import INDEX
from indexer.vectors.rerank import NeighbourLists
from training.files import sha256_of, write_durably
from training.reference import Metric, first_line

if TYPE_CHECKING:
    from indexer.vectors.pgvector import Table

IDS = "ids.npy"
NEIGHBOURS = "neighbours.npy"  # missing in old and in large generations
TYPICALITY = "typicality.npz"  # missing in old and in small generations; searches work without it


@dataclass(frozen=True)
class Manifest:
    """The contents of `manifest.json`.

    Args:
        sha256: checksum of every other file.
        search_parameters: `VectorIndex.parameters`; none for exact search.
        options: the collection's `IndexOptions` when it was built; none in old manifests.
    """

    collection: str
    number: int
    encoder_id: str
    dim: int
    metric: Metric
    count: int
    factory: str
    recall_at_10: float
    watermark: int
    sha256: dict[str, str]
    search_parameters: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def engine(self) -> Engine:
        """The engine of its index."""
        return engine_of(self.factory)

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read `manifest.json`; raises `CorruptError` if it is missing or malformed."""
        try:
            document = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
            return cls(**document)
        except (OSError, ValueError, TypeError, AttributeError) as exc:
            raise CorruptError(f"{directory / 'manifest.json'}: cannot be read ({first_line(exc)})") from exc

    def write(self, directory: Path) -> None:
        """Write `manifest.json` durably, as JSON with sorted keys."""
        document = json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"
        write_durably(directory / "manifest.json", document.encode())


def check_files(directory: Path, manifest: Manifest) -> None:
    """Compare the checksum of every file that searches need with the manifest; `CorruptError` if one differs."""
    needed = {IDS} if manifest.engine == "pgvector" else {INDEX, IDS}
    for name in sorted({*needed, *manifest.sha256} - {TYPICALITY}):
        _check_file(directory / name, manifest)


def _check_file(path: Path, manifest: Manifest) -> None:
    try:
        found = sha256_of(path)
    except OSError as exc:
        raise CorruptError(f"{path}: cannot be read ({exc.strerror})") from exc
    if found != manifest.sha256.get(path.name):
        raise CorruptError(f"{path}: checksum differs from the manifest; the file was changed or damaged")


def check_counts(directory: Path, manifest: Manifest, table: Table | None) -> None:
    """Check that index, ids and neighbour lists have the manifest's count and dimension; `CorruptError` otherwise."""
    ids = load_ids(directory)
    index = read_index(directory, manifest.factory, manifest.search_parameters, table)
    if not index.count == len(ids) == manifest.count or index.dim != manifest.dim:
        raise CorruptError(
            f"{directory}: index has {index.count} vectors of {index.dim}, ids {len(ids)}, "
            f"manifest has {manifest.count} of {manifest.dim}"
        )
    lists = load_neighbours(directory, manifest)
    if lists is not None and len(lists.positions) != manifest.count:
        raise CorruptError(f"{directory / NEIGHBOURS}: lists {len(lists.positions)} vectors, not {manifest.count}")


def load_neighbours(directory: Path, manifest: Manifest) -> NeighbourLists | None:
    """The neighbour lists of a generation; None if it has none."""
    if NEIGHBOURS not in manifest.sha256:
        return None
    try:
        pairs = np.load(directory / NEIGHBOURS, allow_pickle=False)
        return NeighbourLists(np.ascontiguousarray(pairs["position"]), np.ascontiguousarray(pairs["score"]))
    except (OSError, ValueError, IndexError) as exc:
        raise CorruptError(f"{directory / NEIGHBOURS}: cannot be read ({first_line(exc)})") from exc


def load_typicality(directory: Path, manifest: Manifest) -> TypicalityModel | None:
    """What tells how typical a query is of a generation, after its checksum has been checked; None if it has none.

    Raises:
        CorruptError: the file is missing, changed or damaged.
    """
    if TYPICALITY not in manifest.sha256:
        return None
    _check_file(directory / TYPICALITY, manifest)
    return read_typicality(directory / TYPICALITY, manifest.dim)


def load_ids(directory: Path) -> Ints:
    """`(count, 2)` int64: image_id and item key by position."""
    try:
        ids: Ints = np.load(directory / IDS, allow_pickle=False)
    except (OSError, ValueError) as exc:
        raise CorruptError(f"{directory / IDS}: cannot be read ({first_line(exc)})") from exc
    return ids
