"""What each pixel sees, that probabilities sum to one, and that cached sampling draws what naive sampling draws."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from training.fitting.averaging import moving_average
from training.layers.autoregressive import to_input
from training.layers.causal import Cursor, Everywhere
from training.layers.gated import GatedNetwork
from training.layers.raster import Drawing, predict
from training.models.made import Made, MadeConfig, to_images, to_values
from training.models.multiscale import GROUPS, GroupNetwork, Multiscale, MultiscaleConfig
from training.models.pixel_cnn import PixelCnn, PixelCnnConfig, PlainNetwork
from training.models.pixel_cnn_pp import PixelCnnPp, PixelCnnPpConfig, ScaledNetwork
from training.models.pixel_rnn import PixelRnn, PixelRnnConfig, RecurrentNetwork, skew, unskew
from training.models.pixel_vae import PixelVae, PixelVaeConfig, build_network
from training.protocols import Batch

SIDE = 8
SMALL: dict[str, Any] = {"size": SIDE, "width": 12, "pool": 2}
CNN: dict[str, Any] = {**SMALL, "kernel": 3, "dilations": (1, 2), "head": 24}
RNN: dict[str, Any] = {**SMALL, "kernel": 3, "layers": 2, "head": 24}
CASES: dict[str, tuple[Any, Any]] = {
    "gated, channels in turn": (PixelCnn, PixelCnnConfig(**CNN, likelihood="categorical")),
    "gated, whole pixels": (PixelCnn, PixelCnnConfig(**CNN, likelihood="logistic-mixture", mixtures=2, classes=3)),
    "plain, channels in turn": (
        PixelCnn, PixelCnnConfig(**{**CNN, "kernel": 5}, architecture="plain", likelihood="categorical"),
    ),
    "plus plus": (PixelCnnPp, PixelCnnPpConfig(**SMALL, scales=3, blocks=1, mixtures=2, classes=3)),
    "row lstm": (PixelRnn, PixelRnnConfig(**RNN, recurrence="row", classes=3)),
    "diagonal bilstm": (PixelRnn, PixelRnnConfig(**RNN, recurrence="diagonal")),
}  # fmt: skip


def build(case: str) -> Any:
    torch.manual_seed(0)
    family, config = CASES[case]
    model = family(config).double().eval()
    # Distributions that hardly differ from pixel to pixel would hide a mistake.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight"):
                parameter.mul_(1.7)
    return model


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


def binary_images(height: int, width: int) -> Tensor:
    """All binary images `(2^(height * width), 1, height, width)`."""
    values = torch.tensor(list(product((0.0, 1.0), repeat=height * width)), dtype=torch.float64)
    return values.reshape(-1, 1, height, width)


NETWORKS = {
    "gated": (lambda: GatedNetwork(2, 1, 6, 3, (1,), 6, groups=1), (3, 3)),
    "plain": (lambda: PlainNetwork(2, 1, 6, 3, (1,), 6, groups=1), (3, 3)),
    "row lstm": (lambda: RecurrentNetwork(PixelRnnConfig(**{**RNN, "recurrence": "row", "channels": 1}), 1, 1), (3, 3)),
    "diagonal bilstm": (lambda: RecurrentNetwork(PixelRnnConfig(**{**RNN, "channels": 1}), 1, 1), (3, 3)),
    "plus plus": (lambda: ScaledNetwork(2, 1, 4, scales=2, blocks=1, drop=0.0), (4, 2)),
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


@pytest.mark.parametrize(("masks", "random_order"), [(1, False), (1, True), (3, True)])
def test_the_probabilities_of_a_made_sum_to_one(masks: int, random_order: bool) -> None:
    torch.manual_seed(0)
    config = MadeConfig(size=8, hidden=(40, 30), masks=masks, random_order=random_order)
    object.__setattr__(config, "size", 3)  # below what an encoder may have, but all images can be counted
    made = Made(config).double().eval()
    with torch.no_grad():
        made.direct.weight.normal_()
        probabilities = made.log_likelihood(binary_images(3, 3)).nats.exp()
    assert float(probabilities.sum()) == pytest.approx(1.0, abs=1e-9)
    assert float(probabilities.max()) > 4 / 512, "no image is likelier than the others: nothing is summed"


@pytest.mark.parametrize("random_order", [False, True])
def test_a_made_sees_exactly_what_comes_before_in_its_order(random_order: bool) -> None:
    torch.manual_seed(0)
    made = Made(MadeConfig(size=8, hidden=(500, 400), random_order=random_order, masks=2, direct=False)).double().eval()
    for number in range(2):
        made.use_masks(number)
        values = torch.rand(1, 64, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(
            lambda flat: made._parameters_at(flat, made._hidden(flat))[0, 0, :, 0], values
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
    averaged = AveragedModel(made, avg_fn=moving_average(0.9), use_buffers=True)
    x = torch.rand(2, 1, 8, 8).round()
    for step in range(5):
        made.loss(Batch(x, x), step)
        averaged.update_parameters(made)
    alone = Made(made.config).eval()
    alone.load_state_dict(averaged.module.state_dict())
    averaged.eval()
    torch.testing.assert_close(averaged.module.loss(Batch(x, x), 9).objective, alone.loss(Batch(x, x), 9).objective)


def test_values_in_raster_order_and_back() -> None:
    x = torch.rand(2, 3, 4, 5)
    values = to_values(x)
    assert torch.equal(values[0, :4], torch.stack([*x[0, :, 0, 0], x[0, 0, 0, 1]]))
    assert torch.equal(to_images(values, x.shape), x)


@pytest.mark.parametrize("case", CASES)
def test_cached_sampling_draws_what_naive_sampling_draws(case: str) -> None:
    model = build(case)
    label = None if model.config.classes is None else torch.tensor([0, 2, 1])
    fast, slow = (model.sample(3, torch.Generator().manual_seed(5), label=label, cached=each) for each in (True, False))
    assert torch.equal(fast, slow)
    assert len(fast.unique()) > 20, "images of one value show nothing"


@pytest.mark.parametrize("field", [1, 3, 17])
def test_cached_sampling_follows_a_map_of_conditions(field: int) -> None:
    torch.manual_seed(0)
    vae = PixelVae(
        PixelVaeConfig(size=8, widths=(6,), decoder_widths=(6,), latent_dim=3, receptive_field=field, mixtures=2)
    )
    vae.double().eval()
    blank, condition = torch.zeros(2, 3, 8, 8, dtype=torch.float64), vae.decoder(torch.randn(2, 3).double())
    fast, slow = (
        Drawing(vae.network, vae.distribution, to_input, cached=each).draw(
            blank, None, condition, torch.Generator().manual_seed(1)
        )
        for each in (True, False)
    )
    assert torch.equal(fast, slow)


@pytest.mark.parametrize("case", CASES)
def test_a_cursor_sees_at_each_pixel_what_one_parallel_pass_sees(case: str) -> None:
    model = build(case)
    x = torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64)
    at, told = Cursor(to_input(x)), model.network.conditions(model.labels.planes(None, 2))
    everywhere = Everywhere(to_input(x))
    whole = model.network.horizontal(everywhere, model.network.vertical(everywhere, told), told).parameters
    with torch.no_grad():
        for row in range(SIDE):
            vertical = model.network.vertical(at.to_row(row), told)
            if row % 3 == 2:  # a row that is known is computed at once
                along = model.network.horizontal(at, vertical, told).parameters
                torch.testing.assert_close(along, whole[:, :, row : row + 1])
                continue
            for column in range(SIDE):
                here = model.network.horizontal(at.to_pixel(row, column), vertical, told).parameters
                torch.testing.assert_close(here[:, :, 0, 0], whole[:, :, row, column])


@pytest.mark.parametrize("case", CASES)
def test_a_completion_is_the_same_cached_and_naive(case: str) -> None:
    model = build(case)
    known = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    known[:3] = True
    known[5, 2:5] = True
    x = torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64)
    fast, slow = (
        Drawing(model.network, model.distribution, to_input, cached=each).draw(
            x, known, model.labels.planes(None, 2), torch.Generator().manual_seed(2)
        )
        for each in (True, False)
    )
    assert torch.equal(fast, slow)
    assert torch.equal(fast[:, :, known], x[:, :, known])


def multiscale(**changes: Any) -> Multiscale:
    torch.manual_seed(0)
    settings = {"size": 8, "base": 2, "width": 6, "layers": 1, "blocks": 1, "mixtures": 2, "pool": 2}
    return Multiscale(MultiscaleConfig(**{**settings, **changes})).double().eval()


def test_a_group_depends_on_the_groups_before_it_alone() -> None:
    model = multiscale()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    nats = model.pixel_log_prob(x).nats.detach()[0]
    order = torch.full((8, 8), -1)
    order[::4, ::4] = torch.arange(4).reshape(2, 2)  # the base, pixel by pixel
    for scale, step in enumerate((2, 1)):
        for place, (row, column) in enumerate(GROUPS):
            order[row * step :: 2 * step, column * step :: 2 * step] = 10 + 3 * scale + place
    assert int(order.min()) == 0
    seen = torch.zeros(64, 64, dtype=torch.bool)
    for place in range(64):
        changed = x.clone()
        changed[0, :, place // 8, place % 8] = torch.rand(3, dtype=torch.float64)
        seen[:, place] = (model.pixel_log_prob(changed).nats.detach()[0] != nats).flatten()
    flat = order.flatten()
    itself = torch.eye(64, dtype=torch.bool)
    before = flat[:, None] > flat[None, :]
    assert bool(seen[itself].all())
    assert not bool((seen & ~before & ~itself).any())
    assert all(bool((seen & before)[flat == number].any()) for number in range(10, 16)), "each group sees something"


@pytest.mark.slow  # 65,536 images
def test_the_probabilities_of_a_multiscale_model_sum_to_one() -> None:
    model = multiscale(**{"size": 8, "channels": 1, "likelihood": "bernoulli"})
    object.__setattr__(model.config, "size", 4)  # below what an encoder may have, but all images can be counted
    model.scales = model.scales[:1]
    total = sum(
        float(model.pixel_log_prob(x).nats.sum(dim=(1, 2)).exp().sum().detach())
        for x in binary_images(4, 4).split(8192)
    )
    assert total == pytest.approx(1.0, abs=1e-9)


def test_a_multiscale_image_takes_three_passes_for_each_doubling(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    forward = GroupNetwork.forward
    monkeypatch.setattr(GroupNetwork, "forward", lambda self, x: calls.append(x.shape[-1]) or forward(self, x))
    multiscale(size=32, base=4).sample(2)
    assert calls == [8, 8, 8, 16, 16, 16, 32, 32, 32]


def test_labels_are_summed_over_where_they_are_unknown() -> None:
    model = build("gated, whole pixels")
    x = torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64).mul(255).round() / 255
    model.labels.share.copy_(torch.tensor([0.5, 0.3, 0.2]))
    joint = [
        model.pixel_log_prob(x, torch.full((2,), label)).nats.sum(dim=(1, 2)) + model.labels.share[label].log()
        for label in range(3)
    ]
    torch.testing.assert_close(model.log_likelihood(x).nats, torch.logsumexp(torch.stack(joint), dim=0))


def test_a_shifted_map_comes_back() -> None:
    x = torch.arange(1.0, 25.0).reshape(1, 2, 3, 4)
    shifted = skew(x)
    assert shifted.shape == (1, 2, 3, 6)
    assert shifted[0, 0].tolist() == [[1, 2, 3, 4, 0, 0], [0, 5, 6, 7, 8, 0], [0, 0, 9, 10, 11, 12]]
    assert torch.equal(unskew(shifted), x)


def test_what_a_config_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match=r"receptive_field must be 1, or a power of two plus one .* not 7"):
        PixelVaeConfig(receptive_field=7)
    with pytest.raises(ValueError, match="predicts whole pixels"):
        PixelCnnPpConfig(likelihood="categorical")
    with pytest.raises(ValueError, match="size must be a multiple of 4 for 3 scales, not 30"):
        PixelCnnPpConfig(size=30, pool=2)
    with pytest.raises(ValueError, match="kernel must be odd and between 3 and size"):
        PixelCnnConfig(kernel=4)
    with pytest.raises(ValueError, match="width must be at least 3, not 2"):
        PixelCnnConfig(width=2)
