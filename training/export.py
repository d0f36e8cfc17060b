"""An encoder's embedding as an ONNX file beside its weights, for `training.embedder`."""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from training.card import amend_card
from training.encoder import Encoder, load_encoder
from training.errors import EncoderError
from training.files import publish_file
from training.reference import ONNX_FILE

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
    """The graph from `pixels` `(B, C, S, S)` uint8 to `vectors` `(B, dim)` float32, for any B."""
    example = torch.zeros((2, *_shape(encoder)), dtype=torch.uint8)
    # The exporter reports its progress as warnings and log lines; what matters, the result, is checked.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _Embedding(encoder).eval(),
            (example,),
            input_names=["pixels"],
            output_names=["vectors"],
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    if program is None:
        raise EncoderError(f"family {encoder.family!r}: torch exported nothing")
    data: bytes = program.model_proto.SerializeToString()
    return data


def check_agreement(encoder: Encoder, data: bytes) -> None:
    """Compare the graph with torch on random images, in batches of several sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    for count in (1, 3, 16):
        pixels = torch.randint(0, 256, (count, *_shape(encoder)), dtype=torch.uint8, generator=generator)
        difference = np.abs(session.run(None, {"pixels": pixels.numpy()})[0] - encoder.encode(pixels).numpy()).max()
        if not difference <= TOLERANCE:
            raise EncoderError(f"family {encoder.family!r}: the ONNX graph differs from torch by {difference:.2g}")


def _shape(encoder: Encoder) -> tuple[int, int, int]:
    preprocessing = encoder.preprocessing
    return (preprocessing.channels, preprocessing.size, preprocessing.size)
