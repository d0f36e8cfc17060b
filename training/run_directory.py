"""The output directory of a training run, which becomes the encoder directory.

OUT/weights.safetensors, encoder.json, card.json    the encoder; encoder.json is written last
OUT/run.json                                        recipe and data fingerprint of the run
OUT/checkpoints/                                    training state, used only to resume
OUT/pictures/, OUT/tensorboard/                     reconstructions and samples; scalars
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from training.errors import RecipeError
from training.files import publish_file
from training.recipes import Recipe
from training.stored import StoredModel

DESCRIPTION = "encoder.json"  # makes the directory an encoder
RECORD = "run.json"


class RunDirectory:
    """Claims an output directory for one recipe and data set, and publishes the encoder into it."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    def checkpoints(self, stage: str) -> Path:
        """The folder of a stage's checkpoints; the first stage has the empty name."""
        return self.path / "checkpoints" / stage

    @property
    def is_finished(self) -> bool:
        return (self.path / DESCRIPTION).exists()

    def check_available(self, *, resume: bool) -> None:
        """Check, before starting, that this run may use the directory.

        Raises:
            RecipeError: it holds a run that is not to be resumed, or an encoder without a run.
        """
        is_run = self._record.exists()
        if is_run and not resume:
            raise RecipeError(
                f"{self.path} already holds a training run; continue it with --resume, or choose another --out"
            )
        if self.is_finished and not is_run:
            raise RecipeError(f"{self.path} already holds an encoder; choose another --out")

    def claim(self, recipe: Recipe, fingerprint: str) -> None:
        """Record the run, or check that the recorded one is the same.

        Args:
            fingerprint: of the data.

        Raises:
            RecipeError: the directory holds a run with another recipe or other data, or its record is damaged.
        """
        run = {"recipe": recipe.model_dump(mode="json"), "data": fingerprint}
        if not self._record.exists():
            publish_file(self._record, (json.dumps(run, indent=2) + "\n").encode())
            return
        try:
            recorded = json.loads(self._record.read_text(encoding="utf-8"))
        except ValueError as exc:
            raise RecipeError(f"{self._record} is damaged ({exc}); choose another --out") from exc
        recorded["recipe"] = _with_new_settings(recorded.get("recipe"))
        for part, remedy in (("recipe", "give the same recipe and --set values"), ("data", "give the same photos")):
            if recorded.get(part) != run[part]:
                raise RecipeError(f"{self.path} holds a run with another {part}; {remedy}, or choose another --out")

    def publish(self, encoder: StoredModel[Any]) -> Path:
        """Write the files of the encoder one by one, since the directory also holds the run; `encoder.json` last."""
        files = encoder.files()
        for name in sorted(files, key=lambda name: name == DESCRIPTION):
            publish_file(self.path / name, files[name])
        return self.path

    @property
    def _record(self) -> Path:
        return self.path / RECORD


def _with_new_settings(recorded: Any) -> Any:
    """A recorded recipe, with the defaults of settings that were added since."""
    try:
        return Recipe.model_validate(recorded).model_dump(mode="json")
    except ValidationError:
        return recorded
