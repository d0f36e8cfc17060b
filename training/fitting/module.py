"""The LightningModule around a model: steps, optimiser and batches for all families that are trained by gradient."""

from __future__ import annotations

import math
from typing import Any, overload

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from training.errors import RecipeError
from training.fitting.examples import Examples, other_photos
from training.fitting.feeding import Batches, Part, fits_on
from training.fitting.mining import Mined, is_due, lend_views, mine
from training.fitting.modes import in_use, untracked
from training.fitting.views import Views
from training.layers.quantise import VectorQuantiser
from training.objectives import Extras, build_objectives
from training.parallel.share import current_share, share_of, sharing
from training.parallel.sums import gathered, rows_of_all, summed
from training.protocols import BackboneModel, Batch, GradientModel, Loss, Posterior, VariationalModel
from training.recipes import Recipe

HELD_OUT_SEED = 0
LAST_STEP = 10**9  # after all warm-ups
LOGGED = ("consistency", "contrastive", "foreground", "teacher", "prototypes", "missed", "mmd", "offsets", "pens")


class Fitting(LightningModule):
    """Fits a model to examples.

    Every epoch reseeds the generators from (seed, epoch), so a resumed run continues exactly as an uninterrupted one.
    The best epoch is chosen by `val/objective`: the full objective of the recipe on the held-out examples, after all
    warm-ups, with the same random draws every time.

    Args:
        compiled: compile the loss of the model with `torch.compile`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        recipe: Recipe,
        train: Examples,
        validation: Examples,
        views: Views,
        *,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(model, GradientModel):
            raise ValueError(f"{type(model).__name__} is not trained by gradient")
        self.model: Any = model
        self._loss = torch.compile(model.loss) if compiled else model.loss
        self.objectives = build_objectives(recipe.objective, model, train)
        self.recipe = recipe
        self._train = train
        self._validation = validation
        self._views = views
        self._on_gpu: dict[int, Examples] = {}  # copies, by the examples that they are of
        self._pinned = False
        self._mined: Mined | None = None
        self.images_seen = 0
        self.first_epoch = 0

    def train_dataloader(self) -> Batches:
        self._mine()
        generator = torch.Generator().manual_seed(self._seed(0))
        order = torch.randperm(len(self._train), generator=generator)
        if len(order) % self.recipe.batch_size == 1 and len(order) > 1:
            order = order[:-1]  # batch normalisation needs more than one image
        return self._batches(self._train, self.recipe.batch_size, order, generator, self._mined)

    def val_dataloader(self) -> Batches:
        generator = torch.Generator().manual_seed(HELD_OUT_SEED)
        order = torch.arange(len(self._validation))
        return self._batches(self._validation, 2 * self.recipe.batch_size, order, generator)

    def on_fit_start(self) -> None:
        sides = (self._train, self._validation)
        if fits_on(self.device, *sides):
            self._on_gpu = {id(side): side.to(self.device) for side in sides}
        self._pinned = self.device.type == "cuda" and not self._on_gpu

    def on_train_start(self) -> None:
        self.first_epoch = self.current_epoch

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(self._seed(1))
        if self._mined is not None:
            self.log("train/mined", self._mined.share)

    def training_step(self, part: Part, batch_index: int) -> Tensor:
        examples, share = part
        with sharing(share):
            batch = self._views(examples, look=self._look, size=self.recipe.size_shown(self.current_epoch))
            objective, scalars = self._objective(batch, examples, self.global_step)
            figures = {f"train/{name}": value for name, value in {**scalars, "objective": objective.detach()}.items()}
            count = rows_of_all(len(examples))
            self.log_dict(_of_all(figures), batch_size=count)
        self.images_seen += count
        return objective * share.weight

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        for part in self.model.modules():
            if isinstance(part, VectorQuantiser):
                part.forget_restarted(optimizer)

    def on_train_batch_end(self, outputs: Any, batch: Examples, batch_index: int) -> None:
        if self.objectives.teacher is not None:
            self.objectives.teacher.follow(self.model, self.global_step)

    def on_validation_epoch_start(self) -> None:
        torch.manual_seed(HELD_OUT_SEED)  # the next training epoch reseeds from its number
        self._noise = torch.Generator().manual_seed(HELD_OUT_SEED)

    def validation_step(self, part: Part, batch_index: int) -> None:
        with sharing(part.share):
            self.log_dict(_of_all(self._held_out_figures(part.examples)), batch_size=part.share.total)

    def _held_out_figures(self, examples: Examples) -> dict[str, Tensor]:
        two_views = self.recipe.objective.has_two_views
        objective, scalars = self._objective(
            self._views(examples, augmented=two_views, small=False), examples, LAST_STEP
        )
        figures = {"val/objective": objective}
        figures |= {f"val/{name}": scalars[name] for name in LOGGED if name in scalars}
        if isinstance(self.model, VariationalModel):
            count = len(examples) // 2 if two_views else len(examples)
            plain = self._views.plain(examples.take(torch.arange(count, device=examples.items.device)))
            bound = self.model.elbo(plain, generator=self._noise)
            figures["val/elbo"] = bound.elbo.mean()
            figures["val/kl"] = bound.kl.sum(dim=1).mean()
            figures["val/bits_per_dim"] = bits_per_dim(bound.elbo.mean(), self.model.values(plain.x))
        return figures

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._mined is not None:
            checkpoint["mined"] = {"neighbours": self._mined.neighbours, "epoch": self._mined.epoch}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "mined" in checkpoint:
            self._mined = Mined.of(items=self._train.items, **checkpoint["mined"])

    def on_train_epoch_end(self) -> None:
        if not math.isfinite(float(self.trainer.callback_metrics["val/objective"])):
            rate = self.recipe.optimiser.lr
            raise RecipeError(f"recipe {self.recipe.name}: training diverged; set optimiser.lr below {rate:g}")

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.recipe.optimiser
        fused = True if self.device.type == "cuda" else None
        optimiser = torch.optim.AdamW(self._groups(), lr=settings.lr, weight_decay=settings.weight_decay, fused=fused)
        total = int(self.trainer.estimated_stepping_batches)

        def share(step: int) -> float:
            if step < settings.warmup_steps:
                return (step + 1) / settings.warmup_steps
            done = min(1.0, (step - settings.warmup_steps) / max(1, total - settings.warmup_steps))
            return settings.final_lr + (1.0 - settings.final_lr) * 0.5 * (1.0 + math.cos(math.pi * done))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _groups(self) -> list[dict[str, Any]]:
        """Parameter groups: backbone parameters have their own learning rate; frozen ones are left out."""
        settings = self.recipe.optimiser
        of_backbone = self.model.backbone_parameters() if isinstance(self.model, BackboneModel) else []
        known = {id(parameter) for parameter in of_backbone}
        others = [each for each in self.parameters() if each.requires_grad and id(each) not in known]
        groups: list[dict[str, Any]] = [{"params": others}]
        if of_backbone:
            groups.append({"params": of_backbone, "lr": settings.lr * settings.backbone_lr})
        return groups

    def _objective(self, batch: Batch, examples: Examples, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        loss: Loss = self._loss(batch, step)
        if not self.objectives.has_terms:
            return loss.objective, loss.scalars
        compared = Loss(  # the terms compare the rows of all processes
            loss.objective, loss.scalars, gathered(loss.latent), _gathered(loss.posterior), _gathered(loss.foreground)
        )
        items = gathered(examples.items)
        extra, scalars = self.objectives(compared, items, _gathered(batch.mask), self._extras(batch, items))
        return loss.objective + extra, {**loss.scalars, **scalars}

    def _look(self, x: Tensor) -> Tensor:
        with in_use(self.model):
            latents: Tensor = self.model.latent(x)
        return latents

    def _small_latents(self, small: Tensor) -> Tensor:
        """Latents of small views, whose statistics differ from those of full images and must not be tracked."""
        with untracked(self.model):
            latents: Tensor = self.model.latent(small)
        return latents

    def _extras(self, batch: Batch, items: Tensor) -> Extras:
        teacher = self.objectives.teacher
        return Extras(
            small=None if batch.small is None else gathered(self._small_latents(batch.small)),
            taught=None if teacher is None else _gathered(teacher(batch)),
            related=self._mined.related(items) if self._mined is not None and self.training else None,
            shrunk=(batch.target.shape[2] / batch.x.shape[2]) ** 2,
        )

    def _mine(self) -> None:
        settings, epoch = self.recipe.objective.mined, self.trainer.current_epoch
        if settings is not None and is_due(settings, epoch, self._mined):
            share = share_of(len(self._train), self.global_rank, self.trainer.world_size)
            size = self.recipe.batch_size
            self._mined = mine(self.model, self._views.plain, self._train, settings, epoch, size, share)

    def _batches(
        self, examples: Examples, size: int, order: Tensor, generator: torch.Generator, mined: Mined | None = None
    ) -> Batches:
        settings, others = self.recipe.objective, None
        if settings.has_two_views:
            others = other_photos(examples.items, settings.other_photo, generator)
            if mined is not None and settings.mined is not None:
                others = lend_views(others, mined, settings.mined.share, generator)
            others = others[order]
        waiting, rank, processes = self._on_gpu.get(id(examples), examples), self.global_rank, self.trainer.world_size
        return Batches(waiting, size, order, others, pinned=self._pinned, rank=rank, processes=processes)

    def _seed(self, purpose: int) -> int:
        return (self.recipe.seed * 1_000_003 + self.trainer.current_epoch * 1009 + purpose) % 2**63


def _of_all(figures: dict[str, Tensor]) -> dict[str, Tensor]:
    """Means over the rows of all processes, of means over the rows of this one; one exchange for all figures."""
    share = current_share()
    if share is None:
        return figures
    device = next(iter(figures.values())).device
    own = torch.stack([value.detach().float().to(device) for value in figures.values()])
    return dict(zip(figures, summed(own * (share.weight / share.processes)).unbind(), strict=True))


@overload
def _gathered(x: None) -> None: ...


@overload
def _gathered(x: Tensor) -> Tensor: ...


@overload
def _gathered(x: Posterior) -> Posterior: ...


def _gathered(x: Tensor | Posterior | None) -> Tensor | Posterior | None:
    if isinstance(x, Posterior):
        return Posterior(*(gathered(part) for part in x))
    return None if x is None else gathered(x)


def bits_per_dim(nats: Tensor, values: int) -> Tensor:
    return -nats / (values * math.log(2.0))
