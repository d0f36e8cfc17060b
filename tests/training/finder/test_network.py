"""The finder's network: shapes, gradients, folding, invalid settings."""

import pytest
import torch

from training.finder.network import Finder, FinderConfig

TINY = FinderConfig(size=32, widths=(6, 8, 10), depths=(1, 0, 1), decoder_widths=(6, 8))


def test_the_mask_has_half_the_side_and_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    network = Finder(TINY)
    found = network(torch.rand(3, 3, 32, 32))
    assert found.mask.shape == (3, 1, 16, 16) and found.quality.shape == (3,)
    (found.mask.square().sum() + found.quality.square().sum()).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


def test_quality_teaches_the_mask_nothing():
    network = Finder(TINY)
    network(torch.rand(2, 3, 32, 32)).quality.sum().backward()
    assert all(
        p.grad is None or bool((p.grad == 0).all()) for name, p in network.named_parameters() if "quality" not in name
    )


def test_folded_it_says_the_same():
    torch.manual_seed(1)
    network = Finder(TINY)
    network(torch.rand(8, 3, 32, 32))  # statistics to fold
    network.eval()
    x = torch.rand(2, 3, 32, 32)
    folded = network.folded()
    assert not any("norm" in name for name in folded.state_dict())
    for plain, same in zip(network(x), folded(x), strict=True):
        torch.testing.assert_close(plain, same, atol=1e-5, rtol=1e-4)


def test_the_shipped_settings_are_small():
    assert sum(p.numel() for p in Finder(FinderConfig()).parameters()) * 2 <= 2 * 2**20  # bytes as float16


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": 30}, "size must be a multiple of 8"),
        ({"depths": (1,)}, "depths must be 3 numbers"),
        ({"decoder_widths": (4,)}, "decoder_widths must be 2 numbers"),
        ({"widths": (0, 8, 8)}, "least of widths"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, reason):
    values = {"size": 32, "widths": (6, 8, 10), "depths": (1, 0, 1), "decoder_widths": (6, 8), **changes}
    with pytest.raises(ValueError, match=reason):
        FinderConfig(**values)
