"""Export an encoder's embedding as an ONNX file, which `training.embedder` runs without torch."""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.card import amend_card
from training.encoder import Encoder, load_encoder
from training.errors import EncoderError
from training.files import publish_file
from training.onnx.graph import open_session
from training.protocols import LocatingModel
from training.reference import ONNX_FILE, first_line

MIN_HALVED = 256  # minimum numbers of a weight stored in half precision
TOLERANCE = 1e-4  # maximum difference of any number of a vector from torch's


class _Embedding(nn.Module):
    """Images `(B, C, S, S)` uint8 to vectors `(B, dim)`, as computed by `Encoder.encode`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.model = encoder.model
        self.is_cosine = encoder.metric == "cosine"

    def forward(self, pixels: Tensor) -> Tensor:
        vectors = self.model.embed(pixels.float() / 255.0)
        return nn.functional.normalize(vectors, dim=1) if self.is_cosine else vectors


class _LocatingEmbedding(nn.Module):
    """Images, and which of them are framed already, to vectors and the regions that they describe."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.model = encoder.model
        self.is_cosine = encoder.metric == "cosine"

    def forward(self, pixels: Tensor, framed: Tensor) -> tuple[Tensor, Tensor]:
        vectors, regions = self.model.embed_with_regions(pixels.float() / 255.0, framed)
        return (nn.functional.normalize(vectors, dim=1) if self.is_cosine else vectors), regions


def add_onnx(directory: Path) -> Path | None:
    """Write `encoder.onnx` and its checksum into an encoder directory; returns None if the family cannot be exported.

    Raises:
        EncoderError: the exported graph differs from torch by more than `TOLERANCE`.
    """
    encoder = load_encoder(directory)
    if not encoder.model.is_exportable:
        return None
    data = to_onnx(encoder)
    check_agreement(encoder, data)
    path = publish_file(directory / ONNX_FILE, data)
    amend_card(directory, onnx_sha256=hashlib.sha256(data).hexdigest())
    return path


def to_onnx(encoder: Encoder) -> bytes:
    """The graph from `pixels` `(B, C, S, S)` uint8 to `vectors` `(B, dim)` float32, for any B.

    The graph of a locating model also takes `framed` `(B,)` bool and returns `regions` `(B, 5)` float32.
    """
    is_locating = isinstance(encoder.model, LocatingModel)
    example: tuple[Tensor, ...] = (torch.zeros((2, *_shape(encoder)), dtype=torch.uint8),)
    if is_locating:
        example = (*example, torch.zeros(2, dtype=torch.bool))
    batch = torch.export.Dim("batch")
    return export_graph(
        (_LocatingEmbedding if is_locating else _Embedding)(encoder),
        example,
        ["pixels", "framed"][: len(example)],
        ["vectors", "regions"][: len(example)],
        tuple({0: batch} for _ in example),
    )


def export_graph(
    model: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str], shapes: tuple[Any, ...]
) -> bytes:
    """Export a model as an ONNX graph.

    Args:
        shapes: the dynamic axes of each input, by number.

    Raises:
        EncoderError: torch cannot export it.
    """
    # The exporter reports its progress as warnings and log lines; the result is checked instead.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.eval(),
            example,
            input_names=inputs,
            output_names=outputs,
            dynamo=True,
            dynamic_shapes=shapes,
            verbose=False,
        )
    if program is None:
        raise EncoderError("torch exported no graph")
    halved = _in_half_precision(program.model_proto)
    data: bytes = halved.SerializeToString()
    return data


def _in_half_precision(graph: Any) -> Any:
    """Store weights in float16 if that is exact; ONNX Runtime casts them to float32 when it loads the graph."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for initializer in graph.graph.initializer:
        if initializer.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(initializer)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < MIN_HALVED or not np.array_equal(half.astype(np.float32), values):
            continue
        name = initializer.name
        initializer.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    return graph


def check_agreement(encoder: Encoder, data: bytes, *, tolerance: float = TOLERANCE) -> None:
    """Raise EncoderError unless the graph agrees with torch on random images, in batches of several sizes.

    Args:
        tolerance: maximum difference of any number of a vector, relative to the largest if that exceeds 1.
    """
    session = open_session(data, 1)
    is_locating = isinstance(encoder.model, LocatingModel)
    generator = torch.Generator().manual_seed(0)
    expected: tuple[Tensor, ...]
    for count in (1, 3, 16):
        pixels = torch.randint(0, 256, (count, *_shape(encoder)), dtype=torch.uint8, generator=generator)
        if is_locating:
            framed = torch.rand(count, generator=generator) < 0.5
            inputs = {"pixels": pixels.numpy(), "framed": framed.numpy()}
            expected = encoder.encode_with_regions(pixels, framed)
        else:
            inputs = {"pixels": pixels.numpy()}
            expected = (encoder.encode(pixels),)
        try:
            found = session.run(["vectors", "regions"][: len(expected)], inputs)
        except Exception as exc:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base but this
            raise EncoderError(f"the ONNX graph cannot be run ({first_line(exc)})") from exc
        shapes = [(a.shape, tuple(b.shape)) for a, b in zip(found, expected, strict=True)]
        if any(a != b for a, b in shapes):
            raise EncoderError(f"family {encoder.family!r}: the ONNX graph has outputs of other shapes than torch")
        largest = max(1.0, *(float(b.abs().max()) for b in expected))
        difference = max(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, expected, strict=True)) / largest
        if not difference <= tolerance:
            raise EncoderError(f"family {encoder.family!r}: the ONNX graph differs from torch by {difference:.2g}")


def _shape(encoder: Encoder) -> tuple[int, int, int]:
    preprocessing = encoder.preprocessing
    return (preprocessing.channels, preprocessing.size, preprocessing.size)
