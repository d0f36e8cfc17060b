"""A PixelCNN over maps of codes: the prior that makes VQ families generate.

van den Oord, Vinyals, Kavukcuoglu: Neural Discrete Representation Learning, 2017, https://arxiv.org/abs/1711.00937,
section 3.3: an autoregressive model of the codes is fitted after the autoencoder. In VQ-VAE-2
(Razavi, van den Oord, Vinyals 2019, https://arxiv.org/abs/1906.00446, section 3.2) the prior of the bottom map is
conditioned on the top map.

Differs from the papers: gated layers (`training.layers.gated`) without attention, for maps with a side of 4 to 16.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from training.layers.distributions import Categorical
from training.layers.gated import GatedNetwork
from training.layers.raster import Drawing, predict
from training.protocols import Batch, Loss, TwoStageModel

KERNEL = 5


class PixelPrior(nn.Module):
    """p(codes | condition) of maps `(B, h, w)` int64 over K codes.

    Args:
        codes: K.
        side: side of the map.
        width: features of the network's streams.
        layers: layers of the network after the first.
        condition: features of the condition; 0 for none.
    """

    def __init__(self, codes: int, side: int, *, width: int, layers: int, condition: int = 0) -> None:
        super().__init__()
        self.side = side
        self.embedding = nn.Embedding(codes, width)
        self.distribution = Categorical(1, codes)
        self.network = GatedNetwork(
            width + 1, codes, width, KERNEL, (1,) * layers, 2 * width, groups=1, condition=condition
        )

    def log_prob(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Log-probability in nats `(B,)` of maps `(B, h, w)`, given a condition `(B, F, h or 1, w or 1)`."""
        values = codes[:, None]
        parameters = predict(self.network, self.to_input(values), condition).parameters
        return self.distribution.log_prob(values, parameters.float()).sum(dim=(1, 2))

    def sample(
        self,
        count: int,
        generator: torch.Generator | None = None,
        condition: Tensor | None = None,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """Codes `(count, h, w)`."""
        blank = torch.zeros(count, 1, self.side, self.side, dtype=torch.long, device=self.embedding.weight.device)
        drawing = Drawing(self.network, self.distribution, self.to_input, temperature)
        return drawing.draw(blank, None, condition, generator)[:, 0]

    def to_input(self, values: Tensor) -> Tensor:
        """Network input for codes `(B, 1, h, w)`: their embeddings, and a plane of ones."""
        embedded = self.embedding(values[:, 0]).permute(0, 3, 1, 2)
        return torch.cat([embedded, torch.ones_like(embedded[:, :1])], dim=1)


class SecondStage(nn.Module):
    """A fitted VQ model whose prior alone is trained, on the codes that the model gives images.

    Args:
        model: a `torch.nn.Module` that is a `TwoStageModel`.
    """

    def __init__(self, model: TwoStageModel) -> None:
        super().__init__()
        self.model = cast(Any, model)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith("pixel_prior"))

    def train(self, mode: bool = True) -> Self:
        """Keep the model in eval mode: its quantiser would keep learning."""
        super().train(mode)
        self.model.eval()
        return self

    def latent(self, x: Tensor) -> Tensor:
        """Descriptors of the codes of images."""
        described: Tensor = self.model.describe(self.model.codes(x))
        return described

    def loss(self, batch: Batch, step: int) -> Loss:
        """Negative log-probability of the codes of `batch.x` in nats per image."""
        with torch.no_grad():
            codes = self.model.codes(batch.x)
            described = self.model.describe(codes)
        nats = self.model.log_prior(codes, batch.label).mean()
        return Loss(-nats, {"log_prior": nats.detach()}, described)

    def finish(self, batches: Iterable[Batch]) -> tuple[Any, Any]:
        """The model with its trained prior."""
        return self.model, self.model.config
