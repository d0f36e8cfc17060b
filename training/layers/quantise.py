"""Vector quantisation: each vector of a map is replaced by the nearest code of a codebook.

van den Oord, Vinyals, Kavukcuoglu: Neural Discrete Representation Learning, 2017, https://arxiv.org/abs/1711.00937.
z_q = e_k with k = argmin_j |z_e - e_j| (equations 1 and 2); the gradient of z_q is copied to z_e (straight through).
The codebook learns by its own loss, |sg[z_e] - e|^2 (equation 3, second term), or by moving averages (appendix A.1):
    N_k <- g N_k + (1 - g) n_k,   m_k <- g m_k + (1 - g) sum z_e,   e_k = m_k / N_k,
with N_k smoothed as (N_k + eps) / (sum N + K eps) sum N, so that unused codes stay finite. The commitment loss is
beta |z_e - sg[e]|^2 (third term).

Differs from the paper: the codebook is initialised with vectors of the first batch, and rarely used codes are
reset to vectors of the current batch (Dhariwal et al.: Jukebox, 2020, https://arxiv.org/abs/2005.00341, section 3.1).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from training.parallel.sums import rows_at, rows_of_all, summed

Update = Literal["ema", "loss"]
EPSILON = 1e-5


class Quantised(NamedTuple):
    """A quantised map.

    Args:
        z: code vectors `(B, D, h, w)`, with the gradient of the input.
        codes: code indices `(B, h, w)` int64.
        loss: commitment loss, plus the codebook loss with `update="loss"`; mean squares, a scalar.
        perplexity: exp of the entropy of the codes in the batch, between 1 and K; a scalar.
    """

    z: Tensor
    codes: Tensor
    loss: Tensor
    perplexity: Tensor


class VectorQuantiser(nn.Module):
    """A codebook of K vectors of D numbers.

    Args:
        codes: K.
        code_dim: D.
        update: `ema` or `loss`.
        decay: g of the moving averages, in (0, 1).
        commitment: beta.
        restart: a code is reset when its moving average of vectors per batch falls below this; 0 never resets.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    started: Tensor
    restarted: Tensor

    def __init__(
        self, codes: int, code_dim: int, *, update: Update, decay: float, commitment: float, restart: float
    ) -> None:
        super().__init__()
        if not 0.0 < decay < 1.0:
            raise ValueError(f"decay must lie between 0 and 1, not {decay}")
        self.update = update
        self.decay = decay
        self.commitment = commitment
        self.restart = restart
        start = torch.randn(codes, code_dim)
        if update == "ema":
            self.register_buffer("codebook", start)
        else:
            self.codebook = nn.Parameter(start)
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", start.detach().clone())
        self.register_buffer("started", torch.tensor(False))
        self.register_buffer("restarted", torch.zeros(codes, dtype=torch.bool), persistent=False)
        self._has_started = False  # spares reading the buffer from a GPU at every step

    def forward(self, z: Tensor) -> Quantised:
        """Quantise a map `(B, D, h, w)`; in training mode, update the moving averages and the codebook."""
        batch, _, height, width = z.shape
        vectors = z.permute(0, 2, 3, 1).flatten(0, 2)  # (N, D)
        if self.training and not self._has_started:
            self._start(vectors.detach(), height * width)
            self._has_started = True
        codes = self.nearest(vectors)
        chosen = embedding(codes, self.codebook)
        loss = self.commitment * torch.square(vectors - chosen.detach()).mean()
        if self.update == "loss":
            loss = loss + torch.square(vectors.detach() - chosen).mean()
        used = summed(torch.zeros_like(self.counts).index_add(0, codes, torch.ones_like(vectors[:, 0])))
        share = used / used.sum()
        perplexity = torch.exp(-(share * torch.log(share + 1e-10)).sum())
        if self.training:
            self._learn(vectors.detach(), codes, used, height * width)
        straight = vectors + (chosen - vectors).detach()
        quantised = straight.reshape(batch, height, width, -1).permute(0, 3, 1, 2)
        return Quantised(quantised, codes.reshape(batch, height, width), loss, perplexity.detach())

    def nearest(self, vectors: Tensor) -> Tensor:
        """Indices `(N,)` of the nearest codes of vectors `(N, D)`."""
        # Mixed precision would compute the product in halves, which cannot distinguish close codes.
        with torch.autocast(vectors.device.type, enabled=False):
            # |v|^2 is the same for all codes of a vector and is omitted.
            distances = torch.square(self.codebook).sum(dim=1) - 2.0 * vectors @ self.codebook.T
        return distances.argmin(dim=1)

    def vectors_of(self, codes: Tensor) -> Tensor:
        """Code vectors `(B, D, h, w)` of codes `(B, h, w)`."""
        return embedding(codes, self.codebook).permute(0, 3, 1, 2)

    def forget_restarted(self, optimiser: torch.optim.Optimizer) -> None:
        """Clear what belonged to the former vectors of the codes that the last batch reset; call it before a step.

        That is the gradient and, in optimisers such as Adam, the moments; they would move the new vector at once in a
        direction that was right for the old one.
        """
        if self.update != "loss":
            return
        rows, parameter = self.restarted, self.codebook
        kept = optimiser.state.get(parameter, {}).values()
        for each in (parameter.grad, *kept):
            if isinstance(each, Tensor) and each.shape == parameter.shape:
                each.masked_fill_(rows[:, None], 0.0)

    @torch.no_grad()
    def _start(self, vectors: Tensor, places: int) -> None:
        if bool(self.started):
            return
        self.codebook.copy_(_pick(vectors, len(self.codebook), places))
        self.sums.copy_(self.codebook)
        self.started.fill_(True)

    @torch.no_grad()
    def _learn(self, vectors: Tensor, codes: Tensor, used: Tensor, places: int) -> None:
        self.counts.mul_(self.decay).add_(used, alpha=1.0 - self.decay)
        if self.update == "ema":
            sums = summed(torch.zeros_like(self.sums).index_add_(0, codes, vectors))
            self.sums.mul_(self.decay).add_(sums, alpha=1.0 - self.decay)
            total = self.counts.sum()
            smoothed = (self.counts + EPSILON) / (total + len(self.counts) * EPSILON) * total
            self.codebook.copy_(self.sums / smoothed[:, None])
        if self.restart > 0:
            self._reset(vectors, self.counts < self.restart, places)

    def _reset(self, vectors: Tensor, dead: Tensor, places: int) -> None:
        """Reset the dead codes `(K,)` bool; a vector is drawn for each, so that nothing waits for their number."""
        fresh, most = _pick(vectors, len(dead), places), max(1.0, self.restart)
        self.codebook.copy_(torch.where(dead[:, None], fresh, self.codebook))
        self.sums.copy_(torch.where(dead[:, None], fresh * most, self.sums))
        self.counts.masked_fill_(dead, most)
        self.restarted = dead


def _pick(vectors: Tensor, count: int, places: int) -> Tensor:
    """Random rows, without repetition if there are enough, with slight noise so that no two codes coincide.

    Args:
        vectors: `(N, D)`; rows of all processes that share a batch are picked from.
        places: number of vectors of one image.
    """
    available = rows_of_all(len(vectors))
    order = torch.randperm(available, device=vectors.device)
    rows = rows_at(vectors, order.repeat(-(-count // available))[:count], places)
    if available < 2:
        return rows
    values = available * vectors.shape[1]
    mean = summed(vectors.sum()) / values
    deviation = (summed(torch.square(vectors - mean).sum()) / (values - 1)).sqrt()
    return rows + 1e-3 * deviation * torch.randn_like(rows)
