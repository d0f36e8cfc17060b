"""A flow over the latents or search vectors of an encoder: an exact density, and a prior for a VAE's latents.

Layers of Glow (`training.layers.flow`) over the whitened principal axes of the vectors. With all axes, it is a density
of the vectors themselves, which can be drawn, and replaces N(0, I) as the prior of a VAE that is trained already:
the aggregate posterior of the training images differs from N(0, I), and a better fit of it raises the bound
    log p(x) >= E_q [ log p(x | z) + log p(z) - log q(z | x) ]
(Tomczak, Welling: VAE with a VampPrior, 2018, https://arxiv.org/abs/1705.07120, section 2; a flow as the prior: Chen et
al.: Variational Lossy Autoencoder, 2017, https://arxiv.org/abs/1611.02731, section 3.2, there trained jointly).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.encoder import Encoder
from training.errors import EncoderError
from training.fitting.density import DensitySettings, fit_density
from training.layers.gaussian import draw
from training.layers.priors import StandardNormal
from training.layers.search import SearchSpace
from training.layers.vector_flow import VectorFlow, VectorFlowConfig
from training.protocols import GenerativeModel, LabelDecodingModel, VariationalModel

FEWEST = 20  # held-out vectors
DRAWS = 4  # posterior samples of an image
HELD_OUT = 5  # every so-many-th image chooses the epoch
AT_ONCE = 64  # images whose posteriors are computed together


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

    def __init__(self, config: LatentFlowConfig) -> None:
        super().__init__()
        self.config = config
        self.space = SearchSpace(config.vector_dim, config.axes, whitening=1.0)
        self.flow = VectorFlow(
            VectorFlowConfig(dim=config.axes, steps=config.steps, hidden=config.hidden, permutation="1x1", actnorm=True)
        )

    @property
    def describes_vectors(self) -> bool:
        """Whether the density is of the vectors themselves, and not of a part of their axes."""
        return self.config.axes == self.config.vector_dim

    def fit(self, train: Tensor, held_out: Tensor, settings: DensitySettings) -> float:
        """Fit the axes and the flow; returns the mean negative log-density of evaluation vectors in nats.

        Args:
            train: `(N, vector_dim)`.
            held_out: of other items; every second one chooses the epoch, the rest evaluate.

        Raises:
            ValueError: there are too few held-out vectors.
        """
        if len(held_out) < FEWEST:
            raise ValueError(f"a density needs at least {FEWEST} held-out vectors, not {len(held_out)}")
        self.space.fit(train)
        fit_density(self.flow, self.space(train), self.space(held_out[::2]), settings)
        return -float(self.log_prob(held_out[1::2]).detach().double().mean())

    def log_prob(self, vectors: Tensor) -> Tensor:
        """Exact log-density in nats `(*)` of vectors `(*, vector_dim)`; without all axes, of the axes that are kept."""
        flat = self.flow.log_prob(self.space(vectors.reshape(-1, vectors.shape[-1])))
        if self.describes_vectors:
            flat = flat + torch.linalg.slogdet(self.space.projection).logabsdet
        return flat.reshape(vectors.shape[:-1])

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


@torch.no_grad()
def posterior_samples(encoder: Encoder, images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Latents `(count * N, L)` of images `(N, C, S, S)` in [0, 1], drawn from their posteriors, image after image."""
    posteriors = (encoder.model.posterior(part.to(encoder.device)) for part in torch.split(images, AT_ONCE))
    parts = [draw(q, count, generator).cpu() for q in posteriors]
    return torch.cat(parts, dim=1).flatten(0, 1)


def check_prior(encoder: Encoder) -> None:
    """Raises EncoderError if the family does not decode latents with the prior N(0, I)."""
    model = encoder.model
    decodes = isinstance(model, VariationalModel) and isinstance(model, GenerativeModel)
    if (
        not decodes
        or isinstance(model, LabelDecodingModel)
        or type(getattr(model, "prior", None)) is not StandardNormal
    ):
        raise EncoderError(f"family {encoder.family!r} has no prior N(0, I) of its latents that a flow could replace")


def fit_prior(encoder: Encoder, images: Tensor, *, epochs: int = 20, seed: int = 0) -> LatentFlow:
    """A flow over the latents of images `(N, C, S, S)` in [0, 1], to draw latents from in place of N(0, I).

    Raises:
        EncoderError: as for `check_prior`, or there are too few images.
    """
    check_prior(encoder)
    if len(images) < HELD_OUT * FEWEST // DRAWS:
        raise EncoderError(f"a prior needs at least {HELD_OUT * FEWEST // DRAWS} images, not {len(images)}")
    noise = torch.Generator().manual_seed(seed)
    held_out = torch.arange(len(images)) % HELD_OUT == 0
    train, others = (posterior_samples(encoder, images[part], DRAWS, noise) for part in (~held_out, held_out))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = LatentFlow(LatentFlowConfig(vector_dim=train.shape[1]))
    flow.fit(train, others, DensitySettings(epochs=epochs, lr=1e-3, seed=seed))
    return flow.eval()


@torch.no_grad()
def sample_images(
    encoder: Encoder, prior: LatentFlow, count: int, *, seed: int = 0, temperature: float = 1.0
) -> Tensor:
    """Mean images `(count, C, S, S)` in [0, 1] of latents drawn from a prior that `fit_prior` made."""
    latents = prior.sample(count, torch.Generator().manual_seed(seed), temperature=temperature)
    return torch.cat([encoder.model.decode(part.to(encoder.device)).cpu() for part in torch.split(latents, AT_ONCE)])
