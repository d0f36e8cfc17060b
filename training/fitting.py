"""The LightningModule around a model: steps, optimiser, batches; the same for every family that has a gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from training.augment import augment_batch
from training.errors import RecipeError
from training.models.protocols import GradientModel, Loss
from training.recipes import Recipe


class Batches:
    """Batches `(B, C, S, S)` of a uint8 tensor of images, in a given order, each indexed at once."""

    def __init__(self, images: Tensor, size: int, order: Tensor) -> None:
        self.images = images
        self.size = size
        self.order = order

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    def __iter__(self) -> Iterator[Tensor]:
        for positions in torch.split(self.order, self.size):
            yield self.images[positions]


class Fitting(LightningModule):
    """Fits a model to images.

    Every epoch reseeds the generators by (seed, epoch), so a run that was killed and resumed at an epoch's start
    goes on just as it would have.
    """

    def __init__(self, model: torch.nn.Module, recipe: Recipe, train: Tensor, validation: Tensor) -> None:
        super().__init__()
        if not isinstance(model, GradientModel):
            raise ValueError(f"{type(model).__name__} has no gradient to follow")
        self.model: Any = model
        self.recipe = recipe
        self._train = train
        self._validation = validation
        self.images_seen = 0
        self.first_epoch = 0

    def train_dataloader(self) -> Batches:
        generator = torch.Generator().manual_seed(self._seed(0))
        order = torch.randperm(len(self._train), generator=generator)
        if len(order) % self.recipe.batch_size == 1 and len(order) > 1:
            order = order[:-1]  # a batch of one has no variance to normalise by
        return Batches(self._train, self.recipe.batch_size, order)

    def val_dataloader(self) -> Batches:
        order = torch.arange(len(self._validation))
        return Batches(self._validation, 2 * self.recipe.batch_size, order)

    def on_train_start(self) -> None:
        self.first_epoch = self.current_epoch

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(self._seed(1))

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        augment = self.recipe.augment
        x = augment_batch(batch.float() / 255.0, flip=augment.flip, crop=augment.crop)
        loss: Loss = self.model.loss(x, self.global_step)
        self.log_dict(
            {f"train/{name}": value for name, value in {**loss.scalars, "objective": loss.objective.detach()}.items()}
        )
        self.images_seen += len(batch)
        return loss.objective

    def on_validation_epoch_start(self) -> None:
        self._noise = torch.Generator().manual_seed(0)

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        bound = self.model.elbo(batch.float() / 255.0, generator=self._noise)
        figures = {
            "val/elbo": bound.elbo.mean(),
            "val/kl": bound.kl.sum(dim=1).mean(),
            "val/bits_per_dim": bits_per_dim(bound.elbo.mean(), batch[0].numel()),
        }
        self.log_dict(figures, batch_size=len(batch))

    def on_train_epoch_end(self) -> None:
        bound = float(self.trainer.callback_metrics["val/elbo"])
        if not math.isfinite(bound):
            rate = self.recipe.optimiser.lr
            raise RecipeError(f"recipe {self.recipe.name}: the fit diverged; set optimiser.lr below {rate:g}")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.recipe.optimiser
        optimiser = torch.optim.AdamW(self.model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        total = int(self.trainer.estimated_stepping_batches)

        def share(step: int) -> float:
            if step < settings.warmup_steps:
                return (step + 1) / settings.warmup_steps
            done = min(1.0, (step - settings.warmup_steps) / max(1, total - settings.warmup_steps))
            return settings.final_lr + (1.0 - settings.final_lr) * 0.5 * (1.0 + math.cos(math.pi * done))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _seed(self, purpose: int) -> int:
        return (self.recipe.seed * 1_000_003 + self.trainer.current_epoch * 1009 + purpose) % 2**63


def bits_per_dim(nats: Tensor, values: int) -> Tensor:
    return -nats / (values * math.log(2.0))
