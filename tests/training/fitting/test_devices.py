"""A fit over two processes is that of one: the gradients of a step, the curves of a run, and the errors."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests import commands as cli
from tests.conftest import write_photos
from tests.training.runs import TINY, card, drawn_data, scalars, tiny
from training.encoder import load_encoder
from training.errors import EncoderError, ProcessError, RecipeError
from training.fitting.devices import Devices, Rank
from training.fitting.stage import Execution
from training.fitting.training_data import TrainingData
from training.layers.flow import ActNorm
from training.layers.gaussian import draw, mmd_to_standard_normal
from training.layers.quantise import VectorQuantiser
from training.loop import fit_by_gradient
from training.models import MODELS
from training.objectives import Extras, Objectives
from training.parallel.draws import dropout
from training.parallel.norm import BatchNorm2d
from training.parallel.share import share_of, sharing
from training.parallel.sums import gathered, mean_of_rows
from training.protocols import Loss, Posterior
from training.recipes import Recipe, load_recipe
from training.recipes.objective import Objective
from training.run_directory import RunDirectory

PAIRS = 7  # an odd number: one process has more


@pytest.fixture(scope="module")
def two() -> Iterator[Devices]:
    devices = Devices("cpu", 2)
    yield devices
    devices.close()


class Small(nn.Module):
    """Every layer and term that looks across a batch."""

    def __init__(self, update: Any) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = BatchNorm2d(4)
        self.act = ActNorm(4)
        self.quantiser = VectorQuantiser(6, 4, update=update, decay=0.5, commitment=0.25, restart=1.0)
        self.mean, self.log_variance = nn.Linear(16, 6), nn.Linear(16, 6)
        settings = Objective.model_validate(
            {
                "consistency": 0.1, "foreground": 1.0, "small_views": {"count": 2},
                "contrastive": {"weight": 2.0, "temperature": 0.3, "shape_share": 0.5},
                "prototypes": {"weight": 1.5, "count": 3, "temperature": 0.2},
            }
        )  # fmt: skip
        self.objectives = Objectives(settings, 6)

    def posterior(self, h: Tensor) -> Posterior:
        features = h[:, :, ::2, ::2].flatten(1)
        return Posterior(self.mean(features), self.log_variance(features))

    def forward(self, x: Tensor, mask: Tensor, items: Tensor) -> Tensor:
        h = dropout(self.act(self.norm(self.first(x))).z, 0.2, self.training)
        quantised = self.quantiser(h)
        q = self.posterior(quantised.z)
        z = draw(q, 2)
        own = torch.square(z).mean() + quantised.loss
        across = mean_of_rows(torch.square(q.mean)).clamp(min=0.5).sum() + mmd_to_standard_normal(z[0], 2.0)
        gathered_q = Posterior(gathered(q.mean), gathered(q.log_variance))
        loss = Loss(own + across, {}, gathered_q.mean, gathered_q, gathered(h[:, :1]))
        small = gathered(torch.tanh(q.mean))
        extra, _ = self.objectives(loss, gathered(items), gathered(mask), Extras(small=small))
        objective: Tensor = loss.objective + extra
        return objective


def two_steps(update: str, rank: Rank) -> dict[str, Any]:
    """Loss, gradients and buffers after two steps on a process's part of a batch."""
    torch.manual_seed(0)
    model = Small(update).double().train()
    x, mask = torch.randn(2 * PAIRS, 1, 4, 4).double(), torch.rand(2 * PAIRS, 1, 4, 4).double()
    mask[3] = torch.nan
    items = torch.arange(PAIRS).repeat(2) // 2
    share = share_of(PAIRS, rank.number, rank.of)
    losses = []
    for step in range(2):
        torch.manual_seed(step)
        with sharing(share):
            loss = model(*(share.own(each) for each in (x, mask, items))) * share.weight
        loss.backward()
        losses.append(loss.detach())
    values = {"loss": torch.stack(losses)}
    values |= {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    for each in values.values():
        if rank.of > 1:
            dist.all_reduce(each)
            each /= rank.of
    return {**values, **{name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}}


@pytest.mark.slow
@pytest.mark.parametrize("update", ["ema", "loss"])
def test_the_gradient_of_a_shared_batch_is_that_of_the_whole(update: str, two: Devices, tmp_path: Path) -> None:
    alone, shared = two_steps(update, Rank()), two.fit(two_steps, update, tmp_path)
    assert alone.keys() == shared.keys() and {"first.weight", "norm.running_var", "quantiser.codebook"} <= alone.keys()
    for name, value in alone.items():
        assert torch.allclose(shared[name], value, rtol=1e-9, atol=1e-10), name


SHORT = ["batch_size=6", "epochs=2", "patience=null", "pictures_every=100"]
RECIPES = {
    "vae": tiny(*SHORT, "model.free_bits=0.1"),
    "contrastive": tiny(
        *SHORT, "backgrounds.count=8", "backgrounds.hard={candidates: 2}", "augment.rotate=10",
        "augment.erase=0.3", "model.foreground=true", "objective.foreground=4", "objective.clean_target=true",
        "objective.contrastive={weight: 100, temperature: 0.2, shape_share: 0.5}",
        "objective.small_views={count: 2, size: 8}", "objective.teacher={weight: 10, decay: 0.9}",
        "objective.mined={start: 1, every: 1, neighbours: 3, share: 0.9}",
    ),
    "vq-vae": load_recipe(
        "vq-vae",
        [
            *SHORT, "preprocessing.size=16", "model.widths=[8]", "model.decoder_widths=[8]", "model.codes=16",
            "model.code_dim=4", "model.pool=4", "model.search_dim=8", "model.prior_width=8", "model.prior_layers=1",
            "model.restart=0.5", "prior.epochs=1",
        ],
    ),
}  # fmt: skip


def fitted(recipe: Recipe, data: TrainingData, devices: Devices, out: Path) -> tuple[dict[str, list[float]], Any]:
    """The curves of a run, and its model."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out.mkdir()
    torch.manual_seed(recipe.seed)
    family = MODELS[recipe.family]
    model = family.model(family.config(**recipe.model_config_values()))
    finished = fit_by_gradient(model, recipe, data, Execution(RunDirectory(out), devices, "32", False))
    curves = {}
    for folder in sorted(out.glob("tensorboard*")):
        board = EventAccumulator(str(folder)).Reload()
        for tag in board.Tags()["scalars"]:
            curves[f"{folder.name}/{tag}"] = [event.value for event in board.Scalars(tag)]
    assert finished.run["devices"] == devices.count
    return curves, finished.model


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RECIPES))
def test_the_curves_of_two_processes_are_those_of_one(name: str, two: Devices, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    data = drawn_data(recipe, 27, 5)  # the last batches have 3 and 5 units, which two processes share unevenly
    alone, one = fitted(recipe, data, Devices("cpu"), tmp_path / "one")
    shared, other = fitted(recipe, data, two, tmp_path / "two")
    assert alone.keys() == shared.keys() and len(alone["tensorboard/val/objective"]) == 2
    assert len(alone["tensorboard/train/objective"]) == 1
    for tag, values in alone.items():
        assert shared[tag] == pytest.approx(values, rel=1e-4, abs=1e-4), tag
    for key, value in one.state_dict().items():
        if value.is_floating_point() and "search" not in key:  # axes of a search space have no sign
            torch.testing.assert_close(other.state_dict()[key], value, rtol=1e-3, atol=1e-3)
    assert not list((tmp_path / "two").glob("shared-*"))


def test_batches_that_do_not_divide_are_refused() -> None:
    with pytest.raises(RecipeError, match="batch_size 16 does not divide over 3 devices; set it to 15 or 18"):
        Devices("cpu", 3).check_batches(tiny())
    with pytest.raises(RecipeError, match="batch_size 16 does not divide over 32 devices; set it to 32"):
        Devices("cpu", 32).check_batches(tiny())


def test_devices_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EncoderError, match="devices must be at least 1, not 0"):
        Devices("cpu", 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(EncoderError, match="devices is 2, but this machine has no GPU; choose --device cpu"):
        Devices("gpu", 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        EncoderError, match="devices is 4, but this machine has 2 GPUs; choose at most 2, or --device cpu"
    ):
        Devices("auto", 4)
    assert Devices("auto", 2).kind == "gpu" and Devices("cpu", 4).kind == "cpu"


def interrupted(job: None, rank: Rank) -> dict[str, Any]:
    if rank.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()
    return {}


def refusing(job: None, rank: Rank) -> dict[str, Any]:
    if rank.number == 1:
        raise RecipeError("recipe x: set optimiser.lr below 1")
    dist.barrier()
    return {}


@pytest.mark.slow
def test_the_error_of_another_process_is_the_error_of_the_fit(tmp_path: Path) -> None:
    devices = Devices("cpu", 2)
    with pytest.raises(ProcessError, match="ended unexpectedly .exit status -9.; resume the run with --resume"):
        devices.fit(interrupted, None, tmp_path)
    with pytest.raises(RecipeError, match=r"set optimiser\.lr below 1"):
        devices.fit(refusing, None, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_run_over_two_processes_is_resumed_by_one_and_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 24)
    settings = ["epochs=4", "ema=0.9", "batch_size=8", "max_minutes=null", "patience=null"]
    words = [word for each in [*TINY, *settings] for word in ("--set", each)]
    options = ["--data", photos, "--device", "cpu", *words]
    untouched, killed = tmp_path / "untouched", tmp_path / "killed"
    assert cli.run("train", "vae", "--out", untouched, *options).returncode == 0
    process = cli.start("train", "vae", "--out", killed, "--devices", 2, *options)
    last = killed / "checkpoints" / "last.ckpt"
    assert cli.kill_when(process, lambda: last.exists())
    resumed = cli.run("train", "vae", "--out", killed, "--resume", *options)
    assert resumed.returncode == 0, resumed.stderr
    assert card(killed)["run"]["resumed_from_epoch"] >= 1
    one, other = (load_encoder(each).model.state_dict() for each in (untouched, killed))
    for name, value in one.items():
        if value.is_floating_point() and "search" not in name:
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-3)
    refused = cli.run("train", "vae", "--out", tmp_path / "third", "--devices", 3, *options)
    assert refused.returncode == 1 and "batch_size 8 does not divide over 3 devices; set it to 6 or 9" in refused.stderr


@pytest.mark.slow
def test_a_compiled_loss_trains_as_the_loss_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced by PyTorch's compiler, and run without generating code, which would take minutes here."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    recipe, curves = RECIPES["vae"], []
    for compiled in (False, True):
        torch.manual_seed(0)
        model: Any = MODELS["vae"].model(MODELS["vae"].config(**recipe.model_config_values()))
        out = tmp_path / str(compiled)
        out.mkdir()
        execution = Execution(RunDirectory(out), Devices("cpu"), "32", False, compiled=compiled)
        finished = fit_by_gradient(model, recipe, drawn_data(recipe, 27, 5), execution)
        assert finished.run["compiled"] is compiled
        curves.append(scalars(out, "val/objective"))
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
