"""Labels that condition a network: one-hot encoding, sampling by frequency, and mixtures over unknown labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from training.parallel.draws import uniform

SUMMED = 32  # most labels that a mixture sums over


class Labels(nn.Module):
    """The labels of a conditional model and their frequencies in training.

    Args:
        classes: number of labels; None for a model without labels.
    """

    share: Tensor

    def __init__(self, classes: int | None) -> None:
        super().__init__()
        self.classes = classes
        if classes is not None:
            self.register_buffer("share", torch.full((classes,), 1.0 / classes))

    @torch.no_grad()
    def fit(self, batches: Sequence[Tensor | None]) -> None:
        """Set the frequencies from the labels `(B,)` of all batches; add-one smoothing keeps every label possible."""
        labels = [label.cpu() for label in batches if label is not None]
        if self.classes is not None and labels:
            counts = one_hot(torch.cat(labels), self.classes).sum(dim=0) + 1.0
            self.share.copy_(counts / counts.sum())

    def or_drawn(self, label: Tensor | None, count: int, generator: torch.Generator | None) -> Tensor | None:
        """The labels `(count,)`, drawn by their frequencies if none are given; None for a model without labels."""
        if label is None and self.classes is not None:
            return torch.multinomial(self.share.cpu(), count, replacement=True, generator=generator)
        return label

    def one_hot(self, label: Tensor | None, count: int, *, dropout: float = 0.0) -> Tensor | None:
        """`(count, classes)`, zeros if no label is given; None for a model without labels.

        Args:
            dropout: fraction of the labels that are replaced by zeros, so that the network learns to work without.
        """
        if self.classes is None:
            return None
        if label is None:
            return self.share.new_zeros(count, self.classes)
        given = one_hot(label.to(self.share.device), self.classes).to(self.share)
        if dropout > 0:
            given = given * (uniform(len(given), 1, device=given.device) >= dropout)
        return given

    def planes(self, label: Tensor | None, count: int, *, dropout: float = 0.0) -> Tensor | None:
        """As `one_hot`, in the shape of a map of one pixel `(count, classes, 1, 1)`."""
        given = self.one_hot(label, count, dropout=dropout)
        return None if given is None else given[:, :, None, None]

    def mixture(self, nats: Callable[[Tensor | None], Tensor], label: Tensor | None, count: int) -> Tensor:
        """Log-likelihood in nats `(count,)` given labels `(count,)`; without them, of the mixture over all labels.

        With more than `SUMMED` labels only the most frequent are summed over, which makes it a lower bound (see
        `sums_all`).

        Args:
            nats: log-likelihood given labels `(count,)`, or given None.
        """
        if self.classes is None or label is not None:
            return nats(label)
        shares, numbers = self.share.topk(min(SUMMED, self.classes))
        each = [nats(number.expand(count)) for number in numbers]
        return torch.logsumexp(torch.stack(each) + shares.log()[:, None], dim=0)

    @property
    def sums_all(self) -> bool:
        """Whether `mixture` sums over all labels."""
        return self.classes is None or self.classes <= SUMMED
