"""Resolves references to encoders and describes them from their files; imports no torch and loads no weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from training.errors import EncoderError
from training.preprocessing import Preprocessing
from training.sketches.preparing import DrawingPreparation
from training.weights_header import check_safetensors

FORMAT = 1
PRETRAINED = Path(__file__).parent / "pretrained"
ONNX_FILE = "encoder.onnx"
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.json"
ENCODER_FILES = (WEIGHTS_FILE, "encoder.json", CARD_FILE, ONNX_FILE)  # all files that a directory may hold
IMPORTED = "onnx"  # family of imported encoders, whose graph takes the place of the weights file
NOT_STATED = "not stated"
MAX_DIM = 65_536  # as in the HTTP API
FAMILY_NAMES = (  # the keys of `training.models.MODELS`, which cannot be imported without torch
    "ae", "backbone", "beta-vae", "cvae", "delta-vae", "draw", "fusion", "glow", "hog", "infovae", "item-first", "made",
    "multiscale", "onnx", "pca", "pixel-cnn", "pixel-cnn++", "pixel-rnn", "pixel-vae", "pixels", "real-nvp",
    "sketch-rnn", "vae", "vlae", "vq-vae", "vq-vae-2",
)  # fmt: skip
OF_DRAWINGS = ("sketch-rnn",)  # the families in FAMILY_NAMES that take drawings instead of images
Metric = Literal["cosine", "l2"]
P = TypeVar("P", Preprocessing, DrawingPreparation)


@dataclass(frozen=True)
class Described(Generic[P]):
    """The contents of an encoder directory, without its weights."""

    encoder_id: str
    family: str
    dim: int
    metric: Metric
    config: dict[str, Any]
    preprocessing: P
    card: dict[str, Any]
    directory: Path

    @property
    def trained_from(self) -> str:
        """The training data and labels of the encoder: `label-free: ...`, or the source of the labels."""
        return trained_from(self.card)


ImageEncoderDescription = Described[Preprocessing]
SketchEncoderDescription = Described[DrawingPreparation]
EncoderDescription = ImageEncoderDescription | SketchEncoderDescription
AnyPreprocessing = Preprocessing | DrawingPreparation


def describe_encoder(ref: str | Path) -> ImageEncoderDescription:
    """Describe an encoder of images by directory, name or alias (`default`, `accurate`, `small`, `label-free`).

    Raises:
        EncoderError: the name is unknown, or files are missing, damaged, changed or of another format, or the encoder
            takes drawings.
    """
    return _describe(_read(ref), Preprocessing.from_json, of_drawings=False)


def describe_sketch_encoder(ref: str | Path) -> SketchEncoderDescription:
    """Describe an encoder of drawings; raises EncoderError as `describe_encoder` does, or if it takes images."""
    return _describe(_read(ref), DrawingPreparation.from_json, of_drawings=True)


def describe_any(ref: str | Path) -> EncoderDescription:
    """Describe an encoder of images or of drawings.

    Raises:
        EncoderError: as for `describe_encoder`, whatever the encoder takes.
    """
    found = _read(ref)
    if found.description.get("family") in OF_DRAWINGS:
        return _describe(found, DrawingPreparation.from_json, of_drawings=True)
    return _describe(found, Preprocessing.from_json, of_drawings=False)


class _Read(NamedTuple):
    """An encoder directory and its encoder.json, as bytes and parsed."""

    directory: Path
    data: bytes
    description: dict[str, Any]


def _read(ref: str | Path) -> _Read:
    directory = resolve_encoder(ref)
    path = directory / "encoder.json"
    data = _bytes_of(path)
    return _Read(directory, data, _parsed(path, data))


def _describe(found: _Read, prepare: Callable[[Mapping[str, Any]], P], *, of_drawings: bool) -> Described[P]:
    directory, data, description = found
    if description.get("format") != FORMAT:
        raise EncoderError(
            f"{directory}: format {description.get('format')!r} is not {FORMAT}; train the encoder again"
        )
    check_description(directory, description)
    check_input(directory, description["family"], of_drawings=of_drawings)
    card = read_card_of(directory)
    try:
        weights = (directory / weights_file(description["family"])).read_bytes()
        if weights_file(description["family"]) == WEIGHTS_FILE:
            check_safetensors(weights)
        described = Described(
            encoder_id=identity(weights, data),
            family=description["family"],
            dim=description["dim"],
            metric=description["metric"],
            config=description["config"],
            preprocessing=prepare(description["preprocessing"]),
            card=card,
            directory=directory,
        )
    except (OSError, KeyError, TypeError, ValueError) as exc:
        raise EncoderError(f"{directory}: not a usable encoder ({first_line(exc)})") from exc
    recorded = card.get("encoder_id", described.encoder_id)
    if recorded != described.encoder_id:
        raise EncoderError(
            f"{directory}: its files have id {described.encoder_id[:12]}, but its card records {recorded[:12]}: "
            "they were changed; fetch or train the encoder again"
        )
    return described


def check_description(directory: Path, description: Mapping[str, Any]) -> None:
    """Check the values of encoder.json that decide which files are read and how much memory is allocated.

    Raises:
        EncoderError: a value is missing, of another type, or out of range; the message names it.
    """
    missing = [name for name in ("family", "dim", "metric", "config", "preprocessing") if name not in description]
    if missing:
        raise EncoderError(
            f"{directory / 'encoder.json'}: has no {', '.join(missing)}; fetch or train the encoder again"
        )
    family, dim, metric = description["family"], description["dim"], description["metric"]
    if family not in FAMILY_NAMES:
        raise EncoderError(f"{directory}: family {family!r} is not one of {', '.join(FAMILY_NAMES)}")
    if type(dim) is not int or not 1 <= dim <= MAX_DIM:
        raise EncoderError(f"{directory}: dim {dim!r} is not a whole number from 1 to {MAX_DIM:,}")
    for name in ("config", "preprocessing"):
        if not isinstance(description[name], dict):
            raise EncoderError(f"{directory}: {name} {description[name]!r} is not a JSON object")
    if metric not in ("cosine", "l2"):
        raise EncoderError(f"{directory}: metric {metric!r} is neither 'cosine' nor 'l2'")


def check_input(directory: Path, family: str, *, of_drawings: bool) -> None:
    """Check that an encoder takes what it is to be given.

    Raises:
        EncoderError: it takes images, and not drawings, or the reverse.
    """
    if (family in OF_DRAWINGS) != of_drawings:
        if of_drawings:
            raise EncoderError(f"{directory}: family {family!r} encodes images; give an encoder of drawings")
        raise EncoderError(
            f"{directory}: family {family!r} encodes drawings, not images; "
            "use it with `nitamono sketch`, or give an encoder of images"
        )


def read_card_of(directory: Path) -> dict[str, Any]:
    """The card of an encoder directory; empty if there is none.

    Raises:
        EncoderError: the card cannot be read, or does not record the `encoder_id` as text.
    """
    path = directory / CARD_FILE
    card = read_json(path) if path.exists() else None
    if card is not None and not isinstance(card.get("encoder_id"), str):
        raise EncoderError(f"{path}: records no encoder_id; fetch or train the encoder again")
    return card or {}


def shipped_onnx(encoder_id: str) -> str | None:
    """The SHA-256 of the ONNX file of the shipped encoder with this id; None if there is none."""
    cards = (read_json(PRETRAINED / name / CARD_FILE) for name in pretrained_names())
    return next((card.get("onnx_sha256") for card in cards if card.get("encoder_id") == encoder_id), None)


def weights_file(family: str) -> str:
    """The file that determines the vectors of a family together with encoder.json; both determine the id."""
    return ONNX_FILE if family == IMPORTED else WEIGHTS_FILE


def identity(weights: bytes, description: bytes) -> str:
    """The `encoder_id`: SHA-256 of the contents of `weights_file` and encoder.json."""
    return hashlib.sha256(weights + description).hexdigest()


def description_bytes(
    family: str,
    config: Mapping[str, Any],
    preprocessing: Preprocessing | DrawingPreparation,
    *,
    dim: int,
    metric: Metric,
) -> bytes:
    """The contents of encoder.json."""
    description = {
        "format": FORMAT,
        "family": family,
        "config": config,
        "preprocessing": preprocessing.to_json(),
        "dim": dim,
        "metric": metric,
    }
    return (json.dumps(description, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def trained_from(card: Mapping[str, Any]) -> str:
    """The training data and labels according to a card."""
    return str(card.get("trained_from") or NOT_STATED)


def resolve_encoder(ref: str | Path) -> Path:
    """The directory of a reference.

    Raises:
        EncoderError: the name is unknown; the message lists the known names.
    """
    path = Path(ref)
    if (path / "encoder.json").is_file():
        return path
    name = str(ref)
    name = standing_names().get(name, name)
    if name in pretrained_names():
        return PRETRAINED / name
    known = ", ".join([*standing_names(), *pretrained_names()])
    raise EncoderError(f"encoder {str(ref)!r}: no such encoder directory or name; names are {known}")


def standing_names() -> dict[str, str]:
    """Aliases of shipped encoders: `default`, `accurate`, `small`, `label-free`."""
    names: dict[str, str] = read_json(PRETRAINED / "names.json")
    return names


def pretrained_names() -> list[str]:
    """The names of the encoders shipped with the product."""
    return sorted(path.parent.name for path in PRETRAINED.glob("*/encoder.json"))


def first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0]


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises EncoderError if it cannot be read."""
    return _parsed(path, _bytes_of(path))


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise EncoderError(f"{path}: cannot be read ({first_line(exc)})") from exc


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"))
    except ValueError as exc:
        raise EncoderError(f"{path}: cannot be read ({first_line(exc)})") from exc
    if not isinstance(value, dict):
        raise EncoderError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value
