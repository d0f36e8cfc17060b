"""The candidates of a retraining: encoders trained from recipes, and copies of existing encoders."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from indexer.retrain.job import RetrainJob
from training.data.sources import SourceImage
from training.errors import RecipeError, SourceError
from training.files import publish_directory
from training.reference import ENCODER_FILES, EncoderDescription, describe_encoder, read_json


def prepare_candidates(job: RetrainJob, images: Sequence[SourceImage]) -> dict[str, EncoderDescription]:
    """All candidates by name; finished trainings are kept, and interrupted ones are resumed."""
    trained = {name: _train(job, name, images) for name in job.plan.recipes}
    return trained | {ref: _copy(job, ref) for ref in job.plan.encoders}


def candidate_directory(job: RetrainJob, candidate: str) -> Path:
    return job.directory / "models" / folder_name(candidate)


def folder_name(candidate: str) -> str:
    """The folder of a candidate: its name, or the last part of its path with a hash of the whole path."""
    if "/" not in candidate and not candidate.endswith((".yaml", ".yml")):
        return candidate
    return f"{Path(candidate).stem}-{hashlib.sha256(candidate.encode()).hexdigest()[:8]}"


def _train(job: RetrainJob, name: str, images: Sequence[SourceImage]) -> EncoderDescription:
    from training.device import precision_advice
    from training.loop import train
    from training.onnx.export import add_onnx
    from training.recipes import load_recipe

    out, plan = candidate_directory(job, name), job.plan
    if not (out / "encoder.json").exists():
        advice = precision_advice(plan.device, plan.precision)
        job.say("train", f"{name}; {advice}" if advice else name)
    try:
        train(
            load_recipe(name, plan.overrides), images, out,
            resume=True, device=plan.device, precision=plan.precision,
        )  # fmt: skip
    except SourceError as exc:
        raise SourceError(f"recipe {name}: {exc}") from exc
    except RecipeError as exc:
        raise RecipeError(f"{exc}; or drop this retraining with `nitamono retrain abandon`") from exc
    if "onnx_sha256" not in read_json(out / "card.json"):
        add_onnx(out)
    return describe_encoder(out)


def _copy(job: RetrainJob, ref: str) -> EncoderDescription:
    """An existing encoder as a candidate: a copy, so that changes to the original have no effect."""
    out = candidate_directory(job, ref)
    if not (out / "encoder.json").exists():
        job.say("train", f"{ref} is used as it is")
        source = describe_encoder(ref).directory
        files = [source / name for name in ENCODER_FILES if (source / name).is_file()]
        publish_directory(out, {path.name: path.read_bytes() for path in files})
    return describe_encoder(out)
