"""Self-training: which photos are labelled, and which of their pixels are trusted."""

import numpy as np
import torch

from training.finder.network import Finder, FinderConfig, FinderOutput
from training.finder.self_training import AGREEMENT, agreed_photos, predict_views

SIZE = 32


class ByColour(torch.nn.Module):
    """A finder that predicts the red pixels, with a given quality."""

    config = FinderConfig(size=SIZE, widths=(4, 6), depths=(0, 0), decoder_widths=(4,))

    def __init__(self, quality: float = 0.9) -> None:
        super().__init__()
        self.expects = quality

    def forward(self, x: torch.Tensor) -> FinderOutput:
        red = x[:, :1] - x[:, 2:]
        logits = torch.nn.functional.avg_pool2d(40.0 * (red - 0.3), 2)
        return FinderOutput(logits, torch.logit(torch.tensor(self.expects)).expand(len(x)))


class ByPlace(ByColour):
    """A finder that predicts the left half of any image."""

    def forward(self, x: torch.Tensor) -> FinderOutput:
        logits = torch.full((len(x), 1, SIZE // 2, SIZE // 2), -20.0)
        logits[..., : SIZE // 4] = 20.0
        return FinderOutput(logits, torch.logit(torch.tensor(self.expects)).expand(len(x)))


def photos(count: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    images = rng.integers(90, 110, (count, 3, SIZE, SIZE)).astype(np.uint8)
    images[:, 2] += 60
    images[:, :, 10:22, 8:24] = np.array([220, 40, 40], np.uint8)[None, :, None, None]
    return images


def test_what_is_found_from_every_side_is_trusted_with_a_fitting_mask():
    agreed = agreed_photos(photos(), ByColour())  # type: ignore[arg-type]
    assert len(agreed.images) == 4
    true = np.zeros((SIZE, SIZE), bool)
    true[10:22, 8:24] = True
    for mask, trust in zip(agreed.masks, agreed.trust, strict=True):
        found = mask > 127
        assert (found & true).sum() / (found | true).sum() > 0.9
        assert trust[true].mean() > 150 and (trust > 0).mean() > 0.8


def test_what_depends_on_where_one_looks_is_not_trusted():
    looks = predict_views(ByPlace(), torch.from_numpy(photos()).float() / 255.0)  # type: ignore[arg-type]
    assert float(looks.agreement.max()) < AGREEMENT and float(looks.spread.max()) > 0.3
    agreed = agreed_photos(photos(), ByPlace())  # type: ignore[arg-type]
    assert len(agreed.images) == 0 and agreed.masks.shape == (0, SIZE, SIZE)


def test_a_finder_that_expects_to_miss_is_not_trusted():
    assert len(agreed_photos(photos(), ByColour(quality=0.3)).images) == 0  # type: ignore[arg-type]


def test_an_untrained_network_runs_through():
    torch.manual_seed(0)
    agreed = agreed_photos(photos(), Finder(ByColour.config).eval())
    assert agreed.images.shape[1:] == (3, SIZE, SIZE)
