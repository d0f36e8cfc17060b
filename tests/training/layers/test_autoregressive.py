"""What each pixel sees, that probabilities sum to one, and that cached sampling draws what naive sampling draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.layers.raster_cases import CASES, CNN, RNN, SIDE, SMALL, binary_images, build
from training.layers.autoregressive import to_input
from training.layers.gated import GatedNetwork
from training.layers.raster import predict
from training.models.pixel_cnn import PixelCnn, PixelCnnConfig, PlainNetwork
from training.models.pixel_cnn_pp import PixelCnnPp, PixelCnnPpConfig, ScaledNetwork
from training.models.pixel_rnn import PixelRnn, PixelRnnConfig, RecurrentNetwork
from training.models.pixel_vae import PixelVae, PixelVaeConfig, build_network


def sees(model: Any, x: Tensor) -> Tensor:
    """Whether output value `(i, j, c)` depends on input value `(i, j, c)`: `(outputs, inputs)` in raster order.

    Each row is the gradient of a random combination of all parameters of one value, or of one pixel where they are not
    by channel; a combination can be exactly zero by chance alone.
    """
    channels = model.distribution.steps if model.distribution.grouped else 1
    weights = torch.randn(channels, model.distribution.parameters // channels, dtype=torch.float64)

    outputs = channels * SIDE**2
    copies = x.expand(outputs, -1, -1, -1).clone().requires_grad_()  # one for each output: one pass gives all gradients
    parameters = predict(model.network, to_input(copies), model.labels.planes(None, outputs)).parameters
    parameters = parameters.reshape(outputs, channels, -1, SIDE, SIDE)
    combined = torch.einsum("bcphw,cp->bhwc", parameters, weights).flatten(1)  # (outputs, outputs)
    (jacobian,) = torch.autograd.grad(combined.diagonal().sum(), copies)
    return jacobian.permute(0, 2, 3, 1).flatten(1) != 0


def allowed(model: Any) -> Tensor:
    """What raster order allows `sees` to be."""
    inputs = torch.arange(3 * SIDE**2)
    if model.distribution.grouped:
        return inputs[None, :] < inputs[:, None]
    return inputs[None, :] // 3 < torch.arange(SIDE**2)[:, None]


@pytest.mark.parametrize("case", CASES)
def test_no_value_depends_on_itself_or_on_later_ones(case: str) -> None:
    model = build(case)
    seen = sees(model, torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64))
    assert not bool((seen & ~allowed(model)).any())


def sees_ever(model: Any) -> Tensor:
    """What `sees` gives for any of a few images: a ReLU may hide a value from one of them."""
    return torch.stack([sees(model, torch.rand(1, 3, SIDE, SIDE, dtype=torch.float64)) for _ in range(4)]).any(dim=0)


def test_scales_let_pixels_see_all_before_them() -> None:
    torch.manual_seed(0)
    model = PixelCnnPp(PixelCnnPpConfig(**SMALL, scales=3, blocks=2, mixtures=2)).double().eval()
    assert torch.equal(sees_ever(model), allowed(model))


@pytest.mark.slow
def test_a_diagonal_bilstm_sees_all_before_but_the_end_of_the_row_above() -> None:
    """The state from the right, a row lower, has seen what comes before the last pixel of its row, not that pixel."""
    seen, before = sees_ever(build("diagonal bilstm")), allowed(build("diagonal bilstm"))
    missing = torch.nonzero(before & ~seen)
    assert len(missing) > 0
    rows, columns = missing[:, 1] // 3 // SIDE, missing[:, 1] // 3 % SIDE
    assert bool((columns == SIDE - 1).all()) and bool((rows == missing[:, 0] // 3 // SIDE - 1).all())


def reach(model: Any, row: int, column: int) -> Tensor:
    """The pixels `(S, S)` that the pixel at a place sees."""
    outputs = sees_ever(model).reshape(SIDE, SIDE, -1, SIDE, SIDE, 3)
    return outputs[row, column].any(dim=0).any(dim=2)


def square_before(row: int, column: int, radius: int) -> Tensor:
    """The pixels before a place in raster order and within a square around it."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    near = (row - rows <= radius) & ((columns - column).abs() <= radius)
    return near & ((rows < row) | ((rows == row) & (columns < column)))


def test_gated_layers_see_all_of_a_square_without_a_blind_spot() -> None:
    model = build("gated, whole pixels")
    assert torch.equal(reach(model, 6, 3), square_before(6, 3, 1 + 1 + 2))


def test_plain_layers_are_blind_up_and_to_the_right() -> None:
    torch.manual_seed(0)
    config = PixelCnnConfig(**CNN, architecture="plain", likelihood="logistic-mixture", mixtures=2)
    seen = reach(PixelCnn(config).double(), 6, 3)
    in_reach = square_before(6, 3, 1 + 1 + 2)
    assert not bool((seen & ~in_reach).any())
    assert bool(seen[4, 5]) and bool(in_reach[5, 7]) and not bool(seen[5, 7])
    hidden = in_reach & ~seen
    columns = torch.nonzero(hidden)[:, 1]
    assert len(columns) > 0 and int(columns.min()) > 3, "what is hidden lies to the right"


def test_a_row_lstm_sees_a_triangle() -> None:
    torch.manual_seed(0)
    config = PixelRnnConfig(**{**RNN, "layers": 1}, recurrence="row", likelihood="logistic-mixture", mixtures=2)
    model = PixelRnn(config).double()
    seen = reach(model, 6, 3)
    assert bool(seen[5, 4]) and not bool(seen[5, 5]), "the row above only one pixel to the right"
    assert bool(seen[0].all()), "far above the whole row"


@pytest.mark.parametrize("field", [3, 5, 9, 17])
def test_a_receptive_field_is_as_wide_as_it_says(field: int) -> None:
    torch.manual_seed(0)
    side = 17
    network = build_network(field, 1, 4, 6, 12, groups=0, condition=2).double()
    condition = torch.randn(1, 2, 1, 1, dtype=torch.float64)
    x = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    middle = predict(network, to_input(x), condition).parameters[0, :, 8, 8]
    (gradient,) = torch.autograd.grad(middle @ torch.randn(4, dtype=torch.float64), x)
    rows, columns = torch.nonzero(gradient[0, 0], as_tuple=True)
    radius = field // 2
    assert (int(rows.min()), int(rows.max())) == (8 - radius, 8)
    assert (int(columns.min()), int(columns.max())) == (8 - radius, 8 + radius)
    assert len(rows) == (field**2 - 1) // 2, "all of the square before the pixel"


def test_a_receptive_field_of_one_sees_the_latent_alone() -> None:
    torch.manual_seed(0)
    config = PixelVaeConfig(size=8, widths=(6,), decoder_widths=(6,), latent_dim=3, receptive_field=1, mixtures=2)
    vae = PixelVae(config).double().eval()
    z = torch.randn(2, 3, dtype=torch.float64)
    first, other = (
        predict(vae.network, to_input(torch.rand(2, 3, 8, 8, dtype=torch.float64)), vae.decoder(z)).parameters
        for _ in range(2)
    )
    assert torch.equal(first, other)
    changed = predict(vae.network, to_input(torch.rand(2, 3, 8, 8, dtype=torch.float64)), vae.decoder(z + 1)).parameters
    assert not torch.allclose(first, changed)


def normalised(network: ScaledNetwork) -> ScaledNetwork:
    """With weight normalisation, started."""
    network.normalise_weights()
    predict(network.train(), to_input(torch.rand(8, 1, 4, 4)))
    return network


NETWORKS = {
    "gated": (lambda: GatedNetwork(2, 1, 6, 3, (1,), 6, groups=1), (3, 3)),
    "plain": (lambda: PlainNetwork(2, 1, 6, 3, (1,), 6, groups=1), (3, 3)),
    "row lstm": (lambda: RecurrentNetwork(PixelRnnConfig(**{**RNN, "recurrence": "row", "channels": 1}), 1, 1), (3, 3)),
    "diagonal bilstm": (lambda: RecurrentNetwork(PixelRnnConfig(**{**RNN, "channels": 1}), 1, 1), (3, 3)),
    "plus plus": (lambda: ScaledNetwork(2, 1, 4, scales=2, blocks=1, drop=0.0), (4, 2)),
    "plus plus, normalised": (lambda: normalised(ScaledNetwork(2, 1, 4, scales=2, blocks=1, drop=0.0)), (4, 2)),
    "plus plus, square": (lambda: ScaledNetwork(2, 1, 4, scales=2, blocks=1, drop=0.0), (4, 4)),
}


SLOW = ("plus plus, square",)  # 65,536 images


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in NETWORKS])
def test_the_probabilities_of_all_binary_images_sum_to_one(name: str) -> None:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    network = make().double().eval()
    total = 0.0
    for x in binary_images(*shape).split(8192):
        with torch.no_grad():
            logits = predict(network, to_input(x)).parameters
        nats = -torch.nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
        total += float(nats.sum(dim=(1, 2, 3)).exp().sum())
    assert total == pytest.approx(1.0, abs=1e-9)
