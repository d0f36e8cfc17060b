"""Making an encoder directory of an ONNX graph that others trained. Imports no torch.

encoder.onnx    the graph as it was given, with the constants of files beside it taken in
encoder.json    how pictures go in and vectors come out (`training.onnx.graph.OnnxConfig`)
card.json       where it comes from
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

LONGEST = 500  # characters of a message, which has names from the file


@dataclass(frozen=True, kw_only=True)
class ImportRequest:
    """What a graph does not say of itself; None where it does, or where there is nothing to choose.

    Args:
        size, channels, mean, std, output, pool, metric: as of `OnnxConfig`.
        fit: how a photo becomes a square.
        trained_from, licence: for the card.
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
    """Check a graph, try it, and write an encoder directory of family `onnx`; nothing is written where it fails.

    Raises:
        EncoderError: the graph is refused; the message names the file, what is wrong and what would be right.
        OutputError: the directory cannot be written, or holds something else than an encoder.
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
    except ValueError as exc:  # EncoderError is one
        text = str(exc)
        raise EncoderError(f"{file}: {text if len(text) <= LONGEST else text[:LONGEST] + '...'}") from exc
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
    """`OutputError` where an encoder directory cannot be written, or would replace something that is none."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "encoder.json").is_file()):
        raise OutputError(f"{out}: is there already and is no encoder; name a new directory")
    check_output_folder(out.absolute().parent)


def _made_by(model: Any) -> Mapping[str, Any]:
    producer = f"{model.producer_name} {model.producer_version}".strip()
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=None)
    return {"producer": producer or NOT_STATED, "opset": opset}
