"""The conditional VAE: what is told to it leaves its latent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from service.cli import main
from tests.conftest import write_photos
from training.data.sources import read_images
from training.encoder import load_encoder
from training.errors import EncoderError
from training.loop import train
from training.models.cvae import Cvae, CvaeConfig
from training.models.vae import Vae, VaeConfig
from training.protocols import Batch
from training.recipes import load_recipe

CLASSES = 4
SMALL: dict[str, Any] = {
    "size": 8,
    "channels": 1,
    "network": "mlp",
    "hidden": (64,),
    "activation": "relu",
    "latent_dim": 6,
    "scale": 0.1,
}


def labelled(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images whose left half is the label's pattern and whose right half is a style of its own."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(CLASSES, 1, 8, 4, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(CLASSES, (count,), generator=generator)
    styles = torch.nn.functional.interpolate(torch.rand(count, 1, 2, 1, generator=generator), (8, 4), mode="bilinear")
    noise = 0.02 * torch.randn(count, 1, 8, 8, generator=generator)
    x = torch.cat([patterns[labels], styles], dim=3) + noise
    return torch.round(x.clamp(0.0, 1.0) * 255.0) / 255.0, labels


def trained(model: Any, x: Tensor, labels: Tensor) -> Any:
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for step in range(600):
        rows = torch.randint(len(x), (64,))
        optimiser.zero_grad()
        model.loss(Batch(x[rows], x[rows], None, labels[rows]), step).objective.backward()
        optimiser.step()
    return model.eval()


def probe(model: Any, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Held-out accuracy of a linear probe that predicts the label from samples of the posterior."""
    codes = []
    with torch.no_grad():
        for x, labels in (train, test):
            q = model.posterior(x, labels)
            noise = torch.randn(q.mean.shape, generator=torch.Generator().manual_seed(0))
            codes.append((q.mean + torch.exp(0.5 * q.log_variance) * noise).numpy())
    found = LogisticRegression(max_iter=2000).fit(codes[0], train[1].numpy())
    return float(found.score(codes[1], test[1].numpy()))


@pytest.fixture(scope="module")
def sets() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return labelled(1200, 0), labelled(400, 1)


@pytest.fixture(scope="module")
def cvae(sets: Any) -> Cvae:
    return trained(Cvae(CvaeConfig(**SMALL, classes=CLASSES)), *sets[0])


@pytest.mark.slow
def test_the_label_leaves_the_latent(sets: Any, cvae: Cvae) -> None:
    vae = trained(Vae(VaeConfig(**SMALL)), *sets[0])
    told, untold = probe(cvae, *sets), probe(vae, *sets)
    assert untold > 0.9
    assert told < 0.6


def test_a_nuisance_that_only_the_decoder_is_told_leaves_the_latent_too(sets: Any) -> None:
    config = CvaeConfig(**SMALL, classes=CLASSES, label_in_encoder=False)
    assert probe(trained(Cvae(config), *sets[0]), *sets) < 0.7


@pytest.mark.slow
def test_a_style_is_drawn_with_every_label(sets: Any, cvae: Cvae) -> None:
    x, labels = sets[1]
    z = cvae.posterior(x[:1], labels[:1]).mean.repeat(CLASSES, 1)
    drawn = cvae.generate(torch.arange(CLASSES), z).detach()
    patterns = torch.stack([x[labels == label, :, :, :4].mean(dim=0) for label in range(CLASSES)])
    distances = torch.cdist(drawn[..., :4].flatten(1), patterns.flatten(1))
    assert torch.equal(distances.argmin(dim=1), torch.arange(CLASSES))
    assert float(drawn[..., 4:].std(dim=0).max()) < 0.1


@pytest.mark.slow
def test_without_a_label_the_likelihood_sums_over_them(sets: Any, cvae: Cvae) -> None:
    x, labels = sets[1]
    with torch.no_grad():
        summed = cvae.log_likelihood(x[:50]).nats
        given = [
            cvae.importance_weighted(
                Batch(x[:50], x[:50], None, torch.full((50,), label)), 16, torch.Generator().manual_seed(0)
            )
            for label in range(CLASSES)
        ]
    expected = torch.logsumexp(torch.stack(given), dim=0) - torch.log(torch.tensor(float(CLASSES)))
    torch.testing.assert_close(summed, expected)
    assert torch.equal(torch.stack(given).argmax(dim=0), labels[:50])


@pytest.mark.slow
def test_samples_are_drawn_with_labels_as_often_as_training_had_them(sets: Any, cvae: Cvae) -> None:
    told: list[Tensor] = []
    hook = cvae.decoder.register_forward_pre_hook(lambda module, given: told.append(given[0][:, SMALL["latent_dim"] :]))
    shares = cvae.labels.share.clone()
    cvae.labels.share.copy_(torch.tensor([0.5, 0.3, 0.2, 0.0]))
    cvae.sample(5000, torch.Generator().manual_seed(0))
    cvae.labels.share.copy_(shares)
    hook.remove()
    assert bool((told[0].sum(dim=1) == 1.0).all()) and set(told[0].unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(told[0].mean(dim=0), torch.tensor([0.5, 0.3, 0.2, 0.0]), atol=0.03, rtol=0)


def test_the_shares_of_labels_are_counted(sets: Any) -> None:
    x, _ = sets[0]
    model = Cvae(CvaeConfig(**SMALL, classes=CLASSES))
    finished, _ = model.finish([Batch(x[:6], x[:6], None, torch.tensor([0, 0, 0, 1, 1, 2]))])
    torch.testing.assert_close(finished.labels.share, torch.tensor([4.0, 3.0, 2.0, 1.0]) / 10.0)


def test_training_without_labels_is_refused(sets: Any) -> None:
    x, _ = sets[0]
    with pytest.raises(ValueError, match="needs labels to train on: set objective.condition"):
        Cvae(CvaeConfig(**SMALL)).loss(Batch(x[:2], x[:2]), step=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 1}, "classes must be at least 2, not 1"),
        ({"label_dropout": 1.5}, "label_dropout must be between 0 and 1, not 1.5"),
    ],
)
def test_a_bad_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CvaeConfig(**settings)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional VAE trained on the categories of photos by the loop."""
    folder = tmp_path_factory.mktemp("labelled")
    settings = [
        "preprocessing.size=16", "model.widths=[4, 8]", "model.decoder_widths=[8, 4]", "model.latent_dim=4",
        "batch_size=16", "epochs=1", "patience=null", "backgrounds=null", "objective.condition=category",
    ]  # fmt: skip
    images = [image for image in read_images(write_photos(folder / "photos", 40))[0] if image.category]
    return train(load_recipe("cvae", settings), images, folder / "cvae", device="cpu", progress=False)


def test_a_freshly_trained_cvae_draws_images_of_a_label(shipped: Path) -> None:
    encoder = load_encoder(shipped)
    assert encoder.config["classes"] == len(encoder.label_names) >= 2
    first, other = (encoder.sample(5, seed=1, label=number) for number in range(2))
    assert first.shape == (5, 3, 16, 16) and not torch.equal(first, other)
    z = encoder.model.draw_latents(5, torch.Generator().manual_seed(1), 1.0)
    with torch.no_grad():
        torch.testing.assert_close(other, encoder.model.generate(torch.ones(5, dtype=torch.long), z))
    with pytest.raises(EncoderError, match=rf"between 0 and .*{encoder.label_names[0]}.*, not 99"):
        encoder.sample(1, label=99)


def test_the_sample_command_draws_a_named_label_of_a_cvae(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(label: str, file: str) -> int:
        command = ["sample", "--encoder", str(shipped), "--out", str(tmp_path / file), "--count", "4"]
        monkeypatch.setattr(sys, "argv", ["nitamono", *command, "--label", label])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0)

    names = load_encoder(shipped).label_names
    assert run(names[1], "named.png") == run("1", "numbered.png") == run(names[0], "other.png") == 0
    named, numbered, other = ((tmp_path / f"{name}.png").read_bytes() for name in ("named", "numbered", "other"))
    assert named == numbered != other
    capsys.readouterr()
    assert run("zebra", "none.png") == 1
    message = capsys.readouterr().err
    assert "'zebra'" in message and all(name in message for name in names)


def test_a_cvae_stored_before_labels_were_shared_still_loads() -> None:
    old = Cvae(CvaeConfig(**SMALL, classes=CLASSES))
    state = old.state_dict()
    state["label_share"] = torch.tensor([0.4, 0.3, 0.2, 0.1])
    del state["labels.share"]
    new = Cvae(CvaeConfig(**SMALL, classes=CLASSES))
    new.load_state_dict(state)
    torch.testing.assert_close(new.labels.share, state["label_share"])
