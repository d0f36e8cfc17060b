"""Search vectors and priors of code maps, against cases worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from training.layers.codes import CodeDescriptor, CodePrior, count_codes, fit_codes

MAPS = torch.tensor([[[0, 0], [0, 1]], [[0, 1], [1, 1]], [[2, 2], [2, 2]]])  # (3, 2, 2), of 4 codes


def test_the_histogram_is_weighted_as_words_in_documents() -> None:
    descriptor, prior = CodeDescriptor(4, 1, side=2, grid=1, histogram_weight=2.0), CodePrior(4, side=2)
    fit_codes(descriptor, prior, [MAPS[:1], MAPS[1:]])
    idf = [math.log(4 / (1 + has)) + 1 for has in (2, 2, 1, 0)]  # codes 0 and 1 are in two images, 2 in one, 3 in none
    torch.testing.assert_close(descriptor.idf, torch.tensor(idf))
    vector = descriptor(torch.full((1, 1, 2, 2), 3.0), MAPS[:1])
    weighted = torch.tensor([0.75 * idf[0], 0.25 * idf[1], 0.0, 0.0])
    torch.testing.assert_close(vector[0], torch.cat([torch.ones(1), 2.0 * weighted / weighted.norm()]))


def test_codes_are_pooled_cell_by_cell() -> None:
    descriptor = CodeDescriptor(2, 1, side=4, grid=2, histogram_weight=0.0)
    z = torch.arange(16.0).reshape(1, 1, 4, 4)
    cells = torch.tensor([2.5, 4.5, 10.5, 12.5])
    torch.testing.assert_close(descriptor(z, torch.zeros(1, 4, 4, dtype=torch.long))[0, :4], cells / cells.norm())


def test_a_grid_that_does_not_divide_the_map_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pool must divide the side of the code map \(4\), not be 3"):
        CodeDescriptor(2, 1, side=4, grid=3, histogram_weight=0.0)


def test_the_prior_is_the_share_of_each_code_at_each_place() -> None:
    prior = CodePrior(4, side=2)
    prior.fit(count_codes(MAPS, 4))
    assert prior.shares[0].tolist() == pytest.approx([3 / 7, 1 / 7, 2 / 7, 1 / 7])  # each count and one more, of 3 + 4
    expected = sum(math.log(float(prior.shares[place, code])) for place, code in enumerate((0, 0, 0, 1)))
    assert float(prior.log_prob(MAPS[:1])) == pytest.approx(expected)
    drawn = prior.sample(4000, torch.Generator().manual_seed(0))
    assert drawn.shape == (4000, 2, 2)
    torch.testing.assert_close((drawn[:, 0, 0] == 0).float().mean(), torch.tensor(3 / 7), atol=0.03, rtol=0)


def test_the_prior_is_a_distribution_over_maps() -> None:
    prior = CodePrior(2, side=2)
    prior.fit(torch.tensor([[3, 1], [0, 4], [2, 2], [1, 3]]))
    maps = torch.tensor([[[a, b], [c, d]] for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)])
    assert float(prior.log_prob(maps).exp().sum()) == pytest.approx(1.0, abs=1e-6)
