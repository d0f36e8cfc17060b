"""Sketch-RNN: its losses by hand, its mixture, what depends on what, and the contract of all families, on drawings."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.drawings import make_drawings
from training.layers.strokes import RowDistribution, drawing_nats, lengths_of
from training.models.sketch_rnn import SketchRnn, SketchRnnConfig, _places
from training.protocols import Batch, GradientModel, Posterior
from training.sketches.encoder import SketchEncoder, load_sketch_encoder, slerp
from training.sketches.evaluation import same_ink
from training.sketches.preparing import DrawingPreparation

LONGEST = 24
PREPARATION = DrawingPreparation(longest=LONGEST, scale=80.0)
TINY: dict[str, Any] = {
    "longest": LONGEST, "latent_dim": 5, "encoder_hidden": 6, "decoder_hidden": 8, "mixtures": 2,
}  # fmt: skip
ALONE = {"latent_dim": 0}


def build(**changes: Any) -> SketchRnn:
    torch.manual_seed(0)
    return SketchRnn(SketchRnnConfig(**{**TINY, **changes}))


def drawings(count: int = 6, longest: int = LONGEST) -> Tensor:
    """Rows of drawings `(count, longest, 5)`."""
    preparation = DrawingPreparation(longest=longest, scale=80.0)
    return torch.stack([torch.from_numpy(preparation.apply(each.strokes)) for each in make_drawings(count)])


def test_the_losses_of_a_drawing_by_hand() -> None:
    """With zero weights every row has the same distribution, which the output's bias gives: equations 9 to 11."""
    model = build(mixtures=1, longest=5, kl_weight=0.5, kl_min=0.2, eta_min=0.01, decay=0.9).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.output.bias.copy_(
            torch.tensor([0.0, 1.0, 0.0, math.log(2.0), 0.0, 0.0, 0.0, math.log(2.0), math.log(5.0)])
        )
        assert model.encoder is not None
        model.encoder.mean.bias.fill_(1.0)
        model.encoder.log_variance.bias.fill_(math.log(0.25))
    rows = [[0, 0, 1, 0, 0], [3, 1, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 1]]
    x = torch.tensor([rows], dtype=torch.float64)
    model.requires_grad_(False)
    q = model.posterior(x)
    terms = model.losses(x, q.mean, q)
    # N((1, 0), diag(4, 1)) at (0, 0) and at (3, 1); pens 1/8, 2/8 and 5/8
    offsets = 2 * math.log(2 * math.pi * 2) + 0.5 * (1 / 4) + 0.5 * (4 / 4 + 1)
    pens = math.log(8) + math.log(4) + 3 * math.log(8 / 5)
    kl = 0.5 * (1 + 0.25 - 1 - math.log(0.25))
    assert float(terms.offsets) == pytest.approx(offsets / 5)
    assert float(terms.pens) == pytest.approx(pens / 5)
    assert float(terms.kl) == pytest.approx(kl)
    eta = 1 - 0.99 * 0.9**3
    found = model.loss(Batch(x, x), 3)
    assert float(found.objective) == pytest.approx((offsets + pens) / 5 + 0.5 * eta * kl)
    bound = model.elbo(Batch(x, x))
    to_end = math.log(8) + math.log(4) + math.log(8 / 5)
    assert float(bound.elbo) == pytest.approx(-offsets - to_end - 5 * kl)
    model.encoder.mean.bias.fill_(0.1)  # below the floor, the KL has no effect
    model.encoder.log_variance.bias.zero_()
    assert float(model.loss(Batch(x, x), 3).objective) == pytest.approx((offsets + pens) / 5 + 0.5 * eta * 0.2)


def test_eta_rises_from_its_minimum_to_one() -> None:
    model = build(eta_min=0.1, decay=0.5)
    assert [model.eta(step) for step in (0, 1, 2)] == pytest.approx([0.1, 0.55, 0.775])
    assert model.eta(10**9) == 1.0


def test_padding_changes_neither_the_offsets_nor_the_encoder_but_counts_in_the_pens() -> None:
    model = build()
    short, long = drawings(longest=LONGEST), drawings(longest=2 * LONGEST)
    z = model.latent(short)
    assert torch.equal(z, model.latent(long))
    one, other = (drawing_nats(model.rows_given(x, z), x) for x in (short, long))
    torch.testing.assert_close(one.offsets, other.offsets)
    torch.testing.assert_close(one.pens_to_end, other.pens_to_end)
    assert bool((other.pens > one.pens + 1.0).all()), "rows of padding are part of L_p"
    halves = [model.losses(x, z, None) for x in (short, long)]
    torch.testing.assert_close(halves[0].offsets, 2.0 * halves[1].offsets)


@pytest.mark.parametrize("changes", [{}, ALONE])
def test_a_row_depends_on_the_rows_before_it_alone(changes: dict[str, Any]) -> None:
    model = build(**changes)
    x = drawings(1)
    z = torch.randn(1, model.config.latent_dim)
    for at in range(LONGEST):
        changed = x.clone()
        changed[0, at, :2] += 1.0
        before, after = model.rows_given(x, z), model.rows_given(changed, z)
        moved = (before.mean != after.mean).flatten(2).any(2)[0]
        assert not bool(moved[: at + 1].any()), "a row saw itself or a later one"
        if at + 1 < LONGEST:
            assert bool(moved[at + 1]), "a row did not see the one before it"


@pytest.mark.parametrize("changes", [{}, ALONE])
def test_every_parameter_gets_a_gradient(changes: dict[str, Any]) -> None:
    model = build(kl_min=0.0, **changes)
    model.loss(Batch(drawings(), drawings()), 0).objective.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


def test_the_encoder_reads_both_directions_and_no_padding() -> None:
    """Against PyTorch's own bidirectional LSTM on packed sequences."""
    model = build().double()
    assert model.encoder is not None
    both = torch.nn.LSTM(5, 6, batch_first=True, bidirectional=True).double()
    both.load_state_dict(
        {
            **dict(model.encoder.forwards.named_parameters()),
            **{f"{name}_reverse": value for name, value in model.encoder.backwards.named_parameters()},
        }
    )
    x = drawings().double()
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths_of(x), batch_first=True, enforce_sorted=False)
    last = both(packed)[1][0]
    expected = model.encoder.mean(torch.cat([last[0], last[1]], dim=1))
    torch.testing.assert_close(model.latent(x), expected)


def test_places_are_from_the_mean_point_wherever_a_drawing_begins() -> None:
    x = drawings().double()
    moved = x.clone()
    moved[:, 0, :2] += torch.tensor([3.0, -2.0])
    is_point = (x[..., 4:] < 0.5).double()
    places = _places(x, is_point)
    torch.testing.assert_close(_places(moved, is_point), places)
    torch.testing.assert_close(places.diff(dim=1)[:, 0], x[:, 1, :2])
    assert float(places.sum(1).abs().max()) < 1e-9


def test_a_mean_over_states_is_of_points_alone() -> None:
    model, short = build(pooling="mean").double(), drawings().double()
    longer = torch.cat([short, short[:, -1:].expand(-1, 7, -1)], dim=1)
    torch.testing.assert_close(model.latent(longer), model.latent(short))
    assert model.encoder is not None
    one = short[:1]
    count = int(lengths_of(one))
    ahead, back = model.encoder.forwards(one[:, :count])[0], model.encoder.backwards(one[:, :count].flip(1))[0]
    expected = model.encoder.mean(torch.cat([ahead.mean(1), back.mean(1)], dim=1))
    torch.testing.assert_close(model.latent(one), expected)


def test_hidden_rows_are_hidden_in_training_alone() -> None:
    model, x = build(input_dropout=1.0).double(), drawings().double()
    z = model.latent(x)
    blind = model.rows_given(x, z, 1.0)
    torch.testing.assert_close(blind.log_pen, model.rows_given(torch.zeros_like(x), z, 1.0).log_pen)
    assert not torch.allclose(blind.log_pen, model.rows_given(x, z).log_pen)
    in_training = model.train().losses(x, z, None)
    torch.testing.assert_close(in_training.pens, drawing_nats(blind, x).pens.mean() / x.shape[1])
    open_eyed = model.eval().losses(x, z, None)
    torch.testing.assert_close(open_eyed.pens, drawing_nats(model.rows_given(x, z), x).pens.mean() / x.shape[1])


@pytest.mark.parametrize("changes", [{}, ALONE])
def test_drawing_row_by_row_follows_the_distributions_of_whole_drawings(changes: dict[str, Any]) -> None:
    """At temperature 0, each drawn row is the mode of what `rows_given` says of it."""
    model = build(**changes).eval()
    z = model.draw_latents(3, torch.Generator().manual_seed(0))
    drawn = model.decode(z)
    assert torch.equal(drawn, model.decode(z))
    found = model.rows_given(drawn, z)
    for place in range(LONGEST):
        at = RowDistribution(*(value[:, place] for value in found))
        is_over = drawn[:, :place, 4].amax(1) > 0 if place else torch.zeros(3, dtype=torch.bool)
        torch.testing.assert_close(at.draw(0.0)[~is_over], drawn[~is_over, place], atol=1e-5, rtol=0)


def test_after_its_end_a_drawing_has_nothing_but_ends() -> None:
    model = build()
    drawn = model.sample(50, torch.Generator().manual_seed(0))
    ended = drawn[..., 4].cumsum(1) > 0
    assert bool(ended.any()) and bool((drawn[ended] == torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])).all())
    assert bool((drawn[..., 2:].sum(-1) == 1.0).all())
    assert torch.equal(drawn, model.sample(50, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("changes", [{}, ALONE])
def test_a_completion_keeps_the_points_that_are_there(changes: dict[str, Any]) -> None:
    model = build(**changes)
    x = drawings(2)
    begun = x.clone()
    begun[:, 3:] = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])
    drawn = model.complete(begun, torch.Generator().manual_seed(0))
    assert torch.equal(drawn[:, :3], x[:, :3])
    other = model.complete(begun, torch.Generator().manual_seed(1))
    assert not torch.equal(drawn, other)


def test_the_latent_of_a_beginning_is_drawn_by_its_likelihood() -> None:
    """Latents are chosen as often as the softmax of the likelihoods of the points under them says."""
    model = build()
    model.requires_grad_(False)
    assert model.first is not None
    model.first.weight.mul_(8.0)
    begun = drawings(1)
    begun[:, 3:] = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0])
    z = model.draw_latents(4, torch.Generator().manual_seed(5))
    points = begun[:, :3].expand(4, -1, -1)
    nats = drawing_nats(model.rows_given(points, z), points)
    shares = torch.softmax(-(nats.offsets + nats.pens), 0)
    assert float(shares.max() - shares.min()) > 0.02
    counts = torch.zeros(4)
    for seed in range(400):
        state = torch.Generator().manual_seed(5)
        chosen = _choose_with(model, begun[0], state, seed)
        counts[int((z == chosen).all(1).nonzero())] += 1
    torch.testing.assert_close(counts / 400, shares, atol=0.08, rtol=0)


def _choose_with(model: SketchRnn, begun: Tensor, state: torch.Generator, seed: int) -> Tensor:
    """A latent of a beginning from candidates that are always the same, chosen with another seed."""
    drawn = SketchRnn.draw_latents

    def fixed(count: int, generator: torch.Generator | None = None) -> Tensor:
        z = drawn(model, count, state)
        if generator is not None:
            generator.manual_seed(seed)
        return z

    model.draw_latents = fixed  # type: ignore[method-assign]
    try:
        return model._latent_of_beginning(begun, 4, torch.Generator())
    finally:
        del model.draw_latents  # type: ignore[method-assign]


OTHER: dict[str, Any] = {
    "longest": 30, "latent_dim": 4, "encoder_hidden": 7, "decoder_hidden": 9, "mixtures": 3, "kl_weight": 3.0,
    "kl_min": 5.0, "eta_min": 0.9, "decay": 0.1, "search_dim": 2, "whitening": 1.0, "turn": "zca",
    "places": True, "pooling": "mean", "input_dropout": 0.5,
}  # fmt: skip


def outcome(**changes: Any) -> Tensor:
    """Vectors of a model with a fitted search space, and its objective over two steps."""
    model = build(**changes)
    x = drawings(longest=model.config.longest)
    model.finish([Batch(x, x)])
    parts = [model.embed(x).detach().flatten()]
    for step in range(2):
        torch.manual_seed(1)
        parts.append(model.loss(Batch(x, x), step).objective.detach()[None])
    return torch.cat(parts)


@pytest.mark.parametrize("setting", [field.name for field in fields(SketchRnnConfig)])
def test_every_setting_has_an_effect(setting: str) -> None:
    assert not torch.equal(outcome(), outcome(**{setting: OTHER[setting]}))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("longest", 1), ("latent_dim", -1), ("encoder_hidden", 0), ("decoder_hidden", 0), ("mixtures", 0),
        ("kl_weight", -1.0), ("kl_min", -1.0), ("eta_min", 2.0), ("decay", 1.1), ("search_dim", 6), ("whitening", 2.0),
        ("turn", "up"), ("pooling", "max"), ("input_dropout", 1.5),
    ],
)  # fmt: skip
def test_a_config_is_frozen_and_refuses_values_out_of_range(setting: str, value: Any) -> None:
    with pytest.raises(ValueError, match=setting):
        SketchRnnConfig(**{**TINY, setting: value})
    with pytest.raises(FrozenInstanceError):
        SketchRnnConfig().longest = 3  # type: ignore[misc]


def as_encoder(**changes: Any) -> SketchEncoder:
    model = build(**changes)
    x = drawings(30)
    model.finish([Batch(x, x)])
    return SketchEncoder(model, family="sketch-rnn", config=asdict(model.config), preprocessing=PREPARATION)


@pytest.mark.parametrize("changes", [{}, ALONE])
def test_an_encoder_keeps_the_promises_of_all_families(changes: dict[str, Any], tmp_path: Path) -> None:
    encoder = as_encoder(**changes)
    assert isinstance(encoder.model, GradientModel) and encoder.is_conditional == (not changes)
    given = [each.strokes for each in make_drawings(5)]
    vectors = encoder.embed(given)
    assert vectors.shape == (5, encoder.dim)
    torch.testing.assert_close(torch.from_numpy(vectors).norm(dim=1), torch.ones(5))
    alone = torch.cat([torch.from_numpy(encoder.embed([strokes])) for strokes in given])
    torch.testing.assert_close(alone, torch.from_numpy(vectors), atol=1e-5, rtol=0)
    loaded = load_sketch_encoder(encoder.save(tmp_path / "encoder"))
    assert loaded.encoder_id == encoder.encoder_id and loaded.preprocessing == encoder.preprocessing
    assert (loaded.embed(given) == vectors).all()
    assert torch.equal(loaded.log_likelihood(given), encoder.log_likelihood(given))
    drawn = loaded.sample(3, seed=1)
    assert [each.points for each in drawn] == [each.points for each in encoder.sample(3, seed=1)]


def test_drawings_of_one_stroke_find_themselves_in_any_order_but_not_in_the_other_direction() -> None:
    encoder, lines = as_encoder(), [each.strokes for each in make_drawings(30) if len(each.strokes) == 1]
    rows, state = encoder.prepare(lines), torch.get_rng_state()
    shares = same_ink(encoder, rows)
    assert shares["order"] == 1.0 and shares["direction"] < 0.9
    dots = [[point[None] for point in strokes[0][:5]] for strokes in lines]
    assert same_ink(encoder, encoder.prepare(dots))["direction"] == 1.0
    assert torch.equal(state, torch.get_rng_state())


def test_embedding_nothing_gives_no_vectors() -> None:
    encoder = as_encoder()
    assert encoder.embed([]).shape == (0, encoder.dim)


def test_interpolation_is_along_the_arc() -> None:
    first, last = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    middle = math.sqrt(0.5)
    expected = torch.tensor([[1.0, 0.0], [middle, middle], [0.0, 1.0]])
    torch.testing.assert_close(slerp(first, last, 3), expected)
    torch.testing.assert_close(slerp(first, first, 3), first.expand(3, -1))
    torch.testing.assert_close(slerp(first, -first, 3)[[0, 2]], torch.stack([first, -first]))


def fit(model: SketchRnn, x: Tensor, steps: int) -> None:
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(steps):
        optimiser.zero_grad()
        model.loss(Batch(x, x), step).objective.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    model.requires_grad_(False)


def test_it_redraws_what_it_has_learnt() -> None:
    """With one component, a distribution cannot hedge between drawings: the latent has to say which."""
    model = build(decoder_hidden=48, encoder_hidden=16, mixtures=1, kl_weight=0.001)
    x = drawings(2) * torch.tensor([0.3, 0.3, 1.0, 1.0, 1.0])  # smaller offsets are learnt faster
    fit(model, x, 400)
    drawn = model.reconstruct(x)
    lengths = lengths_of(x)
    assert int((lengths_of(drawn) - lengths).abs().max()) <= 2
    for one, other, length in zip(drawn, x, lengths.tolist(), strict=True):  # the pen's path, but for its end
        assert float((one - other)[: length - 1, :2].cumsum(0).abs().mean()) < 0.15


def test_drawings_of_the_decoder_alone_are_as_long_as_those_it_has_learnt() -> None:
    model = build(latent_dim=0, decoder_hidden=48)
    x = drawings(3)
    fit(model, x, 250)
    lengths = lengths_of(model.sample(200, torch.Generator().manual_seed(0))).double()
    assert float((lengths < LONGEST).double().mean()) > 0.9
    assert float(lengths.mean()) == pytest.approx(float(lengths_of(x).double().mean()), rel=0.4)


def test_objectives_over_two_views_reach_the_latent() -> None:
    found = build().loss(Batch(drawings(), drawings()), 0)
    assert isinstance(found.posterior, Posterior) and found.latent.requires_grad
