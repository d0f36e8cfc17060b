"""InfoVAE: a VAE that is also held to the prior by the distribution of its latents over all images.

Zhao, Song, Ermon: InfoVAE: Information Maximizing Variational Autoencoders, 2017, https://arxiv.org/abs/1706.02262,
equation 6, with the maximum mean discrepancy (MMD) as its divergence (section 4.2):
    E_q log p(x | z) - (1 - alpha) KL(q(z | x) || p(z)) - (alpha + lambda - 1) MMD(q(z), p(z))
where q(z) is the mean of q(z | x) over the images. The first divergence is least where z says nothing about x; the
second leaves z free to say as much as it can. alpha = 1 drops the first: the MMD-VAE of the authors' code.

Differs from the paper: the MMD is an unbiased estimate whose expectations over N(0, I) are in closed form, where the
authors' code draws from N(0, I) and counts each latent's similarity with itself; the decoder is that of a
`training.models.pixel_vae`, for which a receptive field of 1 gives the paper's plain decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from training.layers.checks import check_at_least
from training.layers.gaussian import mmd_to_standard_normal
from training.models.pixel_vae import PixelVae, PixelVaeConfig


@dataclass(frozen=True, kw_only=True)
class InfoVaeConfig(PixelVaeConfig):
    """Configuration of `InfoVae`; see also `PixelVaeConfig`, whose `beta` must be 1.

    Args:
        alpha: 1 minus the weight of the KL; 0 keeps it whole, 1 drops it.
        lambda_: with alpha, the weight alpha + lambda - 1 of the MMD, in nats.
        kernel_width: standard deviation of the MMD's Gaussian kernel; None for L / sqrt(2), with L the size of z, which
            is the kernel exp(-|z - z'|^2 / L^2) of the authors' code. Latents of more than about ten numbers need a
            narrower one, such as sqrt(L / 2): the MMD hardly notices their variance otherwise.
    """

    alpha: float = 0.0
    lambda_: float = 1000.0
    kernel_width: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta != 1.0:
            raise ValueError(f"beta must be 1, as alpha weights the KL, not {self.beta}")
        if not self.alpha <= 1.0:
            raise ValueError(f"alpha must be at most 1, not {self.alpha}")
        check_at_least("alpha + lambda_", self.alpha + self.lambda_, 1.0)
        if self.kernel_width is not None and not self.kernel_width > 0:
            raise ValueError(f"kernel_width must be above 0, not {self.kernel_width}")


class InfoVae(PixelVae):
    """An InfoVAE; its bound, samples and search vector are those of a PixelVAE.

    Example:
        >>> vae = InfoVae(InfoVaeConfig(size=16, widths=(8, 16), decoder_widths=(16, 8), latent_dim=4))
        >>> vae.penalties(torch.zeros(1, 2, 4))["mmd"][0]
        999.0
    """

    def kl_weight(self, step: int) -> float:
        alpha: float = self.config.alpha
        return (1.0 - alpha) * super().kl_weight(step)

    def penalties(self, z: Tensor) -> dict[str, tuple[float, Tensor]]:
        """The MMD of the latents of different images to N(0, I), the mean over the samples of z."""
        config = self.config
        width = config.kernel_width or config.latent_dim / sqrt(2.0)
        mmd = torch.stack([mmd_to_standard_normal(each, width) for each in z]).mean()
        return {"mmd": (config.alpha + config.lambda_ - 1.0, mmd)}
