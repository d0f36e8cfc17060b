"""An encoder's embedding as an ONNX file beside its weights, for `training.embedder`."""

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
from training.encoder import Encoder, LocatingModel, load_encoder
from training.errors import EncoderError
from training.files import publish_file
from training.reference import ONNX_FILE

MIN_HALVED = 256  # numbers of a weight: a smaller one is not worth a node
TOLERANCE = 1e-4  # largest difference of any number of a vector from torch's


class _Embedding(nn.Module):
    """Images `(B, C, S, S)` uint8 to vectors `(B, dim)`, as `Encoder.encode` gives them."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.model = encoder.model
        self.is_cosine = encoder.metric == "cosine"

    def forward(self, pixels: Tensor) -> Tensor:
        vectors = self.model.embed(pixels.float() / 255.0)
        return nn.functional.normalize(vectors, dim=1) if self.is_cosine else vectors


class _LocatingEmbedding(nn.Module):
    """Pictures, and which of them are framed already, to vectors and the regions that these are of."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.model = encoder.model
        self.is_cosine = encoder.metric == "cosine"

    def forward(self, pixels: Tensor, framed: Tensor) -> tuple[Tensor, Tensor]:
        vectors, regions = self.model.embed_with_regions(pixels.float() / 255.0, framed)
        return (nn.functional.normalize(vectors, dim=1) if self.is_cosine else vectors), regions


def add_onnx(directory: Path) -> Path | None:
    """Write `encoder.onnx` into an encoder directory and its checksum into the card; None for a family that cannot.

    Raises:
        EncoderError: the exported graph does not agree with torch to `TOLERANCE`.
    """
    encoder = load_encoder(directory)
    if not getattr(encoder.model, "is_exportable", False):
        return None
    data = to_onnx(encoder)
    check_agreement(encoder, data)
    path = publish_file(directory / ONNX_FILE, data)
    amend_card(directory, onnx_sha256=hashlib.sha256(data).hexdigest())
    return path


def to_onnx(encoder: Encoder) -> bytes:
    """The graph from `pixels` `(B, C, S, S)` uint8 to `vectors` `(B, dim)` float32, for any B.

    That of an encoder that finds the item first also takes `framed` `(B,)` bool and gives `regions` `(B, 5)` float32.
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
    """A model as an ONNX graph.

    Args:
        shapes: the axes of each input that may vary, by number.

    Raises:
        EncoderError: torch cannot export it.
    """
    # The exporter reports its progress as warnings and log lines; what matters, the result, is checked.
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
        raise EncoderError("torch exported nothing")
    halved = _in_half_precision(program.model_proto)
    data: bytes = halved.SerializeToString()
    return data


def _in_half_precision(graph: Any) -> Any:
    """The same ONNX model with the weights that float16 holds exactly stored so: ONNX Runtime widens them at load."""
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


def check_agreement(encoder: Encoder, data: bytes) -> None:
    """Compare the graph with torch on random images, in batches of several sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    is_locating = isinstance(encoder.model, LocatingModel)
    generator = torch.Generator().manual_seed(0)
    expected: tuple[Tensor, ...]
    for count in (1, 3, 16):
        pixels = torch.randint(0, 256, (count, *_shape(encoder)), dtype=torch.uint8, generator=generator)
        if is_locating:
            framed = torch.rand(count, generator=generator) < 0.5
            found = session.run(None, {"pixels": pixels.numpy(), "framed": framed.numpy()})
            expected = encoder.encode_with_regions(pixels, framed)
        else:
            found = session.run(None, {"pixels": pixels.numpy()})
            expected = (encoder.encode(pixels),)
        difference = max(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, expected, strict=True))
        if not difference <= TOLERANCE:
            raise EncoderError(f"family {encoder.family!r}: the ONNX graph differs from torch by {difference:.2g}")


def _shape(encoder: Encoder) -> tuple[int, int, int]:
    preprocessing = encoder.preprocessing
    return (preprocessing.channels, preprocessing.size, preprocessing.size)
