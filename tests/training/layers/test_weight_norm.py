"""Weight normalisation: w = g v / ||v||, with g and b from the first batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.models.pixel_cnn_pp import INITIAL_SCALE, GatedBlock, PixelCnnPp, PixelCnnPpConfig
from training.protocols import Batch

SIZE = 8


def build() -> PixelCnnPp:
    torch.manual_seed(0)
    return PixelCnnPp(PixelCnnPpConfig(size=SIZE, width=6, scales=2, blocks=1, pool=2, mixtures=2, weight_norm=True))


def batch(seed: int) -> Batch:
    x = torch.rand(8, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    return Batch(x, x)


def normalised(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "started")}


def outputs_of(model: PixelCnnPp, given: Batch) -> dict[str, Tensor]:
    """What each normalised convolution puts out `(features, values)`."""
    found: dict[str, Tensor] = {}

    def keep(name: str, outputs: Tensor) -> None:
        found[name] = outputs.detach().transpose(0, 1).flatten(1)

    hooks = [
        module.register_forward_hook(lambda _, __, outputs, name=name: keep(name, outputs))
        for name, module in normalised(model).items()
    ]
    model.loss(given, 0)
    for hook in hooks:
        hook.remove()
    return found


def test_the_first_batch_gives_outputs_of_mean_0_and_the_given_deviation_and_later_ones_change_nothing() -> None:
    model = build().train()
    inner = {f"{name}.second" for name, module in model.named_modules() if isinstance(module, GatedBlock)}
    at_once = outputs_of(model, batch(0))
    after = outputs_of(model, batch(0))
    assert len(at_once) == sum(isinstance(module, nn.Conv2d | nn.ConvTranspose2d) for module in model.modules())
    for name, values in at_once.items():
        torch.testing.assert_close(values, after[name], rtol=1e-4, atol=1e-5, msg=name)
        torch.testing.assert_close(values.mean(1), torch.zeros(len(values)), rtol=0, atol=1e-5, msg=name)
        expected = torch.full((len(values),), INITIAL_SCALE if name in inner else 1.0)
        torch.testing.assert_close(values.std(1, correction=0), expected, rtol=1e-3, atol=0, msg=name)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.loss(batch(1), 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_norm_of_each_output_weight_is_its_gain() -> None:
    model = build().train()
    model.loss(batch(0), 0)
    for name, module in normalised(model).items():
        weight = module.weight
        assert isinstance(weight, Tensor)
        outputs = weight.transpose(0, 1) if isinstance(module, nn.ConvTranspose2d) else weight
        gain = model.get_parameter(f"{name}.parametrizations.weight.original0")
        torch.testing.assert_close(outputs.flatten(1).norm(dim=1), gain.flatten().abs(), msg=name)


def test_every_part_has_a_gradient() -> None:
    model = build().train()
    model.loss(batch(0), 0).objective.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


def test_a_model_that_was_loaded_is_not_started_again(tmp_path: Path) -> None:
    model = build().train()
    model.loss(batch(0), 0)
    save_file(model.state_dict(), tmp_path / "weights")
    loaded = build()
    loaded.load_state_dict(load_file(tmp_path / "weights"))
    nats = [each.loss(batch(1), 1).objective.item() for each in (model.train(), loaded.train())]
    assert nats[0] == pytest.approx(nats[1])
