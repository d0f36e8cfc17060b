"""Labels that condition a network: one-hot, drawn as often as in training, summed over where unknown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

SUMMED = 32  # labels that are summed over at most


class Labels(nn.Module):
    """How often each of so many labels was in training; without labels it has nothing to say.

    Args:
        classes: number of labels; None has none.
    """

    share: Tensor

    def __init__(self, classes: int | None) -> None:
        super().__init__()
        self.classes = classes
        if classes is not None:
            self.register_buffer("share", torch.full((classes,), 1.0 / classes))

    @torch.no_grad()
    def count(self, batches: Sequence[Tensor | None]) -> None:
        """Learn the shares from the labels `(B,)` of all batches; one more of each keeps all of them possible."""
        labels = [label.cpu() for label in batches if label is not None]
        if self.classes is not None and labels:
            counts = one_hot(torch.cat(labels), self.classes).sum(dim=0) + 1.0
            self.share.copy_(counts / counts.sum())

    def told_or_drawn(self, label: Tensor | None, count: int, generator: torch.Generator | None) -> Tensor | None:
        """As `told`, but where no label is given they are drawn as often as in training."""
        if label is None and self.classes is not None:
            label = torch.multinomial(self.share.cpu(), count, replacement=True, generator=generator)
        return self.told(label, count)

    def told(self, label: Tensor | None, count: int, *, dropout: float = 0.0) -> Tensor | None:
        """What a network is told `(count, classes, 1, 1)`: one-hot, or zeros where no label is given.

        Args:
            dropout: share of the labels that are kept from it all the same, so that it learns to do without.
        """
        if self.classes is None:
            return None
        if label is None:
            return self.share.new_zeros(count, self.classes, 1, 1)
        given = one_hot(label.to(self.share.device), self.classes).to(self.share)
        if dropout > 0:
            given = given * (torch.rand(len(given), 1, device=given.device) >= dropout)
        return given[:, :, None, None]

    def mixed(self, nats: Callable[[Tensor | None], Tensor], label: Tensor | None, count: int) -> Tensor:
        """Nats `(count,)` given labels `(count,)`; without them, of the mixture over all, weighed by their shares.

        Of many labels the most frequent are summed over alone, which makes it a lower bound (`sums_all`).

        Args:
            nats: of what a network is told.
        """
        if self.classes is None or label is not None:
            return nats(self.told(label, count))
        shares, numbers = self.share.topk(min(SUMMED, self.classes))
        each = [nats(self.told(number.expand(count), count)) for number in numbers]
        return torch.logsumexp(torch.stack(each) + shares.log()[:, None], dim=0)

    @property
    def sums_all(self) -> bool:
        """Whether `mixed` leaves no label out."""
        return self.classes is None or self.classes <= SUMMED
