"""What a recipe asks of the latents besides the family's own objective: terms over two views of each item.

* `consistency`: Sinha, Dieng: Consistency Regularization for Variational Auto-Encoders, 2021,
  https://arxiv.org/abs/2105.14859. Adds weight * KL(q(z | x') || q(z | x)) to the bounds of both views.
* `contrastive`: InfoNCE, van den Oord, Li, Vinyals: Representation Learning with Contrastive Predictive Coding, 2018,
  https://arxiv.org/abs/1807.03748, equation 4, in the form of Chen et al.: A Simple Framework for Contrastive Learning
  of Visual Representations, 2020, https://arxiv.org/abs/2002.05709, equation 1: with s = cosine / temperature,
  -log exp(s_ij) / sum_{k != i} exp(s_ik), j being the other view of i, averaged over all views of the batch.

With `shape_share` s, a share s of the pairs is shown in strange colours, and only the last share s of the latent is
contrasted over them; the rest is contrasted over the other pairs. Which colours an item has tells it from the others,
and an InfoNCE that may use them hardly needs its shape; one that may not cannot tell two colours of a thing apart. So
each part of the latent learns what the other need not (as Xiao, Wang, Efros, Darrell: What Should Not Be Contrastive in
Contrastive Learning, 2021, https://arxiv.org/abs/2008.05659, keep an embedding for each kind of change).

* `foreground`: of models that guess which pixels are the item's (`training.models.foreground`), the cross-entropy of
  the masks under the guess, summed over its cells.

The other two ways to be robust to backgrounds are made in the batch (`training.views`): `clean_target` gives the item
on white as the target, `foreground_weight` weighs what is behind it in the likelihood.

Differs from the papers: both views are changed, and neither is before the other, so that the KL is averaged over both
directions (in expectation the same, with less noise); other views of an item are no negatives of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.examples import Examples
from training.models.protocols import Loss, Posterior
from training.recipes.schema import Contrastive, Objective
from training.views import shape_rows


class Objectives(nn.Module):
    """The terms that a recipe adds, and what they learn themselves: a projection head, which never ships.

    Args:
        latent_dim: size of the model's latents.
    """

    def __init__(self, settings: Objective, latent_dim: int) -> None:
        super().__init__()
        self.settings = settings
        self.head: nn.Module = nn.Identity()
        width = settings.contrastive.projection if settings.contrastive else None
        if width is not None:
            self.head = nn.Sequential(nn.Linear(latent_dim, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, loss: Loss, items: Tensor, mask: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """What is added to the objective, in nats per image, and each term before its weight.

        Args:
            loss: of a batch with first views in its first half and second views in its second; consistency asks for
                posteriors.
            items: number of the item in each row `(2B,)`.
            mask: of the batch, see `Batch`.
        """
        extra = torch.zeros_like(loss.objective)
        scalars: dict[str, Tensor] = {}
        if self.settings.consistency > 0:
            if loss.posterior is None:
                raise ValueError("consistency needs a model with a posterior")
            divergence = consistency(loss.posterior)
            extra = extra + self.settings.consistency * divergence
            scalars["consistency"] = divergence.detach()
        if self.settings.contrastive is not None:
            nats = self._contrast(loss.latent, items, self.settings.contrastive)
            extra = extra + self.settings.contrastive.weight * nats
            scalars["contrastive"] = nats.detach()
        if self.settings.foreground > 0 and mask is not None:
            if loss.foreground is None:
                raise ValueError("foreground needs a model that guesses it")
            nats = foreground_nats(loss.foreground, mask)
            extra = extra + self.settings.foreground * nats
            scalars["foreground"] = nats.detach()
        return extra, scalars

    def _contrast(self, latent: Tensor, items: Tensor, settings: Contrastive) -> Tensor:
        if settings.shape_share == 0:
            return info_nce(self.head(latent), items, settings.temperature)
        in_strange_colours = shape_rows(len(latent), settings.shape_share).to(latent.device)
        looks = round(latent.shape[1] * (1.0 - settings.shape_share))
        parts = ((~in_strange_colours, latent[:, :looks]), (in_strange_colours, latent[:, looks:]))
        nats = [info_nce(part[rows], items[rows], settings.temperature) for rows, part in parts if bool(rows.any())]
        return torch.stack(nats).mean()


def build_objectives(settings: Objective, model: Any, examples: Examples) -> Objectives:
    """The objectives over a model, whose latents' size is asked of the model itself."""
    if settings.contrastive is None or settings.contrastive.projection is None:
        return Objectives(settings, 0)
    was_training = model.training
    with torch.no_grad():
        latent_dim = model.eval().latent(examples.images[:1].float() / 255.0).shape[1]
    model.train(was_training)
    return Objectives(settings, latent_dim)


def foreground_nats(logits: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of masks under a guess, in nats per image of those with a mask; 0 where none has one.

    Args:
        logits: `(B, 1, h, w)`.
        mask: `(B, 1, S, S)` in [0, 1], S a multiple of h; NaN in images without one.
    """
    known = ~mask.isnan().flatten(1).any(dim=1)
    cells = nn.functional.adaptive_avg_pool2d(mask[known], (logits.shape[2], logits.shape[3]))
    nats = nn.functional.binary_cross_entropy_with_logits(logits[known].float(), cells, reduction="sum")
    return nats / known.sum().clamp(min=1)


def consistency(q: Posterior) -> Tensor:
    """Mean KL between the posteriors of the two views, which are the halves of a batch; nats per pair."""
    first, second = (Posterior(*halves) for halves in zip(*(part.chunk(2) for part in q), strict=True))
    return 0.5 * (kl_between(first, second) + kl_between(second, first)).mean()


def kl_between(q: Posterior, p: Posterior) -> Tensor:
    """KL(q || p) of diagonal Gaussians in nats `(B,)`."""
    variance_ratio = torch.exp(q.log_variance - p.log_variance)
    distance = torch.square(q.mean - p.mean) * torch.exp(-p.log_variance)
    return 0.5 * (variance_ratio + distance - 1.0 - (q.log_variance - p.log_variance)).sum(dim=1)


def info_nce(latents: Tensor, items: Tensor, temperature: float) -> Tensor:
    """InfoNCE in nats per view.

    Args:
        latents: `(2B, D)`; row i + B is the other view of row i.
        items: `(2B,)`; rows of one item are never negatives of each other.
    """
    rows = len(latents)
    with torch.autocast(latents.device.type, enabled=False):  # cosines need more digits than halves have
        unit = nn.functional.normalize(latents.float(), dim=1)
        scores = unit @ unit.T / temperature
    partner = (torch.arange(rows, device=latents.device) + rows // 2) % rows
    left_out = items[:, None] == items[None, :]
    left_out[torch.arange(rows, device=latents.device), partner] = False
    return nn.functional.cross_entropy(scores.masked_fill(left_out, -torch.inf), partner)
