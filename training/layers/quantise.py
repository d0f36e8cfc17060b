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

    def forward(self, z: Tensor) -> Quantised:
        """Quantise a map `(B, D, h, w)`; in training mode, update the moving averages and the codebook."""
        vectors = z.permute(0, 2, 3, 1).flatten(0, 2)  # (N, D)
        if self.training:
            self._start(vectors.detach())
        codes = self.nearest(vectors)
        chosen = embedding(codes, self.codebook)
        loss = self.commitment * torch.square(vectors - chosen.detach()).mean()
        if self.update == "loss":
            loss = loss + torch.square(vectors.detach() - chosen).mean()
        used = torch.zeros_like(self.counts).index_add(0, codes, torch.ones_like(vectors[:, 0]))
        share = used / used.sum()
        perplexity = torch.exp(-(share * torch.log(share + 1e-10)).sum())
        if self.training:
            self._learn(vectors.detach(), codes, used)
        straight = vectors + (chosen - vectors).detach()
        batch, _, height, width = z.shape
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
                each[rows] = 0.0

    @torch.no_grad()
    def _start(self, vectors: Tensor) -> None:
        if bool(self.started):
            return
        self.codebook.copy_(_pick(vectors, len(self.codebook)))
        self.sums.copy_(self.codebook)
        self.started.fill_(True)

    @torch.no_grad()
    def _learn(self, vectors: Tensor, codes: Tensor, used: Tensor) -> None:
        self.counts.mul_(self.decay).add_(used, alpha=1.0 - self.decay)
        if self.update == "ema":
            sums = torch.zeros_like(self.sums).index_add_(0, codes, vectors)
            self.sums.mul_(self.decay).add_(sums, alpha=1.0 - self.decay)
            total = self.counts.sum()
            smoothed = (self.counts + EPSILON) / (total + len(self.counts) * EPSILON) * total
            self.codebook.copy_(self.sums / smoothed[:, None])
        dead = self.counts < self.restart
        self.restarted = dead
        if bool(dead.any()):
            fresh = _pick(vectors, int(dead.sum()))
            self.codebook[dead] = fresh
            self.sums[dead] = fresh * max(1.0, self.restart)
            self.counts[dead] = max(1.0, self.restart)


def _pick(vectors: Tensor, count: int) -> Tensor:
    """Random rows, without repetition if there are enough, with slight noise so that no two codes coincide."""
    order = torch.randperm(len(vectors), device=vectors.device)
    rows = vectors[order.repeat(-(-count // len(vectors)))[:count]]
    return rows + 1e-3 * vectors.std() * torch.randn_like(rows) if len(vectors) > 1 else rows
