"""The moving average of weights."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from training.fitting.averaging import follow


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
    averaged = deepcopy(model)
    found = []
    for step, value in enumerate((1.0, 2.0, 4.0)):
        with torch.no_grad():
            model.weight.fill_(value)
            model.steps.add_(3)
        follow(averaged, model, 0.2, step)
        found.append(float(averaged.weight.detach()))
        assert torch.equal(averaged.steps, model.steps)
    second = 2 / 11 * 1.0 + 9 / 11 * 2.0
    assert found == pytest.approx([1.0, second, 0.2 * second + 0.8 * 4.0])


def test_a_short_run_does_not_keep_what_it_began_with() -> None:
    model = Counter()
    averaged = deepcopy(model)
    for value in range(200):
        with torch.no_grad():
            model.weight.fill_(float(value > 20))
            model.seen.fill_(True)
        follow(averaged, model, 0.999, value)
    assert float(averaged.weight.detach()) > 0.99
    assert bool(averaged.seen)
