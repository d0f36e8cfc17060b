"""DRAW: a recurrent variational autoencoder that draws an image in T steps, through windows of attention.

Gregor, Danihelka, Graves, Rezende, Wierstra: DRAW: A Recurrent Neural Network For Image Generation, 2015,
https://arxiv.org/abs/1502.04623. At step t, with the canvas c_t and the mean image s(c) of a canvas (equations 3 to 8),
    r_t = read(x, x - s(c_{t-1}), h_dec_{t-1})          h_enc_t = LSTM_enc(h_enc_{t-1}, [r_t, h_dec_{t-1}])
    z_t ~ Q(z_t | h_enc_t), a diagonal Gaussian         h_dec_t = LSTM_dec(h_dec_{t-1}, z_t)
    c_t = c_{t-1} + write(h_dec_t),
and the likelihood of x is that of c_T. The bound is E_Q [log p(x | c_T) - sum_t KL(Q(z_t | h_enc_t) || N(0, I))]
(equations 9 to 12). An image is generated from z_t drawn from N(0, I), without the encoder (section 2.3). With
attention, read and write go through windows of N x N filters (`training.layers.attention`); without, read gives both
images whole (equation 17) and write is linear (equation 18).

As each Q depends on the draws before it, the posterior of all steps is not one Gaussian. `latent` has the means
mu_1 .. mu_T, each given the means before it, one after the other: what `decode` draws from.

Differs from the paper: 8-bit likelihoods with one learnt scale beside the Bernoulli (`training.layers.likelihoods`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from training.layers.attention import Window, WindowHead, extent, read_patch, write_patch
from training.layers.checks import check_at_least, check_choice, check_image, check_search
from training.layers.foreground import EncoderFeatures
from training.layers.gaussian import GaussianHeads, kl_to_standard_normal, log_density, log_standard_normal
from training.layers.likelihoods import LikelihoodKind, PixelLikelihood
from training.layers.search import Moments, SearchSpace, Turn
from training.models.vae import BOUND_SAMPLES, VALUES_AT_ONCE
from training.parallel.draws import normal
from training.protocols import Batch, DrawingStep, Elbo, Likelihood, Loss, Posterior
from training.reference import Metric


@dataclass(frozen=True, kw_only=True)
class DrawConfig:
    """Configuration of `Draw`.

    Args:
        size: side of the images in pixels.
        channels: 1 or 3.
        steps: T.
        step_dim: size of each z_t.
        hidden: units of each of the two LSTMs.
        attention: read and write through windows of filters; otherwise whole images.
        read_size, write_size: filters N per axis of the windows, 2 to `size`; unused without attention.
        likelihood, scale: see `training.layers.likelihoods`.
        search_dim: number of principal axes of the means of all steps in the search vector; None keeps all.
        whitening, turn: see `training.layers.search`.
    """

    size: int = 32
    channels: int = 3
    steps: int = 16
    step_dim: int = 16
    hidden: int = 256
    attention: bool = True
    read_size: int = 5
    write_size: int = 5
    likelihood: LikelihoodKind = "gaussian"
    scale: float | None = None
    search_dim: int | None = None
    whitening: float = 0.5
    turn: Turn = "pca"

    def __post_init__(self) -> None:
        check_image(self.size, self.channels)
        for name in ("steps", "step_dim", "hidden"):
            check_at_least(name, getattr(self, name), 1)
        for name in ("read_size", "write_size"):
            if not 2 <= getattr(self, name) <= self.size:
                raise ValueError(f"{name} must be between 2 and the size ({self.size}), not {getattr(self, name)}")
        check_choice("likelihood", self.likelihood, get_args(LikelihoodKind))
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f"scale must be above 0, not {self.scale}")
        if self.scale is not None and self.likelihood == "bernoulli":
            raise ValueError("scale must be null for a bernoulli likelihood")
        check_search(self.search_dim, self.latent_dim, self.whitening, self.turn)

    @property
    def latent_dim(self) -> int:
        """Numbers of all steps together."""
        return self.steps * self.step_dim


class AttentiveReader(nn.Module):
    """Patches of the image and of the error image in one window."""

    def __init__(self, config: DrawConfig) -> None:
        super().__init__()
        self.filters = config.read_size
        self.dim = 2 * config.channels * config.read_size**2
        self.window = WindowHead(config.hidden, config.size, config.read_size)

    def forward(self, x: Tensor, error: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """The glimpse `(B, dim)`, and the extent of its window `(B, 5)`."""
        window: Window = self.window(h)
        patch = read_patch(torch.cat([x, error], dim=1), window, self.filters)
        return patch.flatten(1), extent(window, self.filters)


class WholeReader(nn.Module):
    """The image and the error image."""

    def __init__(self, config: DrawConfig) -> None:
        super().__init__()
        self.dim = 2 * config.channels * config.size**2

    def forward(self, x: Tensor, error: Tensor, h: Tensor) -> tuple[Tensor, None]:
        return torch.cat([x, error], dim=1).flatten(1), None


class AttentiveWriter(nn.Module):
    """A patch that is linear in the state, written through a window of its own."""

    def __init__(self, config: DrawConfig) -> None:
        super().__init__()
        self.size = config.size
        self.shape = (config.channels, config.write_size, config.write_size)
        self.patch = nn.Linear(config.hidden, math.prod(self.shape))
        self.window = WindowHead(config.hidden, config.size, config.write_size)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The addition to the canvas `(B, C, S, S)`, and the extent of its window `(B, 5)`."""
        window: Window = self.window(h)
        return write_patch(self.patch(h).reshape(-1, *self.shape), window, self.size), extent(window, self.shape[-1])


class WholeWriter(nn.Module):
    """An addition to the whole canvas that is linear in the state."""

    def __init__(self, config: DrawConfig) -> None:
        super().__init__()
        self.shape = (config.channels, config.size, config.size)
        self.canvas = nn.Linear(config.hidden, math.prod(self.shape))

    def forward(self, h: Tensor) -> tuple[Tensor, None]:
        return self.canvas(h).reshape(-1, *self.shape), None


class Drawing(NamedTuple):
    """The decoder between two steps: state and cells of its LSTM `(B, hidden)`, and the canvas `(B, C, S, S)`."""

    h: Tensor
    cells: Tensor
    canvas: Tensor
    written: Tensor | None = None  # extent of the window of the last step


class Inference(NamedTuple):
    """One step of the encoder, and what the decoder makes of it."""

    posterior: Posterior  # of z_t, `(B, step_dim)`
    z: Tensor
    drawing: Drawing
    read: Tensor | None


class Path(NamedTuple):
    """All steps: posteriors and draws `(B, latent_dim)`, and the last canvas."""

    posterior: Posterior
    z: Tensor
    canvas: Tensor


class Draw(nn.Module):
    """A DRAW network; the search vector is made of the posterior means of all steps in their `SearchSpace`.

    Example:
        >>> model = Draw(DrawConfig(size=16, steps=4, step_dim=3, hidden=16))
        >>> bound = model.elbo(Batch(torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16)))
        >>> bound.elbo.shape, bound.kl.shape
        (torch.Size([2]), torch.Size([2, 12]))
    """

    metric: Metric = "cosine"
    is_exportable = True  # to ONNX, with the steps unrolled

    def __init__(self, config: DrawConfig) -> None:
        super().__init__()
        self.config = config
        self.read = (AttentiveReader if config.attention else WholeReader)(config)
        self.write = (AttentiveWriter if config.attention else WholeWriter)(config)
        self.encoder = nn.LSTMCell(self.read.dim + config.hidden, config.hidden)
        self.decoder = nn.LSTMCell(config.step_dim, config.hidden)
        self.heads = GaussianHeads()
        self.heads.add_heads(config.hidden, config.step_dim)
        self.first_encoder = nn.Parameter(torch.zeros(config.hidden))
        self.first_decoder = nn.Parameter(torch.zeros(config.hidden))
        self.first_canvas = nn.Parameter(torch.zeros(config.channels, config.size, config.size))
        self.likelihood = PixelLikelihood(config.likelihood, config.channels, config.scale)
        self.search = SearchSpace(
            config.latent_dim, config.search_dim or config.latent_dim, config.whitening, config.turn
        )

    @property
    def dim(self) -> int:
        return self.search.dim

    def infer(self, x: Tensor, noise: Tensor | None = None) -> Iterator[Inference]:
        """The steps of encoder and decoder on images `(B, C, S, S)` in [0, 1].

        Args:
            noise: standard normal numbers of the draws, `(B, steps, step_dim)`; None takes the means.
        """
        count = x.shape[0]
        h, cells = self.first_encoder.expand(count, -1), x.new_zeros(count, self.config.hidden)
        drawing = self.begin(count)
        for step in range(self.config.steps):
            glimpse, window = self.read(x, x - self._expected(drawing.canvas), drawing.h)
            h, cells = self.encoder(torch.cat([glimpse, drawing.h], dim=1), (h, cells))
            q = self.heads.posterior(EncoderFeatures(h, None))
            z = q.mean if noise is None else q.mean + torch.exp(0.5 * q.log_variance) * noise[:, step]
            drawing = self.draw(drawing, z)
            yield Inference(q, z, drawing, window)

    def begin(self, count: int) -> Drawing:
        """`count` drawings before the first step."""
        canvas = self.first_canvas.expand(count, -1, -1, -1)
        return Drawing(self.first_decoder.expand(count, -1), canvas.new_zeros(count, self.config.hidden), canvas)

    def draw(self, drawing: Drawing, z: Tensor) -> Drawing:
        """One step of the decoder, of z_t `(B, step_dim)`."""
        h, cells = self.decoder(z, (drawing.h, drawing.cells))
        added, window = self.write(h)
        return Drawing(h, cells, drawing.canvas + added, window)

    def posterior(self, x: Tensor, label: Tensor | None = None) -> Posterior:
        """Q of all steps `(B, latent_dim)`, each given the means of those before it; labels are ignored."""
        return self._path(x).posterior

    def latent(self, x: Tensor) -> Tensor:
        """The posterior means of all steps `(B, latent_dim)` of images `(B, C, S, S)` in [0, 1]."""
        return self.posterior(x).mean

    def embed(self, x: Tensor) -> Tensor:
        vectors: Tensor = self.search(self.latent(x).to(x.dtype))
        return vectors

    def decode(self, latent: Tensor) -> Tensor:
        """Mean images `(B, C, S, S)` in [0, 1] of latents `(B, latent_dim)`."""
        return self.likelihood.mean(self._parameter(self._drawings(latent)[-1].canvas))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.likelihood.mean(self._parameter(self._path(x).canvas))

    def reconstruct_in_steps(self, x: Tensor) -> list[DrawingStep]:
        """See `training.protocols.StepwiseModel`."""
        return [self._shown(step.drawing, step.read) for step in self.infer(x)]

    def sample(self, count: int, generator: torch.Generator | None = None, *, temperature: float = 1.0) -> Tensor:
        """Mean images `(count, C, S, S)` in [0, 1] of latents drawn from N(0, temperature^2 I)."""
        return self.decode(temperature * self._noise(count, generator).flatten(1))

    def sample_in_steps(self, count: int, generator: torch.Generator | None = None) -> list[DrawingStep]:
        """See `training.protocols.StepwiseModel`."""
        drawings = self._drawings(self._noise(count, generator).flatten(1))
        return [self._shown(drawing, None) for drawing in drawings]

    def elbo(self, batch: Batch, *, samples: int | None = None, generator: torch.Generator | None = None) -> Elbo:
        """The bound of the targets in nats per image, with the analytic KL of each step given the draws before it.

        Args:
            samples: Monte-Carlo samples of all z_t together; None for 1.
            generator: on the CPU; None uses the global one.
        """
        count = samples or 1
        return self._bound(batch, self._sampled(batch.x, count, generator), count)

    def importance_weighted(self, batch: Batch, samples: int, generator: torch.Generator | None = None) -> Tensor:
        """The bound of Burda 2016 (see `training.models.vae`) with K samples of all z_t in nats per image `(B,)`.

        Args:
            samples: K; memory is bounded, as the samples are drawn in parts.
        """
        at_once = max(1, VALUES_AT_ONCE // (len(batch.x) * self.values(batch.x)))
        weights = []
        for first in range(0, samples, at_once):
            count = min(at_once, samples - first)
            path = self._sampled(batch.x, count, generator)
            log_ratio = log_standard_normal(path.z) - log_density(path.z, path.posterior)
            weights.append(self._log_p(batch, path.canvas, count) + log_ratio.reshape(count, -1))
        return torch.logsumexp(torch.cat(weights), dim=0) - math.log(samples)

    def values(self, x: Tensor) -> int:
        """Number of values per image that the likelihood of images `(B, C, S, S)` covers."""
        return self.config.channels * self.config.size**2

    def log_likelihood(self, x: Tensor) -> Likelihood:
        """The importance-weighted bound with 16 samples from a fixed seed."""
        nats = self.importance_weighted(Batch(x, x), BOUND_SAMPLES, torch.Generator().manual_seed(0))
        return Likelihood(nats, exact=False)

    def loss(self, batch: Batch, step: int) -> Loss:
        """The negative bound in nats per image; in training, latent and posterior are given the draws."""
        path = self._sampled(batch.x, 1, None)
        bound = self._bound(batch, path, 1)
        scalars = {
            "elbo": bound.elbo.mean().detach(),
            "kl": bound.kl.sum(dim=1).mean().detach(),
            "log_likelihood": bound.log_likelihood.mean().detach(),
        }
        q = path.posterior if self.training else self.posterior(batch.x)
        return Loss(-bound.elbo.mean(), scalars, q.mean, q)

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> tuple[Self, Any]:
        """This model, with its search space fitted to the latents."""
        moments = Moments(self.config.latent_dim)
        for batch in batches:
            moments.add(self.latent(batch.x))
        self.search.fit_moments(moments.mean, moments.covariance())
        return self, self.config

    def _path(self, x: Tensor, noise: Tensor | None = None) -> Path:
        steps = list(self.infer(x, noise))
        mean, log_variance, z = (
            torch.cat(parts, dim=1) for parts in zip(*((*step.posterior, step.z) for step in steps), strict=True)
        )
        return Path(Posterior(mean, log_variance), z, steps[-1].drawing.canvas)

    def _sampled(self, x: Tensor, samples: int, generator: torch.Generator | None) -> Path:
        """The path of each image along `samples` draws: rows sample by sample, `(samples * B, ...)`."""
        return self._path(x.repeat(samples, 1, 1, 1), self._noise(samples * len(x), generator))

    def _noise(self, count: int, generator: torch.Generator | None) -> Tensor:
        """Standard normal numbers `(count, steps, step_dim)`, from the device's generator if none is given."""
        like = self.first_decoder
        steps, size = self.config.steps, self.config.step_dim
        return normal(count, steps, size, device=like.device, dtype=like.dtype, generator=generator)

    def _drawings(self, latent: Tensor) -> list[Drawing]:
        """The drawings after each step, of latents `(B, latent_dim)`."""
        drawings = [self.begin(len(latent))]
        for z in latent.reshape(-1, self.config.steps, self.config.step_dim).unbind(dim=1):
            drawings.append(self.draw(drawings[-1], z))
        return drawings[1:]

    def _bound(self, batch: Batch, path: Path, samples: int) -> Elbo:
        kl = kl_to_standard_normal(path.posterior).reshape(samples, -1, self.config.latent_dim).mean(dim=0)
        log_likelihood = self._log_p(batch, path.canvas, samples).mean(dim=0)
        return Elbo(log_likelihood - kl.sum(dim=1), log_likelihood, kl)

    def _log_p(self, batch: Batch, canvas: Tensor, samples: int) -> Tensor:
        """log p(target | canvas) `(samples, B)` of canvases `(samples * B, C, S, S)`."""
        parameter = self._parameter(canvas).reshape(samples, -1, *canvas.shape[1:])
        nats: Tensor = self.likelihood(batch.target, parameter, batch.weight)
        return nats

    def _parameter(self, canvas: Tensor) -> Tensor:
        """The parameter of the likelihood: a canvas of zeros is grey."""
        return canvas if self.config.likelihood == "bernoulli" else 0.5 + 0.5 * canvas

    def _expected(self, canvas: Tensor) -> Tensor:
        """s(c), without bounds for means, so that no gradient is lost."""
        return torch.sigmoid(canvas) if self.config.likelihood == "bernoulli" else self._parameter(canvas)

    def _shown(self, drawing: Drawing, read: Tensor | None) -> DrawingStep:
        return DrawingStep(self.likelihood.mean(self._parameter(drawing.canvas)), read, drawing.written)
