"""Every family learns: gradients, one batch by heart, mixed precision and weights of pixels."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.training.models.families import (
    FLOWS,
    GENERATIVE,
    GRADIENT,
    PIXEL_VAES,
    PIXELWISE,
    SIZE,
    STAGED,
    TINY,
    VARIATIONAL,
    batch_of,
    build,
    make_images,
)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        *((family, {"normalisation": kind}) for family in STAGED for kind in ("batch", "none")),
        *((family, {}) for family in GRADIENT if family not in STAGED),
    ],
)
def test_the_gradient_reaches_every_parameter(family: str, changes: dict[str, Any]) -> None:
    model = build(family, **changes).train()
    if hasattr(model, "quantise"):  # with an empty codebook start, all vectors would be codes themselves: no error
        model.loss(batch_of(model, make_images(8, seed=5)), step=0)
    model.loss(batch_of(model, make_images(8)), step=0).objective.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


@pytest.mark.slow
@pytest.mark.parametrize("family", [*PIXELWISE, *FLOWS])
def test_a_density_learns_one_batch_by_heart(family: str) -> None:
    wide: dict[str, Any] = {"hidden": (200, 200)} if family == "made" else {"width": 16}
    if family in PIXEL_VAES:
        wide = {"pixel_width": 16, "latent_dim": 16}
    size = SIZE if family in PIXEL_VAES else 8  # whose latent has little to say of a small image
    model = build(family, size=size, **wide).train()
    x = make_images(8, size=size)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(100):
        optimiser.zero_grad()
        objective = model.loss(batch_of(model, x), step).objective
        objective.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimiser.step()
    noise = torch.randint(0, 256, x.shape, generator=torch.Generator().manual_seed(2)) / 255.0
    learnt, unknown = (model.eval().log_likelihood(images).nats.detach() for images in (x, noise))
    bits = -learnt / (x[0].numel() * math.log(2.0))
    assert float(bits.max()) < 7.0, "8 bits are what knowing nothing takes"
    assert bool((unknown < learnt.min()).all())


@pytest.mark.parametrize(
    "family", [name for name in GRADIENT if name in GENERATIVE and name not in (*PIXELWISE, *FLOWS)]
)
def test_a_model_learns_one_batch_by_heart(family: str) -> None:
    wide: dict[str, Any] = {"widths": (16, 32), "decoder_widths": (32, 16)}
    changes: dict[str, Any] = {**wide, "latent_dim": 16}
    if "codes" in TINY[family]:
        changes = {**wide, "codes": 64, "code_dim": 8}
    if family == "draw":
        changes = {"hidden": 64, "steps": 6, "step_dim": 8}
    model = build(family, **changes).train()
    x = make_images(8)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(150):
        optimiser.zero_grad()
        model.loss(batch_of(model, x), step).objective.backward()
        optimiser.step()
    error = torch.square(model.eval().reconstruct(x) - x).mean().detach()
    assert float(error) < 0.1 * float(x.var())


@pytest.mark.parametrize("family", GRADIENT)
def test_mixed_precision_keeps_the_objective_in_single_precision(family: str) -> None:
    model = build(family, **({"normalisation": "batch"} if family in STAGED else {})).train()
    if hasattr(model, "quantise"):
        model.loss(batch_of(model, make_images(8, seed=5)), step=0)
    objectives = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model.eval().loss(batch_of(model, make_images(8)), step=0)
        assert loss.objective.dtype == loss.latent.dtype == torch.float32
        objectives.append(loss.objective)
    torch.testing.assert_close(*objectives, rtol=0.02, atol=0)
    objectives[1].backward()
    assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in model.parameters())


@pytest.mark.parametrize("family", GRADIENT)
def test_a_pixel_without_weight_has_no_influence(family: str) -> None:
    model = build(family).eval()
    x = make_images(4)
    weight = torch.ones(4, 1, SIZE, SIZE)
    weight[:, :, :8] = 0.0
    changed = x.clone()
    changed[:, :, :8] = 1.0 - changed[:, :, :8]
    outcomes = []
    for target in (x, changed):
        torch.manual_seed(0)
        outcomes.append(model.loss(batch_of(model, x)._replace(target=target, weight=weight), step=0).objective)
    assert torch.equal(*outcomes)


@pytest.mark.parametrize("family", GRADIENT)
def test_the_loss_comes_with_the_latent_that_the_model_gives(family: str) -> None:
    model = build(family).eval()
    batch = batch_of(model, make_images(4))._replace(label=None)
    if family == "cvae":
        model = build(family, label_in_encoder=False).eval()
        batch = batch_of(model, make_images(4))
    loss = model.loss(batch, step=0)
    torch.testing.assert_close(loss.latent, model.latent(batch.x))
    assert loss.latent.requires_grad
    assert (loss.posterior is not None) == (family in VARIATIONAL)
