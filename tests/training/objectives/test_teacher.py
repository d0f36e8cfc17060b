"""The teacher: what it averages, what it is asked, and that nothing reaches it but the average."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from training.models.vae import Vae, VaeConfig
from training.objectives import Extras, Objectives, Teacher, kl_between
from training.objectives.teacher import taught_nats
from training.protocols import Batch, Loss, Posterior
from training.recipes.objective import Contrastive, Objective
from training.recipes.objective import Teacher as Settings


def vae(seed: int = 0) -> Vae:
    torch.manual_seed(seed)
    return Vae(VaeConfig(size=16, widths=(8, 8), decoder_widths=(8, 8), latent_dim=4))


def pictures(count: int = 6) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def gaussians(seed: int) -> Posterior:
    mean, log_variance = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Posterior(mean, log_variance)


def test_two_steps_by_hand() -> None:
    """d is 2/11 after the first step and 3/12 after the second, both below the decay."""
    student = nn.Linear(1, 1, bias=False)
    nn.init.constant_(student.weight, 1.0)
    teacher = Teacher(student, 0.9)
    nn.init.constant_(student.weight, 3.0)
    teacher.follow(student, 1)
    first = 2 / 11 * 1.0 + 9 / 11 * 3.0
    assert float(teacher.model.weight.detach()) == pytest.approx(first)
    teacher.follow(student, 2)
    assert float(teacher.model.weight.detach()) == pytest.approx(3 / 12 * first + 9 / 12 * 3.0)


def test_it_averages_statistics_as_well_and_is_never_in_training_mode() -> None:
    student = vae()
    teacher = Teacher(student, 0.5)
    teacher.train(True)
    assert not any(module.training for module in teacher.modules())
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student.train().latent(pictures())
    teacher(Batch(pictures(), pictures()))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    teacher.follow(student, 10**6)
    changed = {name for name, value in teacher.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("running" in name or "num_batches" in name for name in changed)


def test_each_view_is_asked_for_what_the_teacher_sees_in_the_other() -> None:
    taught, q = gaussians(0), gaussians(1)
    first, second = slice(0, 3), slice(3, 6)
    pairs = [(second, first), (first, second)]
    expected = [
        kl_between(*(Posterior(p.mean[rows], p.log_variance[rows]) for p, rows in ((taught, theirs), (q, own))))
        for theirs, own in pairs
    ]
    torch.testing.assert_close(taught_nats(taught, q, 0.0), torch.cat(expected).mean())


def test_a_pair_in_strange_colours_is_taught_its_shapes_alone() -> None:
    """Of 3 pairs the last is in strange colours, and of 4 latents the last holds its shapes (1/3 rounded)."""
    taught, q = gaussians(0), gaussians(1)
    mean = q.mean.clone().requires_grad_()
    taught_nats(taught, Posterior(mean, q.log_variance), 1 / 3).backward()
    assert mean.grad is not None
    asked = mean.grad != 0
    assert asked[[0, 1, 3, 4]].all()
    assert asked[[2, 5]].tolist() == [[False, False, False, True]] * 2


def test_the_gradient_reaches_the_student_and_not_the_teacher() -> None:
    student = vae()
    objectives = Objectives(Objective(teacher=Settings(weight=3.0)), 0, Teacher(student, 0.99))
    for weight in student.parameters():
        nn.init.normal_(weight, std=0.1)
    batch = Batch(pictures(), pictures())
    q = student.posterior(batch.x)
    assert objectives.teacher is not None
    loss = Loss(torch.tensor(7.0), {}, q.mean, q)
    extra, scalars = objectives(loss, torch.arange(3).repeat(2), extras=Extras(taught=objectives.teacher(batch)))
    torch.testing.assert_close(extra, 3.0 * scalars["teacher"])
    extra.backward()
    assert all(weight.grad is not None for weight in student.encoder.parameters())
    assert all(weight.grad is None and not weight.requires_grad for weight in objectives.parameters())


def test_a_model_without_a_posterior_is_refused() -> None:
    latent = torch.zeros(4, 2)
    objectives = Objectives(Objective(teacher=Settings(weight=1.0), contrastive=Contrastive(weight=1.0)), 2)
    with pytest.raises(ValueError, match="teacher needs a model with a posterior"):
        objectives(Loss(torch.tensor(0.0), {}, latent), torch.arange(2).repeat(2))
