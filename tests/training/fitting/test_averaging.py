"""The moving average of weights."""

from __future__ import annotations

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from training.fitting.averaging import moving_average


class Counter(torch.nn.Module):
    """A weight, and buffers of whole numbers and of truths."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.0]))
        self.register_buffer("steps", torch.tensor([0, 7]))
        self.register_buffer("seen", torch.tensor([False]))


def test_two_steps_by_hand() -> None:
    """The first update copies; then d is 2/11 and 3/12 until it reaches the decay."""
    model = Counter()
    averaged = AveragedModel(model, avg_fn=moving_average(0.2), use_buffers=True)
    found = []
    for value in (1.0, 2.0, 4.0):
        with torch.no_grad():
            model.weight.fill_(value)
            model.steps.add_(3)
        averaged.update_parameters(model)
        found.append(float(averaged.module.weight.detach()))
        assert torch.equal(averaged.module.steps, model.steps)
    second = 2 / 11 * 1.0 + 9 / 11 * 2.0
    assert found == pytest.approx([1.0, second, 0.2 * second + 0.8 * 4.0])


def test_a_short_run_does_not_keep_what_it_began_with() -> None:
    model = Counter()
    averaged = AveragedModel(model, avg_fn=moving_average(0.999), use_buffers=True)
    for value in range(200):
        with torch.no_grad():
            model.weight.fill_(float(value > 20))
            model.seen.fill_(True)
        averaged.update_parameters(model)
    assert float(averaged.module.weight.detach()) > 0.99
    assert bool(averaged.module.seen)
