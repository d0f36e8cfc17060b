"""Mined second views: mutual neighbours against brute force, and who is no negative of whom."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.drawings import make_drawings
from training.fitting.examples import Examples
from training.fitting.mining import Mined, is_due, lend_views, mine, mutual_neighbours
from training.fitting.views import ViewMaker
from training.models.sketch_rnn import SketchRnn, SketchRnnConfig
from training.models.vae import Vae, VaeConfig
from training.objectives import info_nce
from training.recipes import load_recipe
from training.recipes.objective import Mined as Settings
from training.sketches.dataset import prepare_drawings
from training.sketches.preparing import DrawingPreparation
from training.sketches.views import SketchViews


def test_neighbours_of_points_on_a_circle_by_hand() -> None:
    """At 0, 10, 50, 55 and 180 degrees, k = 1: 0-10 and 50-55 are mutual; the last is nobody's nearest."""
    angles = torch.deg2rad(torch.tensor([0.0, 10.0, 50.0, 55.0, 180.0]))
    latents = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1.0], [5.0], [2.0], [0.1], [1.0]])
    assert mutual_neighbours(latents, torch.arange(5), 1)[:, 0].tolist() == [1, 0, 3, 2, -1]


def test_photos_of_one_item_are_no_neighbours() -> None:
    latents = torch.tensor([[1.0, 0.0], [1.0, 0.01], [1.0, 0.2], [0.0, 1.0]])
    found = mutual_neighbours(latents, torch.tensor([0, 0, 1, 2]), 1)
    assert found[:, 0].tolist() == [-1, 2, 1, -1]  # 1 is nearer to 2 than 0 is
    assert (mutual_neighbours(latents, torch.zeros(4, dtype=torch.long), 2) == -1).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.integers(1, 6), st.integers(0, 50), st.integers(1, 5))
def test_they_equal_brute_force(count: int, items: int, seed: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, 3, generator=generator)
    of_item = torch.randint(items, (count,), generator=generator)
    unit = nn.functional.normalize(latents, dim=1)
    others = [[b for b in range(count) if of_item[b] != of_item[a]] for a in range(count)]
    near = [sorted(others[a], key=lambda b: -float(unit[a] @ unit[b]))[:k] for a in range(count)]
    expected = [{b for b in near[a] if a in near[b]} for a in range(count)]
    found = [set(row[row >= 0].tolist()) for row in mutual_neighbours(latents, of_item, k)]
    assert found == expected


def mined(*neighbours: list[int], items: list[int]) -> Mined:
    return Mined.of(torch.tensor(neighbours), torch.tensor(items), 3)


def test_items_are_related_by_any_of_their_photos() -> None:
    """Photos 0 and 1 are of item 5, photo 2 of item 0, photo 3 of item 2; photos 1 and 2 are neighbours."""
    found = mined([-1, -1], [-1, 2], [1, -1], [-1, -1], items=[5, 5, 0, 2])
    assert found.share == 0.5
    related = found.related(torch.tensor([5, 2, 0]))
    assert related.tolist() == [[False, False, True], [False, False, False], [True, False, False]]
    assert not mined([-1], [-1], items=[0, 1]).related(torch.tensor([0, 1])).any()


def test_lent_views_are_neighbours_in_the_share_that_is_asked_for() -> None:
    neighbours = torch.tensor([[-1, 7, 9], [-1, -1, -1]]).repeat(2000, 1)
    found = Mined(neighbours, torch.tensor([]), 1, 0)
    own = torch.arange(4000)
    partners = lend_views(own, found, 0.4, torch.Generator().manual_seed(0))
    assert torch.equal(partners[1::2], own[1::2])
    lent = partners[::2] != own[::2]
    assert 0.36 < float(lent.float().mean()) < 0.44
    assert set(partners[::2][lent].tolist()) == {7, 9}
    assert torch.equal(lend_views(own, found, 0.0, torch.Generator().manual_seed(0)), own)


def test_related_rows_are_no_negatives_but_remain_partners() -> None:
    latents = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    items = torch.tensor([0, 1, 2, 2, 1, 0])  # the second view of item 0 is a photo of item 2
    related = mined([1, -1], [0, -1], [-1, -1], items=[0, 2, 1]).related(items)
    unit = nn.functional.normalize(latents, dim=1)
    scores = torch.exp(unit @ unit.T)
    terms = []
    for i in range(6):
        j = (i + 3) % 6
        of_one = [{0, 2}, {1}][int(items[i] == 1)]
        among = [j, *(k for k in range(6) if int(items[k]) not in of_one)]
        terms.append(-torch.log(scores[i, j] / scores[i, among].sum()))
    torch.testing.assert_close(info_nce(latents, items, 1.0, related), torch.stack(terms).mean())
    assert not torch.isclose(info_nce(latents, items, 1.0), info_nce(latents, items, 1.0, related))


@pytest.mark.parametrize(("epoch", "last", "due"), [(1, None, False), (2, None, True), (3, 2, False), (5, 2, True),
                                                   (5, 5, False), (0, None, False)])  # fmt: skip
def test_they_are_looked_for_every_few_epochs_and_once(epoch: int, last: int | None, due: bool) -> None:
    found = None if last is None else Mined(torch.zeros(0), torch.zeros(0), 1, last)
    assert is_due(Settings(start=2, every=3), epoch, found) is due


def test_looking_for_them_leaves_no_trace_in_the_model() -> None:
    torch.manual_seed(0)
    model = Vae(VaeConfig(size=16, widths=(8, 8), decoder_widths=(8, 8), latent_dim=4)).train()
    images = torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    found = mine(
        model, ViewMaker(load_recipe("vae")).plain, Examples(images, torch.arange(9)), Settings(neighbours=2), 4, 4
    )
    assert model.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert found.epoch == 4
    with torch.no_grad():
        latents: Tensor = model.eval().latent(images.float() / 255.0)
    assert torch.equal(found.neighbours, mutual_neighbours(latents, torch.arange(9), 2))


def test_drawings_are_mined_by_the_latents_of_their_strokes() -> None:
    preparation = DrawingPreparation(longest=24, scale=40.0)
    x = torch.from_numpy(prepare_drawings(make_drawings(12), preparation).rows)
    torch.manual_seed(0)
    model = SketchRnn(SketchRnnConfig(longest=24, latent_dim=4, encoder_hidden=6, decoder_hidden=6, mixtures=2))
    found = mine(model, SketchViews(load_recipe("sketch-rnn")).plain, Examples(x, torch.arange(12)), Settings(), 1, 5)
    with torch.no_grad():
        expected = mutual_neighbours(model.eval().latent(x), torch.arange(12), Settings().neighbours)
    assert torch.equal(found.neighbours, expected) and found.share > 0
