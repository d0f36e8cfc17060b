"""An encoder of drawings: strokes to search vectors, and back to strokes.

    encoder = load_sketch_encoder(directory)
    vectors = encoder.embed([strokes, ...])          # (B, dim), unit norm
    again = encoder.reconstruct([strokes])[0]        # the model's redrawing

Strokes are as `training.sketches` describes them. What comes out is in a box of 255 units, from the origin on;
`training.sketches.raster` and `training.sketches.sheets` show it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.errors import DrawingError, EncoderError
from training.protocols import Batch
from training.reference import describe_sketch_encoder
from training.sketches.preparing import DrawingPreparation
from training.sketches.strokes import Points, Strokes
from training.stored import StoredModel

AT_ONCE = 256  # drawings that are encoded or decoded at once

Drawing = Sequence[Points]


class Drawn(NamedTuple):
    """A drawing that a model made: its strokes, its points, and whether it ended before N_max rows."""

    strokes: Strokes
    points: int
    has_ended: bool


class SketchEncoder(StoredModel[DrawingPreparation]):
    """A model of drawings with its preparation, and the identity of both."""

    @property
    def is_conditional(self) -> bool:
        """Whether drawings can be decoded from a latent; False for the decoder alone."""
        return bool(self.model.is_conditional)

    def prepare(self, drawings: Sequence[Drawing], box: float | None = None) -> Tensor:
        """Rows `(B, N_max, 5)` of drawings; `box` is as for `DrawingPreparation.simplified`.

        Raises:
            DrawingError: one of them is not usable; the message names its place, from 1 on.
        """
        rows = np.empty((len(drawings), self.preprocessing.longest, 5), np.float32)
        for place, strokes in enumerate(drawings):
            try:
                rows[place] = self.preprocessing.apply(strokes, box)
            except DrawingError as exc:
                raise DrawingError(f"drawing {place + 1} {exc}") from exc
        return torch.from_numpy(rows)

    def embed(self, drawings: Sequence[Drawing]) -> NDArray[np.float32]:
        """Search vectors `(B, dim)` with unit norm for metric cosine; raises DrawingError as `prepare` does."""
        vectors: NDArray[np.float32] = self.encode(self.prepare(drawings)).numpy()
        return vectors

    @torch.inference_mode()
    def encode(self, rows: Tensor) -> Tensor:
        """Search vectors `(B, dim)` float32 on the CPU of rows `(B, N_max, 5)`, as from `prepare`."""
        vectors = [self.model.embed(part).float().cpu() for part in self._parts(rows)]
        found = torch.cat(vectors) if vectors else torch.empty(0, self.dim)
        return torch.nn.functional.normalize(found, dim=1) if self.metric == "cosine" else found

    def latents(self, drawings: Sequence[Drawing]) -> Tensor:
        """Posterior means `(B, latent_dim)`; raises EncoderError for the decoder alone."""
        return self.latents_of(self.prepare(drawings))

    @torch.inference_mode()
    def latents_of(self, rows: Tensor) -> Tensor:
        """Posterior means of rows `(B, N_max, 5)`, as from `prepare`; otherwise as `latents`."""
        self._check_conditional("drawings have no latent")
        return torch.cat([self.model.latent(part).cpu() for part in self._parts(rows)])

    @torch.inference_mode()
    def decode(self, latents: Tensor, *, temperature: float = 0.0, seed: int = 0) -> list[Drawn]:
        """Drawings of latents `(B, latent_dim)`.

        Args:
            temperature: 0 draws the most probable row at every step; 1 draws from the model's distribution.
        """
        self._check_conditional("it has no latent to decode")
        noise = _generator(temperature, seed)
        parts = [self.model.decode(part, noise, temperature=temperature) for part in self._parts(latents)]
        return [drawn for part in parts for drawn in self._drawn(part)]

    def reconstruct(self, drawings: Sequence[Drawing], *, temperature: float = 0.0, seed: int = 0) -> list[Drawn]:
        """The model's redrawing of each drawing, from its posterior mean."""
        return self.decode(self.latents(drawings), temperature=temperature, seed=seed)

    @torch.inference_mode()
    def sample(self, count: int, *, temperature: float = 1.0, seed: int = 0) -> list[Drawn]:
        """Drawings of latents from N(0, I), or of the decoder alone."""
        noise = _generator(temperature, seed)
        counts = [min(AT_ONCE, count - first) for first in range(0, count, AT_ONCE)]
        parts = [self.model.sample(part, noise, temperature=temperature) for part in counts]
        return [drawn for part in parts for drawn in self._drawn(part)]

    @torch.inference_mode()
    def complete(
        self,
        unfinished: Drawing,
        *,
        box: float | None = None,
        variants: int = 1,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> list[Drawn]:
        """Continuations of an unfinished drawing, whose points they begin with.

        Args:
            box: side that the finished drawing is to have, in the strokes' unit; None for that of the unfinished one.

        Raises:
            DrawingError: the drawing is not usable.
        """
        begun = self.prepare([unfinished], box).to(self.device).expand(variants, -1, -1)
        noise = _generator(temperature, seed)
        return list(self._drawn(self.model.complete(begun, noise, temperature=temperature)))

    @torch.inference_mode()
    def log_likelihood(self, drawings: Sequence[Drawing]) -> Tensor:
        """The bound in nats per drawing `(B,)`, one sample from a fixed seed; exact for the decoder alone."""
        noise = torch.Generator().manual_seed(0)
        rows = self.prepare(drawings)
        return torch.cat([self.model.elbo(Batch(x, x), generator=noise).elbo.cpu() for x in self._parts(rows)])

    def _parts(self, rows: Tensor) -> Iterator[Tensor]:
        """Parts of rows or latents, on the device."""
        for first in range(0, len(rows), AT_ONCE):
            yield rows[first : first + AT_ONCE].to(self.device)

    def _drawn(self, rows: Tensor) -> Iterator[Drawn]:
        for each in rows.float().cpu().numpy():
            ends = np.flatnonzero(each[:, 4] > 0.5)
            points = int(ends[0]) if len(ends) else len(each)
            yield Drawn(self.preprocessing.strokes_of(each), points, bool(len(ends)))

    def _check_conditional(self, reason: str) -> None:
        if not self.is_conditional:
            raise EncoderError(f"this encoder is a decoder alone (latent_dim 0): {reason}; use one with a latent")


def load_sketch_encoder(ref: str | Path, device: str | torch.device = "cpu") -> SketchEncoder:
    """Load an encoder of drawings by directory or name.

    Raises:
        EncoderError: files of the directory are missing, damaged or of another format, the encoder takes images, or
            the device is not available.
    """
    return SketchEncoder.load(describe_sketch_encoder(ref), device)


def slerp(first: Tensor, last: Tensor, steps: int) -> Tensor:
    """Latents `(steps, L)` on the arc from one latent `(L,)` to another, by spherical linear interpolation.

    White: Sampling Generative Networks, 2016, https://arxiv.org/abs/1609.04468, section 2.1.
    """
    cosine = torch.nn.functional.cosine_similarity(first, last, dim=0).clamp(-1.0, 1.0)
    angle = torch.acos(cosine)
    shares = torch.linspace(0.0, 1.0, steps)[:, None]
    if float(torch.sin(angle)) < 1e-4:
        return torch.lerp(first.expand(steps, -1), last.expand(steps, -1), shares)
    found: Tensor = (torch.sin((1.0 - shares) * angle) * first + torch.sin(shares * angle) * last) / torch.sin(angle)
    return found


def _generator(temperature: float, seed: int) -> torch.Generator:
    if not temperature >= 0:
        raise EncoderError(f"temperature must be at least 0, not {temperature}")
    return torch.Generator().manual_seed(seed)
