"""Import an ONNX graph as an encoder directory. Imports no torch.

encoder.onnx    the original graph, with the constants from external files
encoder.json    how images are passed in and vectors taken out (`training.onnx.graph.OnnxConfig`)
card.json       its origin
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.card import card_bytes
from training.errors import EncoderError, OutputError
from training.files import check_output_folder, publish_directory
from training.onnx.graph import OnnxConfig, Pool
from training.preprocessing import Fit, Preprocessing
from training.reference import (
    CARD_FILE,
    IMPORTED,
    NOT_STATED,
    ONNX_FILE,
    EncoderDescription,
    Metric,
    describe_encoder,
    description_bytes,
    identity,
)

MAX_MESSAGE = 500  # characters of an error message, which may contain names from the file


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What a graph does not declare itself; None for a value that it declares, or that leaves no choice.

    Args:
        size, channels, mean, std, output, pool, metric: as in `OnnxConfig`.
        fit: how a photo becomes a square, see `Preprocessing`.
        trained_from, licence: entries of the card.
    """

    size: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    output: str | None = None
    pool: Pool = "none"
    metric: Metric = "cosine"
    fit: Fit = "stretch"
    trained_from: str | None = None
    licence: str | None = None


def import_onnx(file: Path, out: Path, request: ImportRequest) -> EncoderDescription:
    """Check a graph, run it, and write an encoder directory of family `onnx`; a rejected graph writes nothing.

    Raises:
        EncoderError: the graph is rejected; the message names the file, the fault and the remedy.
        OutputError: the directory cannot be written, or contains something other than an encoder.
    """
    from training.onnx.checks import interface, read_graph
    from training.onnx.probe import probe

    check_encoder_directory(out)
    try:
        model = read_graph(file)
        found = interface(model, size=request.size, channels=request.channels, output=request.output)
        config = OnnxConfig(
            size=found.size,
            channels=found.channels,
            mean=request.mean,
            std=request.std,
            output=found.output,
            pool=request.pool,
            metric=request.metric,
        )
        preprocessing = Preprocessing(config.size, config.channels, request.fit)
        data = model.SerializeToString()
        dim = probe(data, config)
    except ValueError as exc:  # includes EncoderError
        text = str(exc)
        raise EncoderError(f"{file}: {text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + '...'}") from exc
    description = description_bytes(IMPORTED, asdict(config), preprocessing, dim=dim, metric=config.metric)
    card = {
        "name": out.name,
        "description": f"Imported from {file.name}",
        "trained_from": request.trained_from or NOT_STATED,
        "licence": request.licence or NOT_STATED,
        "source": {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), **_made_by(model)},
        "encoder_id": identity(data, description),
    }
    publish_directory(out, {ONNX_FILE: data, "encoder.json": description, CARD_FILE: card_bytes(card)})
    return describe_encoder(out)


def check_encoder_directory(out: Path) -> None:
    """Raise OutputError if the directory cannot be written or contains something other than an encoder."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "encoder.json").is_file()):
        raise OutputError(f"{out}: exists and is not an encoder; choose a new directory")
    check_output_folder(out.absolute().parent)


def _made_by(model: Any) -> Mapping[str, Any]:
    producer = f"{model.producer_name} {model.producer_version}".strip()
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=None)
    return {"producer": producer or NOT_STATED, "opset": opset}
