"""Descriptors of quantised maps: pooled code vectors and a code histogram; and a prior by counting.

The pooled part is the mean of the code vectors in each cell of a grid. The histogram is that of Sivic, Zisserman:
Video Google: A Text Retrieval Approach to Object Matching in Videos, 2003,
https://doi.org/10.1109/ICCV.2003.1238663, section 4: codes are words and images documents,
    t_k = (n_k / n) log(N / N_k),
where n_k of the n codes of an image are k, and N_k of the N training images have code k.

Differs from the paper: log((1 + N) / (1 + N_k)) + 1, which is defined for codes that no training image has and keeps
codes that all training images have.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, normalize, one_hot


class CodeDescriptor(nn.Module):
    """`(B, D g^2 + K)`: pooled vectors with unit norm, then the weighted histogram with norm `histogram_weight`.

    Args:
        codes: K.
        code_dim: D.
        side: side of the map.
        grid: cells g along each side; divides `side`.
        histogram_weight: 0 uses the pooled part alone.
    """

    idf: Tensor

    def __init__(self, codes: int, code_dim: int, side: int, grid: int, histogram_weight: float) -> None:
        super().__init__()
        if side % grid:
            raise ValueError(f"pool must divide the side of the code map ({side}), not be {grid}")
        self.codes = codes
        self.cell = side // grid
        self.dim = code_dim * grid**2 + codes
        self.histogram_weight = histogram_weight
        self.register_buffer("idf", torch.ones(codes))

    def forward(self, z: Tensor, codes: Tensor) -> Tensor:
        """Descriptors of quantised maps `(B, D, h, w)` with codes `(B, h, w)`."""
        pooled = normalize(avg_pool2d(z, self.cell).flatten(1), dim=1)
        histogram = normalize(self.frequencies(codes).to(z) * self.idf, dim=1)
        return torch.cat([pooled, self.histogram_weight * histogram], dim=1)

    def frequencies(self, codes: Tensor) -> Tensor:
        """Relative frequency of each code `(B, K)` in maps `(B, h, w)`."""
        places = codes.flatten(1)
        ones = torch.ones_like(places, dtype=self.idf.dtype)
        return ones.new_zeros(places.shape[0], self.codes).scatter_add(1, places, ones) / places.shape[1]

    def fit(self, images: int, images_with: Tensor) -> None:
        """Set the weights from the number of training images and the number that has each code `(K,)`."""
        self.idf.copy_(torch.log((1.0 + images) / (1.0 + images_with.float())) + 1.0)


class CodePrior(nn.Module):
    """Frequencies of the codes at each position of the training maps; positions are independent.

    Samples and likelihood bounds use it for models without a `PixelPrior`.
    """

    shares: Tensor

    def __init__(self, codes: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("shares", torch.full((side * side, codes), 1.0 / codes))

    def fit(self, counts: Tensor) -> None:
        """Set the frequencies from counts `(h w, K)`; add-one smoothing keeps every code possible."""
        smoothed = counts.float() + 1.0
        self.shares.copy_(smoothed / smoothed.sum(dim=1, keepdim=True))

    def sample(self, count: int, generator: torch.Generator | None = None, *, temperature: float = 1.0) -> Tensor:
        """Codes `(count, h, w)`, with frequencies to the power 1 / temperature; 0 takes the most frequent code."""
        logits = self.shares.cpu().double().log()
        if temperature == 0:
            drawn = logits.argmax(dim=1, keepdim=True).expand(-1, count)
        else:
            shares = torch.softmax(logits / temperature, dim=1)
            drawn = torch.multinomial(shares, count, replacement=True, generator=generator)
        return drawn.T.reshape(count, self.side, self.side).to(self.shares.device)

    def log_prob(self, codes: Tensor) -> Tensor:
        """Log-probability in nats `(B,)` of maps `(B, h, w)`."""
        picked = self.shares.log().gather(1, codes.flatten(1).T)  # (h w, B)
        return picked.sum(dim=0)


def count_codes(maps: Tensor, codes: int) -> Tensor:
    """Count of each code at each position `(h w, K)` of maps `(B, h, w)`."""
    return one_hot(maps.flatten(1), codes).sum(dim=0)


def fit_codes(descriptor: CodeDescriptor, prior: CodePrior, maps: Sequence[Tensor]) -> None:
    """Fit descriptor and prior to the maps `(B, h, w)` of the training images, given in batches."""
    has = [(descriptor.frequencies(codes) > 0).sum(dim=0) for codes in maps]
    descriptor.fit(sum(map(len, maps)), torch.stack(has).sum(dim=0))
    prior.fit(torch.stack([count_codes(codes, descriptor.codes) for codes in maps]).sum(dim=0))
