"""How typical a query is of a collection, and the file that tells it.

The score of a vector v is the sum of two distances, each standardised by its mean and deviation over held-out items:
the mean distance to the `NEAREST` most similar items, and the squared Mahalanobis distance from the collection's mean.
The first is small next to any group of items, the second finds pictures without content, which lie in the middle
between all groups (docs/studies/foreign-queries.md compares both with other scores).

What is reported is the rank of the score among those of held-out items: p = (1 + #{reference >= score}) / (n + 1). At
most a share p of new items of the catalogue's kind have a rank of p or less, whatever the distribution of the scores
(conformal p-values; Bates, Candes, Lei, Romano, Sesia: Testing for Outliers with Conformal p-values, 2023,
https://arxiv.org/abs/2104.08279, equation 2).

typicality.npz    format, mean, axes, variances, rest, centres, scales, reference
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.errors import CorruptError
from indexer.typicality.gaussian import Gaussian, Numbers
from training.reference import first_line

FORMAT = 1
NEAREST = 10  # most similar items whose distances are averaged
FLAGGED = 1.0  # percentile below which a query is said to be unlike the catalogue
MIN_ITEMS = 100  # with fewer, no percentile below `FLAGGED` exists
MAX_BYTES = 256 * 2**20  # of the arrays in a file, unpacked


@dataclass(frozen=True)
class Typicality:
    """How typical a query is.

    Args:
        percentile: share of held-out items of the collection that are at most as typical, in (0, 100].
        like_catalogue: False if the percentile is below `FLAGGED`.
    """

    percentile: float
    like_catalogue: bool


@dataclass(frozen=True)
class TypicalityModel:
    """The score of a collection's vectors, and its values for held-out items.

    Args:
        centres, scales: `(2,)`, mean and deviation of the two distances over held-out items.
        reference: `(n,)` scores of held-out items, in ascending order.
    """

    gaussian: Gaussian
    centres: Numbers
    scales: Numbers
    reference: Numbers

    def scores(self, vectors: NDArray[np.floating], mean_distances: NDArray[np.floating]) -> Numbers:
        """Scores `(m,)`, higher is less typical.

        Args:
            vectors: `(m, dim)`.
            mean_distances: `(m,)`, mean distance of each to its `NEAREST` most similar items.
        """
        found = np.stack([np.asarray(mean_distances, np.float64), self.gaussian.squared_distances(vectors)])
        return standardised(found, self.centres, self.scales)

    def percentiles(self, scores: Numbers) -> Numbers:
        """Percentiles `(m,)` of scores among held-out items, in (0, 100]; low is untypical."""
        below = np.searchsorted(self.reference, scores, side="left")
        count = len(self.reference)
        ranks: Numbers = 100.0 * (1 + count - below) / (count + 1)
        return ranks

    def of(self, vector: NDArray[np.floating], mean_distance: float) -> Typicality:
        """The typicality of one vector `(dim,)`."""
        percentile = float(self.percentiles(self.scores(vector[None], np.array([mean_distance])))[0])
        return Typicality(percentile, percentile >= FLAGGED)

    def to_bytes(self) -> bytes:
        """The contents of `typicality.npz`."""
        buffer = io.BytesIO()
        gaussian = self.gaussian
        np.savez(
            buffer,
            format=np.array(FORMAT),
            mean=gaussian.mean.astype(np.float32),
            axes=gaussian.axes.astype(np.float32),
            variances=gaussian.variances,
            rest=np.array(gaussian.rest),
            centres=self.centres,
            scales=self.scales,
            reference=self.reference,
        )
        return buffer.getvalue()


def standardised(distances: Numbers, centres: Numbers, scales: Numbers) -> Numbers:
    """Sum over the two kinds of distances `(2, m)`, each standardised."""
    total: Numbers = ((distances - centres[:, None]) / scales[:, None]).sum(axis=0)
    return total


def read_typicality(path: Path, dim: int) -> TypicalityModel:
    """Read a typicality file without pickle.

    Args:
        dim: size of the collection's vectors.

    Raises:
        CorruptError: the file is missing, damaged or of other vectors; the message names the array.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise CorruptError(f"{path}: its arrays take {size:,} bytes, more than {MAX_BYTES:,}")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, zipfile.BadZipFile, EOFError, RuntimeError, TypeError, ValueError) as exc:
        if isinstance(exc, CorruptError):
            raise
        raise CorruptError(f"{path}: cannot be read ({first_line(exc)})") from exc
    _check(path, arrays, dim)
    gaussian = Gaussian(arrays["mean"], arrays["axes"], arrays["variances"], float(arrays["rest"]))
    return TypicalityModel(gaussian, arrays["centres"], arrays["scales"], arrays["reference"])


def _check(path: Path, arrays: dict[str, NDArray[np.generic]], dim: int) -> None:
    """Check the names, shapes and values of all arrays, and convert them to float64."""
    version = arrays.get("format", np.array(None, dtype=object))
    if version.shape != () or version.dtype.kind != "i" or int(version) != FORMAT:
        raise CorruptError(f"{path}: its format is not {FORMAT}")
    rank = arrays["axes"].shape[-1] if "axes" in arrays and arrays["axes"].ndim == 2 else 0
    count = len(arrays["reference"]) if "reference" in arrays and arrays["reference"].ndim == 1 else 0
    shapes = {"mean": (dim,), "axes": (dim, rank), "variances": (rank,), "rest": (), "centres": (2,), "scales": (2,)}
    for name, shape in {**shapes, "reference": (max(count, 1),)}.items():
        found = arrays[name].shape if name in arrays else "missing"
        if found != shape:
            raise CorruptError(f"{path}: {name} has shape {found}, expected {shape}")
        if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name].astype(np.float64)).all():
            raise CorruptError(f"{path}: {name} has values that are not finite numbers")
        arrays[name] = arrays[name].astype(np.float64)
    for name in ("variances", "rest", "scales"):
        if not (arrays[name] > 0).all():  # type: ignore[operator]
            raise CorruptError(f"{path}: {name} has values that are not above 0")
    if (np.diff(arrays["reference"]) < 0).any():
        raise CorruptError(f"{path}: reference is not in ascending order")
