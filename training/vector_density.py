"""How typical a vector is of others: the density of a flow over vectors, computed with NumPy alone.

`training.latent_flow` fits the flow with PyTorch and writes `density.npz` beside the encoder whose vectors it
describes. This module reads the file where there is no PyTorch. The density is
    log p(v) = log N(z; 0, I) + log |det dz/du|,   u = (v - m) A,
of the vector's first principal axes u. It is not comparable across encoders, so it is reported as a rank: `typicality`
is the fraction of held-out vectors of the same catalogue whose density is at most as high.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import EncoderError
from training.reference import first_line

DENSITY_FILE = "density.npz"
FORMAT = 1
MAX_BYTES = 64 * 2**20  # of the arrays in the file, unpacked
LOG_2_PI = math.log(2.0 * math.pi)
Array = NDArray[Any]


@dataclass(frozen=True)
class DensitySpec:
    """The settings in a density file.

    Args:
        encoder_id: the encoder whose vectors the density describes.
        vector_dim: size of the vectors.
        dim: number of principal axes that the flow describes.
        steps, hidden: as in `training.layers.vector_flow.VectorFlowConfig`.
    """

    encoder_id: str
    vector_dim: int
    dim: int
    steps: int
    hidden: tuple[int, ...]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays of the file and their shapes, without `reference`, whose length is free."""
        changed = self.dim // 2
        sizes = [self.dim - changed, *self.hidden, 2 * changed]
        found: dict[str, tuple[int, ...]] = {
            "space.offset": (self.vector_dim,),
            "space.projection": (self.vector_dim, self.dim),
        }
        for number in range(self.steps):
            norm, coupling, mix = (f"flow.layers.{number}.layers.{place}" for place in range(3))
            found |= {f"{norm}.shift": (self.dim,), f"{norm}.log_scale": (self.dim,), f"{coupling}.bound": (changed,)}
            for layer, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
                found[f"{coupling}.network.{2 * layer}.weight"] = (outputs, inputs)
                found[f"{coupling}.network.{2 * layer}.bias"] = (outputs,)
            found |= {f"{mix}.{name}": (self.dim, self.dim) for name in ("permutation", "lower", "upper")}
            found |= {f"{mix}.sign": (self.dim,), f"{mix}.log_diagonal": (self.dim,)}
        return found


class VectorDensity:
    """A density of vectors.

    Args:
        spec: the settings.
        arrays: the arrays of `DensitySpec.shapes`, and `reference`: the log-densities of held-out vectors.
    """

    def __init__(self, spec: DensitySpec, arrays: Mapping[str, Array]) -> None:
        self.spec = spec
        self.reference = np.sort(np.asarray(arrays["reference"], np.float64))
        self._arrays = {name: np.asarray(value, np.float64) for name, value in arrays.items()}

    def log_density(self, vectors: Array) -> NDArray[np.float64]:
        """Log-densities in nats `(N,)` of vectors `(N, vector_dim)`, of their principal axes."""
        a = self._arrays
        x = (np.asarray(vectors, np.float64) - a["space.offset"]) @ a["space.projection"]
        nats = np.zeros(len(x))
        for number in range(self.spec.steps):
            norm, coupling, mix = (f"flow.layers.{number}.layers.{place}" for place in range(3))
            x = (x + a[f"{norm}.shift"]) * np.exp(a[f"{norm}.log_scale"])
            x, added = self._coupled(x, coupling)
            x = x @ self._mix(mix).T
            nats += added + a[f"{norm}.log_scale"].sum() + a[f"{mix}.log_diagonal"].sum()
        density: NDArray[np.float64] = nats - 0.5 * (np.square(x) + LOG_2_PI).sum(axis=1)
        return density

    def typicality(self, vectors: Array) -> NDArray[np.float64]:
        """The fraction `(N,)` of held-out vectors whose density is at most that of each of the vectors."""
        below = np.searchsorted(self.reference, self.log_density(vectors), side="right")
        return below / len(self.reference)

    def _coupled(self, x: Array, name: str) -> tuple[Array, Array]:
        a, layers = self._arrays, len(self.spec.hidden)
        passed, changed = x[:, : self.spec.dim - self.spec.dim // 2], x[:, self.spec.dim - self.spec.dim // 2 :]
        h = passed
        for layer in range(layers + 1):
            h = h @ a[f"{name}.network.{2 * layer}.weight"].T + a[f"{name}.network.{2 * layer}.bias"]
            if layer < layers:
                h = h * (0.5 + 0.5 * np.tanh(0.5 * h))  # SiLU, without overflow
        raw, shift = np.split(h, 2, axis=1)
        log_scale = a[f"{name}.bound"] * np.tanh(raw)
        return np.concatenate([passed, changed * np.exp(log_scale) + shift], axis=1), log_scale.sum(axis=1)

    def _mix(self, name: str) -> Array:
        a = self._arrays
        lower = np.tril(a[f"{name}.lower"], -1) + np.eye(self.spec.dim)
        upper = np.triu(a[f"{name}.upper"], 1) + np.diag(a[f"{name}.sign"] * np.exp(a[f"{name}.log_diagonal"]))
        mixed: Array = a[f"{name}.permutation"] @ lower @ upper
        return mixed


def load_density(directory: Path, encoder_id: str) -> VectorDensity:
    """Read the density beside an encoder.

    Raises:
        EncoderError: the file is missing, damaged, or describes the vectors of another encoder.
    """
    spec, arrays = read_density(directory)
    if spec.encoder_id != encoder_id:
        raise EncoderError(
            f"{directory / DENSITY_FILE}: describes vectors of encoder {spec.encoder_id[:12]}, not of "
            f"{encoder_id[:12]}; fit it again"
        )
    return VectorDensity(spec, arrays)


def read_density(directory: Path) -> tuple[DensitySpec, dict[str, Array]]:
    """The settings and the checked arrays of a density file.

    Raises:
        EncoderError: the file is missing or damaged; the message names the array.
    """
    path = directory / DENSITY_FILE
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > MAX_BYTES:
            raise EncoderError(f"{path}: its arrays take {size:,} bytes, more than {MAX_BYTES:,}")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        spec = _spec(json.loads(bytes(arrays.pop("settings"))))
    except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as exc:
        if isinstance(exc, EncoderError):
            raise
        raise EncoderError(f"{path}: not a usable density ({first_line(exc)}); fit it again") from exc
    expected = spec.shapes()
    for name, shape in expected.items():
        if name not in arrays or arrays[name].shape != shape:
            found = arrays[name].shape if name in arrays else "missing"
            raise EncoderError(f"{path}: {name} has shape {found}, expected {shape}; fit it again")
    reference = arrays.get("reference")
    if reference is None or reference.ndim != 1 or not len(reference):
        raise EncoderError(f"{path}: has no log-densities of held-out vectors; fit it again")
    for name in (*expected, "reference"):
        if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
            raise EncoderError(f"{path}: {name} is not finite; fit it again")
    return spec, arrays


def _spec(settings: Mapping[str, Any]) -> DensitySpec:
    if settings["format"] != FORMAT:
        raise ValueError(f"format {settings['format']!r} is not {FORMAT}")
    values = {name: settings[name] for name in ("vector_dim", "dim", "steps")}
    for name, value in [*values.items(), *(("hidden", each) for each in settings["hidden"])]:
        if type(value) is not int or not 1 <= value <= 65_536:
            raise ValueError(f"{name} {value!r} is not a whole number from 1 to 65,536")
    return DensitySpec(str(settings["encoder_id"]), hidden=tuple(settings["hidden"]), **values)
