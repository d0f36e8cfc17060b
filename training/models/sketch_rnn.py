"""Sketch-RNN: a variational autoencoder of drawings as sequences of pen movements.

Ha, Eck: A Neural Representation of Sketch Drawings, 2017, https://arxiv.org/abs/1704.03477. A drawing is `(N_max, 5)`
rows (`training.layers.strokes`): N_s points, then rows (0, 0, 0, 0, 1). A bidirectional LSTM reads the points;
    z = mu + sigma N(0, I),  mu = W_mu h + b_mu,  sigma = exp(sigma_hat / 2)                             (equation 2)
    [h_0; c_0] = tanh(W_z z + b_z),  y_i = W_y LSTM([S_{i-1}; z]) + b_y,  S_0 = (0, 0, 1, 0, 0)    (equations 3 to 7)
and y_i is the distribution of row i. With the weight w_KL, the floor KL_min and its annealing, training minimises
    L_s = -1/N_max sum_{i <= N_s} log p(dx_i, dy_i),  L_p = -1/N_max sum_{i <= N_max} log q(p_i)         (equation 9)
    L_KL = 1/N_z sum_j KL(N(mu_j, sigma_j^2) || N(0, 1))                                            (equation 10)
    L_s + L_p + w_KL eta_t max(L_KL, KL_min),  eta_t = 1 - (1 - eta_min) R^t                 (equation 11, appendix)
Sums are means over the batch. With `latent_dim` 0 there is no encoder: the decoder alone, from h_0 = c_0 = 0, is the
paper's unconditional model (section 3.3), and its latent is the mean of its states over the points.

Differs from the paper: an LSTM without layer normalisation and recurrent dropout, in place of a HyperLSTM; a lower
bound on the deviations of the mixture, as repeated offsets would make its density infinite. With `places`, the encoder
reads where each point is beside how it was reached, and with `pooling` mean, h is the mean of its states over the
points instead of the last ones: either helps it to see one figure in strokes of another order. `input_dropout` hides
rows from the decoder in training, which must then take more from z: Bowman et al.: Generating Sentences from a
Continuous Space, 2016, https://arxiv.org/abs/1511.06349, section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from training.layers.checks import check_at_least, check_choice, check_search, check_share
from training.layers.foreground import EncoderFeatures
from training.layers.gaussian import GaussianHeads, draw, kl_to_standard_normal
from training.layers.search import Moments, SearchSpace, Turn
from training.layers.strokes import END, RowDistribution, drawing_nats, lengths_of, row_distribution
from training.parallel.draws import uniform
from training.parallel.sums import mean_of_rows
from training.protocols import Batch, Elbo, Loss, Posterior
from training.reference import Metric

State = tuple[Tensor, Tensor]
Pooling = Literal["last", "mean"]


@dataclass(frozen=True, kw_only=True)
class SketchRnnConfig:
    """Configuration of `SketchRnn`.

    Args:
        longest: N_max, rows of a drawing: at most `longest - 1` points, and the end.
        latent_dim: N_z; 0 for the decoder alone.
        encoder_hidden: units of the encoder's LSTM in each direction.
        places: whether the encoder also reads the place of each point from the drawing's mean point.
        pooling: h is made of the encoder's last states, or of the mean of all.
        decoder_hidden: units of the decoder's LSTM.
        input_dropout: fraction of the rows before that the decoder does not see in training.
        mixtures: M.
        kl_weight, kl_min: w_KL and KL_min.
        eta_min, decay: eta_min and R, by step.
        search_dim: number of principal axes of the latent in the search vector; None keeps all.
        whitening, turn: see `training.layers.search`.
    """

    longest: int = 128
    latent_dim: int = 128
    encoder_hidden: int = 256
    places: bool = False
    pooling: Pooling = "last"
    decoder_hidden: int = 512
    input_dropout: float = 0.0
    mixtures: int = 20
    kl_weight: float = 0.5
    kl_min: float = 0.2
    eta_min: float = 0.01
    decay: float = 0.99995
    search_dim: int | None = None
    whitening: float = 0.5
    turn: Turn = "pca"

    def __post_init__(self) -> None:
        check_at_least("longest", self.longest, 2)
        check_at_least("latent_dim", self.latent_dim, 0)
        for name in ("encoder_hidden", "decoder_hidden", "mixtures"):
            check_at_least(name, getattr(self, name), 1)
        for name in ("kl_weight", "kl_min"):
            check_at_least(name, getattr(self, name), 0)
        for name in ("eta_min", "decay", "input_dropout"):
            check_share(name, getattr(self, name))
        check_choice("pooling", self.pooling, get_args(Pooling))
        check_search(self.search_dim, self.described_dim, self.whitening, self.turn)

    @property
    def described_dim(self) -> int:
        """Numbers of the latent that search vectors are made of."""
        return self.latent_dim or self.decoder_hidden


class SketchLosses(NamedTuple):
    """The terms of the objective, scalars: L_s, L_p and L_KL (equations 9 and 10)."""

    offsets: Tensor
    pens: Tensor
    kl: Tensor


class StrokeEncoder(GaussianHeads):
    """A bidirectional LSTM over the points, and the heads of the posterior."""

    def __init__(self, config: SketchRnnConfig) -> None:
        super().__init__()
        self.places, self.pooling = config.places, config.pooling
        read = 7 if config.places else 5
        self.forwards = nn.LSTM(read, config.encoder_hidden, batch_first=True)
        self.backwards = nn.LSTM(read, config.encoder_hidden, batch_first=True)
        self.add_heads(2 * config.encoder_hidden, config.latent_dim)

    def forward(self, x: Tensor) -> Posterior:
        """The posterior of drawings `(B, N_max, 5)`."""
        lengths = lengths_of(x)
        # On a GPU, the longest length is not worth waiting for.
        longest = max(1, int(lengths.max())) if x.is_cpu else x.shape[1]
        indices = torch.arange(longest, device=x.device)
        is_point = (indices < lengths[:, None]).to(x.dtype)[..., None]
        inputs = x[:, : len(indices)]
        if self.places:
            inputs = torch.cat([inputs, _places(inputs, is_point)], dim=2)
        reversed_indices = (lengths[:, None] - 1 - indices).clamp(min=0)[..., None]
        states = [self.forwards(inputs)[0], self.backwards(_at(inputs, reversed_indices))[0]]
        if self.pooling == "mean":
            h = [(each * is_point).sum(1) / is_point.sum(1).clamp(min=1.0) for each in states]
        else:
            last = (lengths[:, None, None] - 1).clamp(min=0)
            h = [_at(each, last).squeeze(1) for each in states]
        return self.posterior(EncoderFeatures(torch.cat(h, dim=1), None))


class SketchRnn(nn.Module):
    """A Sketch-RNN; the search vector is the posterior mean in its `SearchSpace`.

    Example:
        >>> model = SketchRnn(SketchRnnConfig(longest=8, latent_dim=4, encoder_hidden=6, decoder_hidden=9, mixtures=2))
        >>> drawings = model.sample(3, torch.Generator().manual_seed(0))
        >>> drawings.shape, model.latent(drawings).shape
        (torch.Size([3, 8, 5]), torch.Size([3, 4]))
    """

    metric: Metric = "cosine"
    is_exportable = False  # ONNX Runtime's LSTM takes no drawings of different lengths as this one does

    def __init__(self, config: SketchRnnConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = StrokeEncoder(config) if config.latent_dim else None
        self.first = nn.Linear(config.latent_dim, 2 * config.decoder_hidden) if config.latent_dim else None
        self.decoder = nn.LSTM(5 + config.latent_dim, config.decoder_hidden, batch_first=True)
        self.output = nn.Linear(config.decoder_hidden, 6 * config.mixtures + 3)
        self.search = SearchSpace(
            config.described_dim, config.search_dim or config.described_dim, config.whitening, config.turn
        )

    @property
    def dim(self) -> int:
        return self.search.dim

    @property
    def is_conditional(self) -> bool:
        """Whether drawings have a latent that they can be decoded from."""
        return self.encoder is not None

    def posterior(self, x: Tensor, label: Tensor | None = None) -> Posterior:
        """q(z | x) of drawings `(B, N_max, 5)`; labels are ignored.

        Raises:
            ValueError: the model has no encoder.
        """
        if self.encoder is None:
            raise ValueError("latent_dim is 0: the model has no encoder")
        q: Posterior = self.encoder(x)
        return q

    def latent(self, x: Tensor) -> Tensor:
        """Posterior means, or means of the decoder's states, `(B, described_dim)`, of drawings `(B, N_max, 5)`."""
        if self.encoder is not None:
            return self.posterior(x).mean
        is_point = 1.0 - x[..., END:]
        return (self._states(x, self._no_latent(x)) * is_point).sum(1) / is_point.sum(1).clamp(min=1.0)

    def embed(self, x: Tensor) -> Tensor:
        vectors: Tensor = self.search(self.latent(x).to(x.dtype))
        return vectors

    def rows_given(self, x: Tensor, z: Tensor, hidden: float = 0.0) -> RowDistribution:
        """The distribution of each row of drawings `(B, N_max, 5)` given the rows before it and z `(B, latent_dim)`.

        Args:
            hidden: fraction of the rows before that are hidden from the decoder, at random.
        """
        return row_distribution(self.output(self._states(x, z, hidden)), self.config.mixtures)

    def losses(self, x: Tensor, z: Tensor, q: Posterior | None) -> SketchLosses:
        """L_s, L_p and L_KL of drawings `(B, N_max, 5)` with the latents z `(B, latent_dim)`."""
        nats = drawing_nats(self.rows_given(x, z, self.config.input_dropout if self.training else 0.0), x)
        kl = torch.zeros((), device=x.device) if q is None else mean_of_rows(kl_to_standard_normal(q)).mean()
        return SketchLosses(nats.offsets.mean() / x.shape[1], nats.pens.mean() / x.shape[1], kl)

    def eta(self, step: int) -> float:
        """Annealing factor of the KL at a step (0 is the first)."""
        return 1.0 - (1.0 - self.config.eta_min) * self.config.decay**step

    def loss(self, batch: Batch, step: int) -> Loss:
        """The objective at a training step, in the paper's units: nats per row of N_max, KL per latent."""
        q = self.posterior(batch.x) if self.is_conditional else None
        z = self._no_latent(batch.x) if q is None else draw(q, 1)[0]
        terms = self.losses(batch.target, z, q)
        eta = self.eta(step)
        penalty = self.config.kl_weight * eta * terms.kl.clamp(min=self.config.kl_min)
        scalars = {
            "offsets": terms.offsets.detach(),
            "pens": terms.pens.detach(),
            "kl": terms.kl.detach(),
            "eta": torch.tensor(eta),
        }
        objective = terms.offsets + terms.pens + (penalty if q is not None else 0.0)
        return Loss(objective, scalars, self.latent(batch.x) if q is None else q.mean, q)

    def elbo(self, batch: Batch, *, samples: int | None = None, generator: torch.Generator | None = None) -> Elbo:
        """The bound in nats per drawing of the offsets of its points and of its pen states up to the end.

        It is exact for the decoder alone, whose KL has no columns.
        """
        x = batch.target
        if not self.is_conditional:
            nats = drawing_nats(self.rows_given(x, self._no_latent(x)), x)
            total = -nats.offsets - nats.pens_to_end
            return Elbo(total, total, total.new_zeros(len(x), 0))
        q = self.posterior(batch.x)
        parts = [drawing_nats(self.rows_given(x, z), x) for z in draw(q, samples or 1, generator)]
        log_likelihood = torch.stack([-each.offsets - each.pens_to_end for each in parts]).mean(0)
        kl = kl_to_standard_normal(q)
        return Elbo(log_likelihood - kl.sum(1), log_likelihood, kl)

    def decode(
        self,
        latent: Tensor,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 0.0,
        begun: Tensor | None = None,
    ) -> Tensor:
        """Drawings `(B, N_max, 5)`, row by row, of latents `(B, latent_dim)`.

        A drawing that has not ended after N_max rows has no row with p3 = 1.

        Args:
            temperature: see `training.layers.strokes.RowDistribution.draw`; 0 leaves nothing to chance.
            begun: drawings `(B, N_max, 5)` whose points are kept and continued; None begins anew.
        """
        B, N = len(latent), self.config.longest
        rows = latent.new_zeros(B, N, 5)
        rows[..., END] = 1.0
        row, state = self._start(rows), self._first_state(latent)
        given = torch.zeros(B, dtype=torch.long, device=latent.device) if begun is None else lengths_of(begun)
        is_over = torch.zeros(B, dtype=torch.bool, device=latent.device)
        for place in range(N):
            hidden, state = self.decoder(torch.cat([row, latent], dim=1)[:, None], state)
            row = row_distribution(self.output(hidden[:, 0]), self.config.mixtures).draw(temperature, generator)
            if begun is not None:
                row = torch.where((place < given)[:, None], begun[:, place], row)
            row = torch.where(is_over[:, None], rows[:, place], row)
            rows[:, place] = row
            is_over = is_over | (row[:, END] > 0.5)
            if bool(is_over.all()):
                break
        return rows

    def reconstruct(self, x: Tensor, generator: torch.Generator | None = None, *, temperature: float = 0.0) -> Tensor:
        """Drawings `(B, N_max, 5)` decoded from the posterior means of drawings `(B, N_max, 5)`."""
        return self.decode(self.posterior(x).mean, generator, temperature=temperature)

    def sample(self, count: int, generator: torch.Generator | None = None, *, temperature: float = 1.0) -> Tensor:
        """Drawings `(count, N_max, 5)` of latents drawn from N(0, I)."""
        return self.decode(self.draw_latents(count, generator), generator, temperature=temperature)

    def complete(
        self, begun: Tensor, generator: torch.Generator | None = None, *, temperature: float = 1.0, candidates: int = 64
    ) -> Tensor:
        """Drawings `(B, N_max, 5)` that continue the points of unfinished ones.

        Given the points, z is drawn from its posterior by sampling importance resampling: of `candidates` latents from
        N(0, I), each is taken with the probability of the points under it.
        """
        latents = torch.cat([self._latent_of_beginning(each, candidates, generator) for each in begun])
        return self.decode(latents, generator, temperature=temperature, begun=begun)

    def draw_latents(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Latents `(count, latent_dim)` drawn from N(0, I)."""
        like = self.output.weight
        device = like.device if generator is None else generator.device
        shape = (count, self.config.latent_dim)
        return torch.randn(shape, generator=generator, dtype=like.dtype, device=device).to(like.device)

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> tuple[Self, Any]:
        """This model, with its search space fitted to the latents."""
        moments = Moments(self.config.described_dim)
        for batch in batches:
            moments.add(self.latent(batch.x))
        self.search.fit_moments(moments.mean, moments.covariance())
        return self, self.config

    def _latent_of_beginning(self, begun: Tensor, candidates: int, generator: torch.Generator | None) -> Tensor:
        """One latent `(1, latent_dim)` for an unfinished drawing `(N_max, 5)`."""
        if not self.is_conditional:
            return self._no_latent(begun[None])
        length = max(1, int(lengths_of(begun)))
        z = self.draw_latents(candidates, generator)
        points = begun[:length].expand(candidates, -1, -1)
        nats = drawing_nats(self.rows_given(points, z), points)
        shares = torch.softmax(-(nats.offsets + nats.pens).double(), dim=0).cpu()
        return z[torch.multinomial(shares, 1, generator=generator).to(z.device)]

    def _states(self, x: Tensor, z: Tensor, hidden: float = 0.0) -> Tensor:
        """The decoder's states `(B, N, decoder_hidden)` before each row of drawings `(B, N, 5)`."""
        before = torch.cat([self._start(x)[:, None], x[:, :-1]], dim=1)
        if hidden > 0:
            before = before * (uniform(*before.shape[:2], device=x.device) >= hidden)[..., None]
        inputs = torch.cat([before, z[:, None].expand(-1, x.shape[1], -1)], dim=2)
        states: Tensor = self.decoder(inputs, self._first_state(z))[0]
        return states

    def _first_state(self, z: Tensor) -> State:
        if self.first is None:
            zeros = z.new_zeros(1, len(z), self.config.decoder_hidden)
            return zeros, zeros
        h, c = torch.tanh(self.first(z)).chunk(2, dim=1)
        return h[None].contiguous(), c[None].contiguous()

    @staticmethod
    def _no_latent(x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 0)

    @staticmethod
    def _start(like: Tensor) -> Tensor:
        """S_0 `(B, 5)`, for drawings `(B, N, 5)`."""
        return like.new_tensor([0.0, 0.0, 1.0, 0.0, 0.0]).expand(len(like), -1)


def _at(values: Tensor, indices: Tensor) -> Tensor:
    """Rows `(B, K, F)` of values `(B, N, F)` at indices `(B, K, 1)`."""
    return values.gather(1, indices.expand(-1, -1, values.shape[2]))


def _places(rows: Tensor, is_point: Tensor) -> Tensor:
    """Places `(B, N, 2)` of the points of drawings `(B, N, 5)` from their mean; 0 where there is no point."""
    places = rows[..., :2].cumsum(1)
    mean = (places * is_point).sum(1, keepdim=True) / is_point.sum(1, keepdim=True).clamp(min=1.0)
    return (places - mean) * is_point
