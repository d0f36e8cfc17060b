"""Conditional variational autoencoder: a VAE whose decoder is conditioned on a label.

Kingma, Rezende, Mohamed, Welling: Semi-supervised Learning with Deep Generative Models, 2014,
https://arxiv.org/abs/1406.5298, model M2 with observed labels (equation 6):
    log p(x | y) >= E_{q(z | x, y)} log p(x | z, y) - KL(q(z | x, y) || N(0, I)).
The label is a one-hot vector: extra input planes in the encoder, and extra inputs beside z in the decoder. Use it to
generate one style under every label. The latent need not hold a class that the decoder is given: if the labels fully
determine a part of the image and each of them occurs often in training, the latent loses that part
(`tests/training/models/test_cvae.py`). Conditioning on backgrounds does not make a search ignore them: a query photo
has no label, and the latents hold the background as before (`docs/studies/measures.md`). Use a clean target and a
contrastive term for that, as in `robust-vae`.

Differs from the paper: the label of a query photo is unknown, so the encoder is also trained without it (all zeros,
with probability `label_dropout`), or never receives it (`label_in_encoder` false); no classifier q(y | x).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.layers.checks import check_at_least, check_share
from training.layers.foreground import EncoderFeatures
from training.layers.labels import Labels
from training.models.vae import BOUND_SAMPLES, Vae, VaeConfig
from training.protocols import Batch, Likelihood, Loss


@dataclass(frozen=True, kw_only=True)
class CvaeConfig(VaeConfig):
    """Configuration of `Cvae`; see also `VaeConfig`.

    Args:
        classes: number of labels.
        label_in_encoder: condition the encoder on the label too, as in the paper.
        label_dropout: fraction of the training images whose label is hidden from the encoder.
    """

    classes: int = 10
    label_in_encoder: bool = True
    label_dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("classes", self.classes, 2)
        check_share("label_dropout", self.label_dropout)


class Cvae(Vae):
    """A conditional VAE; for search, its encoder receives no label."""

    def __init__(self, config: CvaeConfig) -> None:
        super().__init__(config, config.classes if config.label_in_encoder else 0, config.classes)
        self.labels = Labels(config.classes)

    @property
    def classes(self) -> int:
        classes: int = self.config.classes
        return classes

    @property
    def label_shares(self) -> Tensor:
        return self.labels.share

    def extract(self, x: Tensor, label: Tensor | None = None) -> EncoderFeatures:
        """Encoder features of images `(B, C, S, S)` in [0, 1] with labels `(B,)`; None for unknown labels."""
        return self.encoder.extract(x, self._encoder_condition(x, label))

    def generate(self, label: Tensor, z: Tensor) -> Tensor:
        """Mean images `(B, C, S, S)` in [0, 1] of latents `(B, latent_dim)` under labels `(B,)`."""
        return self.picture(self.parameters_of(z, label))

    def reconstruct(self, x: Tensor) -> Tensor:
        """Reconstructions without a label: the decoder receives the training frequencies of the labels."""
        return self.decode(self.posterior(x).mean)

    def sample(
        self,
        count: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
        label: Tensor | None = None,
    ) -> Tensor:
        """Mean images `(count, C, S, S)` in [0, 1] of latents drawn from the prior.

        Args:
            label: `(count,)`; None draws labels by their training frequency.
        """
        z = self.draw_latents(count, generator, temperature)
        drawn = self.labels.or_drawn(label, count, generator)
        return self.picture(self.parameters_of(z, drawn))

    def loss(self, batch: Batch, step: int) -> Loss:
        """The loss of a VAE given the labels; ValueError if the batch has none."""
        if batch.label is None:
            raise ValueError("a cvae needs labels to train on: set objective.condition")
        return super().loss(batch, step)

    def log_likelihood(self, x: Tensor) -> Likelihood:
        """log sum_y p(y) p(x | y) over the most frequent labels, each p(x | y) by its importance-weighted bound."""

        def bound(label: Tensor | None) -> Tensor:
            return self.importance_weighted(Batch(x, x, None, label), BOUND_SAMPLES, torch.Generator().manual_seed(0))

        return Likelihood(self.labels.mixture(bound, None, len(x)), exact=False)

    @torch.no_grad()
    def finish(self, batches: Iterable[Batch]) -> tuple[Cvae, Any]:
        labels: list[Tensor | None] = []

        def recorded() -> Iterable[Batch]:
            for batch in batches:
                labels.append(batch.label)
                yield batch

        model, config = super().finish(recorded())
        model.labels.fit(labels)
        return model, config

    def parameters_of(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        given = self.label_shares.expand(len(z), -1) if label is None else self.labels.one_hot(label, len(z))
        parameter: Tensor = self.decoder(torch.cat([z, given.to(z)], dim=1))  # type: ignore[union-attr]
        return parameter

    def _encoder_condition(self, x: Tensor, label: Tensor | None) -> Tensor | None:
        if not self.config.label_in_encoder:
            return None
        dropout = self.config.label_dropout if self.training else 0.0
        return self.labels.one_hot(label, x.shape[0], dropout=dropout)  # `len` would fix an exported graph's batch size

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        rename_label_share(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *others)


def rename_label_share(state_dict: dict[str, Any], prefix: str) -> None:
    """Give the label frequencies of an encoder from before `training.layers.labels` their present name."""
    if f"{prefix}label_share" in state_dict:
        state_dict[f"{prefix}labels.share"] = state_dict.pop(f"{prefix}label_share")
