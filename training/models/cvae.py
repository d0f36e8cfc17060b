"""Conditional variational autoencoder: a VAE whose decoder is told a label.

Kingma, Rezende, Mohamed, Welling: Semi-supervised Learning with Deep Generative Models, 2014,
https://arxiv.org/abs/1406.5298, model M2 with labels that are known (equation 6):
    log p(x | y) >= E_{q(z | x, y)} log p(x | z, y) - KL(q(z | x, y) || N(0, I)).
The label is a one-hot vector: planes of its own beside the image in the encoder, numbers joined to z in the decoder.
It is for drawing one style under every label. A latent need not hold a class that the decoder is told: where labels
say all about a part of the picture, and training repeats each of them often, the latent loses that part
(`tests/training/models/test_cvae.py`). It does not make a search ignore backgrounds: that of a photo to search for
has no label, and latents that were conditioned on those of training hold it as before (`docs/studies/measures.md`). For
that there are a clean target and contrast, as in `robust-vae`.

Differs from the paper: nobody knows the label of a photo to search for, so the encoder is also trained without one (all
zeros, with probability `label_dropout`), or is never given one (`label_in_encoder` false); no classifier q(y | x).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from training.layers.checks import check_at_least, check_share
from training.layers.foreground import Seen
from training.models.vae import BOUND_SAMPLES, Vae, VaeConfig
from training.protocols import Batch, Likelihood, Loss

SUMMED = 32  # labels that `log_likelihood` sums over at most


@dataclass(frozen=True, kw_only=True)
class CvaeConfig(VaeConfig):
    """Configuration of `Cvae`; see also `VaeConfig`.

    Args:
        classes: number of labels.
        label_in_encoder: give the label to the encoder too, as the paper does.
        label_dropout: share of the training images whose label is kept from the encoder.
    """

    classes: int = 10
    label_in_encoder: bool = True
    label_dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("classes", self.classes, 2)
        check_share("label_dropout", self.label_dropout)


class Cvae(Vae):
    """A conditional VAE; searching, its encoder is given no label."""

    label_share: Tensor

    def __init__(self, config: CvaeConfig) -> None:
        super().__init__(config, config.classes if config.label_in_encoder else 0, config.classes)
        self.register_buffer("label_share", torch.full((config.classes,), 1.0 / config.classes))

    def see(self, x: Tensor, label: Tensor | None = None) -> Seen:
        """What q(z | x, y) goes by, of images `(B, C, S, S)` in [0, 1] and labels `(B,)`; None is an unknown label."""
        return self.encoder.see(x, self._encoder_condition(x, label))

    def generate(self, label: Tensor, z: Tensor) -> Tensor:
        """Mean images `(B, C, S, S)` in [0, 1] of latents `(B, latent_dim)` and labels `(B,)`: one style."""
        return self.picture(self.parameters_of(z, label))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Without a label: the decoder is told how often each label was in training."""
        return self.decode(self.posterior(x).mean)

    def sample(self, count: int, generator: torch.Generator | None = None, *, temperature: float = 1.0) -> Tensor:
        """Mean images `(count, C, S, S)` in [0, 1] of the prior's latents and labels as often as in training."""
        z = self.draw_latents(count, generator, temperature)
        label = torch.multinomial(self.label_share.cpu(), count, replacement=True, generator=generator)
        return self.generate(label.to(self.label_share.device), z)

    def loss(self, batch: Batch, step: int) -> Loss:
        """As of a VAE, given the labels; ValueError where the batch has none."""
        if batch.label is None:
            raise ValueError("a cvae needs labels to train on: set objective.condition")
        return super().loss(batch, step)

    def log_likelihood(self, x: Tensor) -> Likelihood:
        """log sum_y p(y) p(x | y), each p(x | y) by its importance-weighted bound; over the most frequent labels."""
        shares, labels = self.label_share.topk(min(SUMMED, self.config.classes))
        given = [Batch(x, x, None, torch.full((len(x),), int(label), device=x.device)) for label in labels]
        noise = [torch.Generator().manual_seed(0) for _ in given]
        bounds = [
            self.importance_weighted(*pair) for pair in zip(given, [BOUND_SAMPLES] * len(given), noise, strict=True)
        ]
        return Likelihood(torch.logsumexp(torch.stack(bounds) + shares.log()[:, None], dim=0), exact=False)

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> tuple[Cvae, Any]:
        counts = torch.zeros(self.config.classes)

        def counting() -> Iterable[Batch]:
            for batch in batches:
                if batch.label is not None:
                    counts.add_(torch.bincount(batch.label.cpu(), minlength=self.config.classes))
                yield batch

        model, config = super().finish(counting())
        model.label_share.copy_((counts + 1.0) / (counts + 1.0).sum())
        return model, config

    def parameters_of(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if label is None:
            given = self.label_share.expand(len(z), -1)
        else:
            given = one_hot(label, self.config.classes).to(z)
        parameter: Tensor = self.decoder(torch.cat([z, given], dim=1))
        return parameter

    def _encoder_condition(self, x: Tensor, label: Tensor | None) -> Tensor | None:
        if not self.config.label_in_encoder:
            return None
        if label is None:
            return x.new_zeros(x.shape[0], self.config.classes)  # `len` would fix the batch size of an exported graph
        given = one_hot(label, self.config.classes).to(x)
        if self.training and self.config.label_dropout > 0:
            given = given * (torch.rand(len(x), 1, device=x.device) >= self.config.label_dropout)
        return given
