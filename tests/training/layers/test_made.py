"""MADE: its masks, its order, and that probabilities sum to one."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from tests.training.layers.raster_cases import binary_images
from training.fitting.averaging import follow
from training.models.made import Made, MadeConfig, to_images, to_values
from training.protocols import Batch


@pytest.mark.parametrize(("masks", "random_order", "classes"), [(1, False, None), (1, True, 3), (3, True, 2)])
def test_the_probabilities_of_a_made_sum_to_one(masks: int, random_order: bool, classes: int | None) -> None:
    torch.manual_seed(0)
    config = MadeConfig(size=8, hidden=(40, 30), masks=masks, random_order=random_order, classes=classes)
    object.__setattr__(config, "size", 3)  # below what an encoder may have, but all images can be counted
    made = Made(config).double().eval()
    with torch.no_grad():
        made.direct.weight.normal_()
        probabilities = made.log_likelihood(binary_images(3, 3)).nats.exp()
    assert float(probabilities.sum()) == pytest.approx(1.0, abs=1e-7)
    assert float(probabilities.max()) > 4 / 512, "no image is likelier than the others: nothing is summed"


@pytest.mark.parametrize("random_order", [False, True])
def test_a_made_sees_exactly_what_comes_before_in_its_order(random_order: bool) -> None:
    torch.manual_seed(0)
    made = Made(MadeConfig(size=8, hidden=(500, 400), random_order=random_order, masks=2, direct=False)).double().eval()
    for number in range(2):
        made.use_masks(number)
        values = torch.rand(1, 64, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(
            lambda flat: made._parameters_at(flat, made._hidden(flat, None), None)[0, 0, :, 0], values
        )[:, 0]
        place = torch.argsort(made.order)
        before = place[None, :] < place[:, None]
        assert bool((jacobian[~before] == 0).all())
        seen = torch.stack([layer.mask for layer in made.layers[:1]])[0]
        for layer in [*made.layers[1:], made.out]:
            seen = layer.mask.float() @ seen.float()
        assert torch.equal(seen > 0, before), "the masks let through all that comes before"


def test_made_masks_are_those_of_the_paper() -> None:
    """By hand: m(k) >= d from inputs, d > m(k) to outputs, so the product is strictly lower triangular."""
    made = Made(MadeConfig(size=8, hidden=(90,), direct=False))
    into, out = made.layers[0].mask, made.out.mask
    numbers = into.sum(dim=1).long()  # in raster order, unit k sees the inputs 1 .. m(k)
    assert int(numbers.min()) == 1 and int(numbers.max()) == 63
    places = torch.arange(1, 65)
    assert torch.equal(into.bool(), numbers[:, None] >= places[None, :])
    assert torch.equal(out.bool(), places[:, None] > numbers[None, :])
    assert not bool((out.float() @ into.float()).triu().any())


def test_every_step_of_a_made_has_the_next_set_of_masks() -> None:
    torch.manual_seed(0)
    made = Made(MadeConfig(size=8, hidden=(40,), masks=3)).train()
    x = torch.rand(2, 1, 8, 8).round()
    masks = []
    for step in range(4):
        made.loss(Batch(x, x), step)
        masks.append(made.layers[0].mask.clone())
    assert torch.equal(masks[0], masks[3]) and not torch.equal(masks[0], masks[1])
    each = []
    made.eval()
    for number in range(3):
        made.use_masks(number)
        each.append(made.pixel_log_prob(x).nats.sum(dim=(1, 2)))
    mixture = torch.stack(each).exp().mean(dim=0).log()
    torch.testing.assert_close(made.log_likelihood(x).nats, mixture)


def test_a_moving_average_of_a_made_has_masks_that_belong_together() -> None:
    torch.manual_seed(0)
    made = Made(MadeConfig(size=8, hidden=(40,), masks=3)).train()
    averaged = deepcopy(made)
    x = torch.rand(2, 1, 8, 8).round()
    for step in range(5):
        made.loss(Batch(x, x), step)
        follow(averaged, made, 0.9, step)
    alone = Made(made.config).eval()
    alone.load_state_dict(averaged.state_dict())
    averaged.eval()
    torch.testing.assert_close(averaged.loss(Batch(x, x), 9).objective, alone.loss(Batch(x, x), 9).objective)


def test_values_in_raster_order_and_back() -> None:
    x = torch.rand(2, 3, 4, 5)
    values = to_values(x)
    assert torch.equal(values[0, :4], torch.stack([*x[0, :, 0, 0], x[0, 0, 0, 1]]))
    assert torch.equal(to_images(values, x.shape), x)
