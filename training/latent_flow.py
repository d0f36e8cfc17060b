"""A flow over the latents or search vectors of an encoder: an exact density, and a prior for a VAE's latents.

Layers of Glow (`training.layers.flow`) over the whitened principal axes of the vectors. With all axes, it is a density
of the vectors themselves, which can be drawn, and which replaces N(0, I) as the prior of a VAE that is trained already:
the aggregate posterior of the training images differs from N(0, I), and a better fit of it raises the bound
    log p(x) >= E_q [ log p(x | z) + log p(z) - log q(z | x) ]
(Tomczak, Welling: VAE with a VampPrior, 2018, https://arxiv.org/abs/1705.07120, section 2; a flow as the prior: Chen et
al.: Variational Lossy Autoencoder, 2017, https://arxiv.org/abs/1611.02731, section 3.2, there trained jointly).
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.files import publish_file
from training.fitting.density import DensitySettings, fit_density
from training.layers.search import SearchSpace
from training.layers.vector_flow import VectorFlow, VectorFlowConfig
from training.vector_density import DENSITY_FILE, FORMAT, DensitySpec, read_density

REFERENCE = 2000  # held-out log-densities that are stored at most
FEWEST = 20  # held-out vectors


@dataclass(frozen=True, kw_only=True)
class LatentFlowConfig:
    """Configuration of `LatentFlow`.

    Args:
        vector_dim: size of the vectors.
        dim: number of principal axes that the flow describes, at least 2; None for all.
        steps, hidden: as in `VectorFlowConfig`.
    """

    vector_dim: int
    dim: int | None = None
    steps: int = 6
    hidden: tuple[int, ...] = (128, 128)

    @property
    def axes(self) -> int:
        return self.dim or self.vector_dim


class LatentFlow(nn.Module):
    """A density of vectors `(*, vector_dim)`.

    Example:
        >>> flow = LatentFlow(LatentFlowConfig(vector_dim=8, steps=2))
        >>> flow.log_prob(torch.zeros(3, 5, 8)).shape
        torch.Size([3, 5])
    """

    reference: Tensor

    def __init__(self, config: LatentFlowConfig) -> None:
        super().__init__()
        self.config = config
        self.space = SearchSpace(config.vector_dim, config.axes, whitening=1.0)
        self.flow = VectorFlow(
            VectorFlowConfig(dim=config.axes, steps=config.steps, hidden=config.hidden, permutation="1x1", actnorm=True)
        )
        self.register_buffer("reference", torch.zeros(1))

    @property
    def describes_vectors(self) -> bool:
        """Whether the density is of the vectors themselves, and not of a part of their axes."""
        return self.config.axes == self.config.vector_dim

    def fit(self, train: Tensor, held_out: Tensor, settings: DensitySettings) -> float:
        """Fit the axes and the flow; returns the mean negative log-density of calibration vectors in nats.

        Args:
            train: `(N, vector_dim)`.
            held_out: of other items; every second one chooses the epoch, the rest calibrate `typicality`.

        Raises:
            ValueError: there are too few held-out vectors.
        """
        if len(held_out) < FEWEST:
            raise ValueError(f"a density needs at least {FEWEST} held-out vectors, not {len(held_out)}")
        self.space.fit(train)
        fit_density(self.flow, self.space(train), self.space(held_out[::2]), settings)
        with torch.no_grad():
            found = self.flow.log_prob(self.space(held_out[1::2]))
        places = torch.linspace(0, len(found) - 1, min(REFERENCE, len(found))).round().long()
        self.reference = found.sort().values[places]
        return -float(self.log_prob(held_out[1::2]).detach().double().mean())

    def log_prob(self, vectors: Tensor) -> Tensor:
        """Exact log-density in nats `(*)` of vectors `(*, vector_dim)`; without all axes, of the axes that are kept."""
        flat = self.flow.log_prob(self.space(vectors.reshape(-1, vectors.shape[-1])))
        if self.describes_vectors:
            flat = flat + torch.linalg.slogdet(self.space.projection).logabsdet
        return flat.reshape(vectors.shape[:-1])

    @torch.no_grad()
    def typicality(self, vectors: Tensor) -> Tensor:
        """The fraction `(N,)` of held-out vectors whose density is at most that of each of `(N, vector_dim)`."""
        found = self.flow.log_prob(self.space(vectors))
        return torch.searchsorted(self.reference, found, side="right") / len(self.reference)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator | None = None, *, temperature: float = 1.0) -> Tensor:
        """Vectors `(count, vector_dim)`.

        Raises:
            ValueError: the flow describes only a part of the axes.
        """
        if not self.describes_vectors:
            raise ValueError(
                f"the flow describes {self.config.axes} of {self.config.vector_dim} axes; fit one with all axes"
            )
        drawn = self.flow.sample(count, generator, temperature=temperature)
        vectors: Tensor = torch.linalg.solve(self.space.projection.T, drawn.T).T + self.space.offset
        return vectors

    def save(self, directory: Path, encoder_id: str) -> Path:
        """Write `density.npz` into an encoder directory; `training.vector_density` reads it without PyTorch."""
        config = self.config
        settings = {
            "format": FORMAT,
            "encoder_id": encoder_id,
            "vector_dim": config.vector_dim,
            "dim": config.axes,
            "steps": config.steps,
            "hidden": list(config.hidden),
        }
        arrays = {name: value.detach().cpu().numpy() for name, value in self.state_dict().items()}
        buffer = io.BytesIO()
        np.savez(buffer, settings=np.frombuffer(json.dumps(settings).encode(), np.uint8), **arrays)
        return publish_file(directory / DENSITY_FILE, buffer.getvalue())


def load_latent_flow(directory: Path) -> tuple[LatentFlow, DensitySpec]:
    """The flow beside an encoder, and its settings; raises EncoderError as `read_density` does."""
    spec, arrays = read_density(directory)
    flow = LatentFlow(LatentFlowConfig(vector_dim=spec.vector_dim, dim=spec.dim, steps=spec.steps, hidden=spec.hidden))
    flow.reference = torch.from_numpy(arrays["reference"])
    state = {name: torch.from_numpy(arrays[name]) for name in spec.shapes()}
    flow.load_state_dict({**flow.state_dict(), **state})
    return flow.eval(), spec
