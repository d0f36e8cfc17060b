"""Examples by the batch, and the second photo of an item."""

from __future__ import annotations

import copy

import torch

from training.fitting.examples import Examples, other_photos
from training.fitting.feeding import AHEAD, Batches, ahead
from training.fitting.views import ViewMaker
from training.recipes import load_recipe


def made_up(count: int = 7) -> Examples:
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 2, 2).contiguous()
    return Examples(images, torch.arange(count), labels=torch.arange(count) * 10)


def test_batches_hold_all_rows_of_the_order_and_second_views_in_their_second_half() -> None:
    order, others = torch.tensor([3, 1, 0]), torch.tensor([4, 1, 2])
    found = [batch.examples.items.tolist() for batch in Batches(made_up(), 2, order, others)]
    assert found == [[3, 1, 4, 1], [0, 2]]
    assert len(Batches(made_up(), 2, order)) == 2
    first = next(iter(Batches(made_up(), 2, order))).examples
    assert first.images[:, 0, 0, 0].tolist() == [3, 1]
    assert first.labels is not None and first.labels.tolist() == [30, 10] and first.masks is None


def test_batches_that_a_thread_prepares_come_in_order_and_in_advance() -> None:
    prepared: list[int] = []

    def prepare(number: int) -> int:
        prepared.append(number)
        return number

    batches = ahead(range(6), prepare)
    assert next(batches) == 0 and len(prepared) <= 1 + AHEAD
    assert list(batches) == [1, 2, 3, 4, 5] == prepared[1:]


def test_copies_of_the_module_that_holds_them_do_not_copy_examples() -> None:
    examples = made_up()
    assert copy.deepcopy(examples) is examples


def test_second_views_are_other_photos_of_the_same_item() -> None:
    items = torch.tensor([2, 0, 2, 1, 2, 0])
    drawn = torch.stack([other_photos(items, 1.0, torch.Generator().manual_seed(seed)) for seed in range(60)])
    assert bool((items[drawn] == items).all())
    positions = torch.arange(6)
    assert bool((drawn[:, 3] == 3).all())  # the only photo of its item
    several = items != 1
    assert bool((drawn[:, several] != positions[several]).all())
    assert set(drawn[:, 0].tolist()) == {2, 4}


def test_second_views_are_of_the_same_photo_as_often_as_asked() -> None:
    items = torch.zeros(4000, dtype=torch.long)
    drawn = other_photos(items, 0.25, torch.Generator().manual_seed(0))
    share = float((drawn != torch.arange(4000)).float().mean())
    assert 0.22 < share < 0.28
    assert torch.equal(other_photos(items, 0.0, torch.Generator().manual_seed(0)), torch.arange(4000))


def test_pairs_that_teach_shapes_are_recoloured_and_the_others_are_not() -> None:
    recipe = load_recipe("vae", ["augment.flip=false", "augment.crop=1", "objective.contrastive.weight=1",
                                 "objective.contrastive.shape_share=0.5"])  # fmt: skip
    images = torch.full((8, 3, 16, 16), 60, dtype=torch.uint8)
    images[:, 0] = 200
    batch = ViewMaker(recipe)(Examples(images, torch.arange(4).repeat(2)))
    changed = (batch.x != images.float() / 255.0).flatten(1).any(dim=1)
    assert changed.tolist() == [False, False, True, True] * 2
    assert torch.equal(batch.x, batch.target)
    plain = ViewMaker(recipe)(Examples(images, torch.arange(4).repeat(2)), augmented=False)
    assert torch.equal(plain.x, images.float() / 255.0)
