"""Progress bar of a fit on stderr: all steps, with the rate, the remaining time and the validation objective."""

from __future__ import annotations

import sys
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm


class ProgressBar(Callback):
    """One progress bar for the whole fit, if stderr is a terminal."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            total = int(trainer.estimated_stepping_batches)
            self._bar = tqdm(
                total=total, initial=trainer.global_step, desc="training", unit="step", file=sys.stderr, disable=None
            )

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self._bar is not None:
            self._bar.update(trainer.global_step - self._bar.n)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            objective = trainer.callback_metrics.get("val/objective")
            shown = {"epoch": trainer.current_epoch + 1}
            if objective is not None:
                shown["val_objective"] = round(float(objective), 1)  # type: ignore[assignment]
            self._bar.set_postfix(shown)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
