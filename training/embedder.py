"""Images to search vectors, without torch if the encoder has an ONNX file.

Importing torch takes longer than embedding thousands of photos, and ONNX Runtime runs small convolutional encoders
about twice as fast on a CPU. Vectors agree to 1e-4, which `training.onnx.export` checks before it writes the file.
Imported encoders (family `onnx`) are graphs themselves and need no torch on a CPU either.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from training.errors import EncoderError
from training.extras import extras
from training.reference import (
    IMPORTED,
    ONNX_FILE,
    Described,
    EncoderDescription,
    ImageEncoderDescription,
    SketchEncoderDescription,
    describe_any,
    first_line,
)
from training.sketches.preparing import DrawingPreparation

if TYPE_CHECKING:
    from training.data.decode import Decoded
    from training.encoder import Encoder
    from training.sketches.encoder import SketchEncoder
    from training.sketches.strokes import Strokes

CHUNK = 32  # images per run: with more, activations exceed the CPU cache and each image takes 1.5 times as long
REGION = 5  # numbers of a region: left, top, right, bottom as fractions of the image, and confidence
Pixels = NDArray[np.uint8]
Prepared = NDArray[np.uint8] | NDArray[np.float32]  # images `(B, C, S, S)`, or drawings `(B, N_max, 5)`
Vectors = NDArray[np.float32]
Regions = NDArray[np.float32]


class Embedder(Protocol):
    """Prepared images or drawings to vectors `(B, dim)` float32, with unit norm for metric cosine."""

    @property
    def described(self) -> EncoderDescription: ...

    def embed(self, pixels: Any) -> Vectors: ...

    def embed_with_regions(self, pixels: Any, *, framed: bool) -> tuple[Vectors, Regions | None]:
        """Vectors and the regions that they describe `(B, 5)`, see `training.protocols.LocatingModel`.

        The regions are None for an encoder of whole images.

        Args:
            framed: the images were already cropped to the item; their regions are the whole images.
        """
        ...


def load_embedder(ref: str | Path | EncoderDescription, *, device: str = "cpu", threads: int | None = None) -> Embedder:
    """The fastest embedder of an encoder: ONNX Runtime on the CPU if the encoder has an ONNX file, torch otherwise.

    Args:
        ref: see `describe_any`, or the description that it returned.
        device: cpu, cuda or cuda:N.
        threads: number of threads; None for one per core.

    Raises:
        EncoderError: as for `describe_any`, or the ONNX file does not match the checksum on the card.
        MissingExtraError: the encoder needs PyTorch, which is not installed.
    """
    described = ref if isinstance(ref, Described) else describe_any(ref)
    threads = threads or os.cpu_count() or 1
    if isinstance(described.preprocessing, DrawingPreparation):
        return _load_sketch_embedder(described, device, threads)
    if device == "cpu" and described.family == IMPORTED:
        return _GraphEmbedder(described, threads)
    if device == "cpu" and (described.directory / ONNX_FILE).is_file():
        return _OnnxEmbedder(described, threads)
    with extras(f"encoder {str(described.directory)!r} has no ONNX file for the CPU, so it"):
        import torch

        from training.encoder import load_encoder

    if device == "cpu":
        torch.set_num_threads(threads)
    return _TorchEmbedder(described, load_encoder(described.directory, device))


def _load_sketch_embedder(described: SketchEncoderDescription, device: str, threads: int) -> SketchEmbedder:
    with extras(f"encoder {str(described.directory)!r} takes drawings, so it"):
        import torch

        from training.sketches.encoder import load_sketch_encoder

    if device == "cpu":
        torch.set_num_threads(threads)
    return SketchEmbedder(described, load_sketch_encoder(described.directory, device))


def prepare(embedder: Embedder, decoded: Decoded) -> Prepared:
    """A decoded image or drawing as a batch of one, prepared as in training.

    Raises:
        ImageError: a photo is given to an encoder of drawings, or the reverse.
    """
    return embedder.described.preprocessing.of(decoded)[None]


def warm_up(embedder: Embedder) -> None:
    """Embed nothing of interest once: imports and allocates what every later call needs."""
    preprocessing = embedder.described.preprocessing
    is_drawing = isinstance(preprocessing, DrawingPreparation)
    embedder.embed(np.zeros((1, *preprocessing.shape), np.float32 if is_drawing else np.uint8))


class SketchEmbedder:
    """Embeds drawings, and draws them again."""

    def __init__(self, described: SketchEncoderDescription, encoder: SketchEncoder) -> None:
        self._encoder = encoder
        self.described = described

    def embed(self, pixels: NDArray[np.float32]) -> Vectors:
        import torch

        expected = self.described.preprocessing.shape
        if pixels.dtype != np.float32 or pixels.shape[1:] != expected:
            raise EncoderError(f"drawings are {pixels.dtype} {pixels.shape}; expected float32 (B, {expected[0]}, 5)")
        vectors: Vectors = self._encoder.encode(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()
        return vectors

    def embed_with_regions(self, pixels: NDArray[np.float32], *, framed: bool) -> tuple[Vectors, None]:
        return self.embed(pixels), None

    @property
    def can_redraw(self) -> bool:
        """Whether drawings have a latent to be drawn again from; a decoder alone has none."""
        return self._encoder.is_conditional

    def redraw(self, rows: NDArray[np.float32]) -> Strokes:
        """The drawing that the model makes of the latent of a prepared one `(1, N_max, 5)`, in a box of 255 units.

        It is the most probable one (temperature 0).

        Raises:
            EncoderError: not `can_redraw`.
        """
        import torch

        return self._encoder.decode(self._encoder.latents_of(torch.from_numpy(rows)))[0].strokes


class _OnnxEmbedder:
    def __init__(self, described: ImageEncoderDescription, threads: int) -> None:
        from training.onnx.graph import open_session

        path = described.directory / ONNX_FILE
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != described.card.get("onnx_sha256"):
            raise EncoderError(f"{path}: does not match the checksum in card.json; fetch or export the encoder again")
        try:
            self._session = open_session(data, threads)
        except EncoderError as exc:
            raise EncoderError(f"{path}: {exc}") from exc
        self._is_locating = any(output.name == "regions" for output in self._session.get_outputs())
        self.described: EncoderDescription = described

    def embed(self, pixels: Pixels) -> Vectors:
        return self._run(pixels, ["vectors"], framed=False)[0]

    def embed_with_regions(self, pixels: Pixels, *, framed: bool) -> tuple[Vectors, Regions | None]:
        if not self._is_locating:
            return self.embed(pixels), None
        vectors, regions = self._run(pixels, ["vectors", "regions"], framed=framed)
        return vectors, regions

    def _run(self, pixels: Pixels, outputs: list[str], *, framed: bool) -> list[NDArray[np.float32]]:
        _check(pixels, self.described)
        widths = {"vectors": self.described.dim, "regions": REGION}
        found = [np.empty((len(pixels), widths[name]), np.float32) for name in outputs]
        for start in range(0, len(pixels), CHUNK):
            inputs = {"pixels": np.ascontiguousarray(pixels[start : start + CHUNK])}
            if self._is_locating:
                inputs["framed"] = np.full(len(inputs["pixels"]), framed)
            for values, part in zip(found, self._session.run(outputs, inputs), strict=True):
                values[start : start + CHUNK] = part
        return found


class _GraphEmbedder:
    def __init__(self, described: ImageEncoderDescription, threads: int) -> None:
        from training.onnx.graph import Graph, OnnxConfig

        path = described.directory / ONNX_FILE
        try:
            self._graph = Graph(path.read_bytes(), OnnxConfig(**described.config), threads=threads)
        except (TypeError, ValueError) as exc:
            raise EncoderError(f"{path}: not a usable encoder ({first_line(exc)})") from exc
        self.described: EncoderDescription = described

    def embed(self, pixels: Pixels) -> Vectors:
        _check(pixels, self.described)
        vectors = self._graph.embed(pixels)
        if self.described.metric == "cosine":
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)  # as torch does
        return vectors

    def embed_with_regions(self, pixels: Pixels, *, framed: bool) -> tuple[Vectors, Regions | None]:
        return self.embed(pixels), None  # imported graphs encode whole images


class _TorchEmbedder:
    def __init__(self, described: ImageEncoderDescription, encoder: Encoder) -> None:
        self._encoder = encoder
        self.described: EncoderDescription = described

    def embed(self, pixels: Pixels) -> Vectors:
        import torch

        _check(pixels, self.described)
        vectors: Vectors = self._encoder.encode(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()
        return vectors

    def embed_with_regions(self, pixels: Pixels, *, framed: bool) -> tuple[Vectors, Regions | None]:
        import torch

        from training.protocols import LocatingModel

        if not isinstance(self._encoder.model, LocatingModel):
            return self.embed(pixels), None
        _check(pixels, self.described)
        batch = torch.from_numpy(np.ascontiguousarray(pixels))
        vectors, regions = self._encoder.encode_with_regions(batch, torch.full((len(batch),), framed))
        return vectors.numpy(), regions.numpy()


def _check(pixels: Pixels, described: EncoderDescription) -> None:
    expected = described.preprocessing.shape
    if pixels.dtype != np.uint8 or pixels.shape[1:] != expected:
        raise EncoderError(
            f"images are {pixels.dtype} {pixels.shape}; expected uint8 (B, {', '.join(map(str, expected))})"
        )
