"""The one contract upwards: an encoder turns images into vectors, and is a directory on disk.

    weights.safetensors   every tensor of the model (family `onnx` has encoder.onnx, the graph, instead)
    encoder.json          format, family, config, preprocessing, latent, dim, metric
    card.json             what people want to know: data fingerprint, recipe, seed, commit, figures

The `encoder_id` is the SHA-256 of that file and of encoder.json, so two encoders with one id give the same vectors.
Nothing here is ever pickled. This module imports torch; `training.reference` tells what an encoder is
without it, and `training.preprocessing` prepares images without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from training.device import check_device
from training.errors import EncoderError
from training.files import publish_directory
from training.preprocessing import Preprocessing
from training.reference import (
    IMPORTED,
    WEIGHTS_FILE,
    Metric,
    card_bytes,
    describe_encoder,
    description_bytes,
    first_line,
    identity,
    weights_file,
)

DRAWN_AT_ONCE = 64  # images that are drawn together: a model may keep much for each


class Likelihood(NamedTuple):
    """Log-likelihood of each image in nats, `(B,)`; `exact` is False where it is a lower bound (ELBO or IWAE)."""

    nats: Tensor
    exact: bool


class EncoderModel(Protocol):
    """What every family in `training.models.MODELS` offers; a `torch.nn.Module` built from its frozen config alone."""

    metric: Metric

    @property
    def dim(self) -> int: ...

    def embed(self, x: Tensor) -> Tensor:
        """Search vectors `(B, dim)` float32 of images `(B, C, H, W)` float32 in [0, 1]; not yet normalised."""
        ...


@runtime_checkable
class SamplingModel(Protocol):
    """What families that can make images offer besides."""

    def sample(self, count: int, generator: torch.Generator | None = None, *, temperature: float = 1.0) -> Tensor:
        """Images `(count, C, H, W)` in [0, 1] drawn from the model.

        Families with a decoder give mean images of latents drawn from the prior.
        """
        ...


@runtime_checkable
class CompletingModel(SamplingModel, Protocol):
    """What families that draw images value by value offer besides."""

    def complete(
        self, x: Tensor, known: Tensor, generator: torch.Generator | None = None, *, temperature: float = 1.0
    ) -> Tensor:
        """Images `(B, C, S, S)` in [0, 1] with the pixels that are not `known` `(S, S)` drawn."""
        ...


@runtime_checkable
class GenerativeModel(SamplingModel, Protocol):
    """What families with a decoder offer besides."""

    def decode(self, latent: Tensor) -> Tensor:
        """Mean images `(B, C, H, W)` in [0, 1] of latents: `(B, latent_dim)`, or codes as the family says."""
        ...

    def reconstruct(self, x: Tensor) -> Tensor:
        """Mean images in [0, 1] of images `(B, C, H, W)` in [0, 1], through the latent without noise."""
        ...


@runtime_checkable
class LikelihoodModel(SamplingModel, Protocol):
    """What families that can say how likely an image is offer besides."""

    def log_likelihood(self, x: Tensor) -> Likelihood:
        """Log-likelihood in nats per image of 8-bit images given as `(B, C, H, W)` in [0, 1]."""
        ...


@runtime_checkable
class LocatingModel(Protocol):
    """What families that find the item in a picture before they encode it offer besides."""

    def embed_with_regions(self, x: Tensor, framed: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors `(B, dim)`, not yet normalised, and the regions `(B, 5)` of the pictures that they are of.

        A region is left, top, right, bottom in shares of the picture, and the confidence in [0, 1] that it is the item.

        Args:
            framed: True in pictures `(B,)` that somebody cut to the item: their region is the whole picture.
        """
        ...


class Encoder:
    """An encoder ready for use: a model, its preprocessing, and the identity of both.

    Example:
        >>> encoder = load_encoder("hog")
        >>> vectors = encoder.encode(torch.stack([encoder.prepare(Image.new("RGB", (80, 60)))]))
        >>> vectors.shape == (1, encoder.dim)
        True
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        family: str,
        config: Mapping[str, Any],
        preprocessing: Preprocessing,
        card: Mapping[str, Any] | None = None,
        device: str | torch.device = "cpu",
        stored: tuple[bytes, bytes] | None = None,
        stored_as: torch.dtype | Mapping[str, torch.dtype] = torch.float32,
    ) -> None:
        """`stored_as` is the type of the numbers in the weights file, of all of them or of each tensor."""
        self.family = family
        self.preprocessing = preprocessing
        self.card = dict(card or {})
        self.device = torch.device(device)
        self.model = cast(Any, model.to(self.device).eval())
        self.dim: int = self.model.dim
        self.metric: Metric = self.model.metric
        self.config = dict(config)
        # An encoder that was loaded keeps the bytes of its files: writing it again must not give it another id.
        self._weights, self._description = stored or (_serialise(model, family, stored_as), self._describe())
        self.encoder_id = identity(self._weights, self._description)

    def stored_types(self) -> dict[str, torch.dtype]:
        """The type in which the weights file holds each tensor of the model."""
        types = {name: tensor.dtype for name, tensor in self.model.state_dict().items()}
        if self.family != IMPORTED:
            types |= {name: tensor.dtype for name, tensor in load_tensors(self._weights).items()}
        return types

    @property
    def is_generative(self) -> bool:
        return isinstance(self.model, GenerativeModel)

    def prepare(self, image: Image.Image | NDArray[np.uint8]) -> Tensor:
        """One image (any size; RGB, or an `(H, W, 3)` uint8 array) as `(C, S, S)` uint8, just as in training."""
        pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image, dtype=np.uint8)
        return torch.from_numpy(self.preprocessing.apply(pixels))

    @torch.inference_mode()
    def encode(self, batch: Tensor) -> Tensor:
        """Search vectors `(B, dim)` float32 on the CPU, of unit norm when the metric is cosine.

        Args:
            batch: `(B, C, S, S)`, uint8 as from `prepare`, or float in [0, 1].

        Raises:
            EncoderError: the batch has another shape than this encoder's preprocessing gives.
        """
        vectors: Tensor = self.model.embed(self._to_float(batch)).float()
        if self.metric == "cosine":
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        return vectors.cpu()

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`encode` from and to NumPy: prepared images `(B, C, S, S)` uint8 to search vectors `(B, dim)`."""
        vectors: NDArray[np.float32] = self.encode(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()
        return vectors

    @torch.inference_mode()
    def encode_with_regions(self, batch: Tensor, framed: Tensor) -> tuple[Tensor, Tensor]:
        """As `encode`, and the regions `(B, 5)` that the vectors are of; see `LocatingModel`.

        Raises:
            EncoderError: as `encode`, or the family encodes pictures whole.
        """
        if not isinstance(self.model, LocatingModel):
            raise EncoderError(f"family {self.family!r} encodes pictures whole; use one that finds the item first")
        vectors, regions = self.model.embed_with_regions(self._to_float(batch), framed.to(self.device))
        if self.metric == "cosine":
            vectors = torch.nn.functional.normalize(vectors.float(), dim=1)
        return vectors.float().cpu(), regions.float().cpu()

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        """Mean images `(B, C, S, S)` in [0, 1] of latents `(B, latent_dim)`, or of codes where the family has those."""
        return self._generative().decode(latent.to(self.device)).float().cpu()

    @torch.inference_mode()
    def reconstruct(self, batch: Tensor) -> Tensor:
        """Mean images in [0, 1] of a batch as `encode` takes it."""
        return self._generative().reconstruct(self._to_float(batch)).float().cpu()

    @torch.inference_mode()
    def log_likelihood(self, batch: Tensor) -> Likelihood:
        """Nats per image of a batch as `encode` takes it, and whether exact or a lower bound.

        Raises:
            EncoderError: the family gives images no likelihood, or one of binary images, which these are not.
        """
        if not isinstance(self.model, LikelihoodModel):
            raise EncoderError(f"family {self.family!r} gives images no likelihood; use one that does, such as 'vae'")
        x = self._to_float(batch)
        if self.config.get("likelihood") == "bernoulli" and bool(((x > 0.0) & (x < 1.0)).any()):
            raise EncoderError("this encoder's likelihood is of black and white images; give images without greys")
        likelihood = self.model.log_likelihood(x)
        return Likelihood(likelihood.nats.cpu(), likelihood.exact)

    @torch.inference_mode()
    def sample(self, count: int, *, seed: int = 0, temperature: float = 1.0, label: int | None = None) -> Tensor:
        """Images `(count, C, S, S)` in [0, 1] drawn from the model.

        Args:
            seed: equal seeds draw equal images.
            temperature: below 1 for likelier images.
            label: number of the label that all are of, in families that take one; None draws labels too.

        Raises:
            EncoderError: the family draws no images, or takes no such label.
        """
        if not isinstance(self.model, SamplingModel):
            raise EncoderError(f"family {self.family!r} draws no images; use one that does, such as 'pixel-cnn'")
        if not temperature >= 0:
            raise EncoderError(f"temperature must be at least 0, not {temperature}")
        given: dict[str, int] = {}
        if label is not None:
            classes = self.config.get("classes") if "label" in signature(self.model.sample).parameters else None
            if classes is None:
                raise EncoderError(
                    f"this encoder (family {self.family!r}) draws images of no label; leave the label out"
                )
            if not 0 <= label < classes:
                raise EncoderError(f"label must be between 0 and {classes - 1}, not {label}")
            given["label"] = label
        noise = torch.Generator().manual_seed(seed)
        drawn = []
        for first in range(0, count, DRAWN_AT_ONCE):
            part = min(DRAWN_AT_ONCE, count - first)
            labels = {name: torch.full((part,), number) for name, number in given.items()}
            drawn.append(self.model.sample(part, noise, temperature=temperature, **labels).float().cpu())
        return torch.cat(drawn)

    @torch.inference_mode()
    def complete(self, batch: Tensor, known: Tensor, *, seed: int = 0, temperature: float = 1.0) -> Tensor:
        """Images `(B, C, S, S)` in [0, 1] of a batch as `encode` takes it, with what is not known drawn.

        Args:
            known: the pixels to keep, `(S, S)` bool.

        Raises:
            EncoderError: the family does not draw pixel by pixel.
        """
        if not isinstance(self.model, CompletingModel):
            raise EncoderError(
                f"family {self.family!r} does not draw pixel by pixel; use one that does, such as 'pixel-cnn'"
            )
        if not temperature >= 0:
            raise EncoderError(f"temperature must be at least 0, not {temperature}")
        x, noise = self._to_float(batch), torch.Generator().manual_seed(seed)
        model = self.model
        starts = range(0, len(x), DRAWN_AT_ONCE)
        parts = [
            model.complete(x[first : first + DRAWN_AT_ONCE], known, noise, temperature=temperature) for first in starts
        ]
        return torch.cat(parts).float().cpu()

    def files(self) -> dict[str, bytes]:
        """The contents of the encoder directory by name."""
        card = {**self.card, "encoder_id": self.encoder_id}
        return {
            weights_file(self.family): self._weights,
            "encoder.json": self._description,
            "card.json": card_bytes(card),
        }

    def save(self, directory: Path) -> Path:
        """Write the encoder directory, whole or not at all; a directory that was there is replaced."""
        return publish_directory(Path(directory), self.files())

    def _describe(self) -> bytes:
        return description_bytes(self.family, self.config, self.preprocessing, dim=self.dim, metric=self.metric)

    def _generative(self) -> GenerativeModel:
        if not isinstance(self.model, GenerativeModel):
            raise EncoderError(f"family {self.family!r} has no decoder; use a generative encoder such as 'vae'")
        return self.model

    def _to_float(self, batch: Tensor) -> Tensor:
        expected = (self.preprocessing.channels, self.preprocessing.size, self.preprocessing.size)
        if batch.ndim != 4 or tuple(batch.shape[1:]) != expected:
            raise EncoderError(
                f"a batch of shape {tuple(batch.shape)} was given; expected (B, {', '.join(map(str, expected))})"
            )
        batch = batch.to(self.device)
        return batch.float() / 255.0 if batch.dtype == torch.uint8 else batch.float()


def load_encoder(ref: str | Path, device: str | torch.device = "cpu") -> Encoder:
    """Load an encoder by directory, pretrained name or standing name (`default`, `accurate`, `small`).

    Raises:
        EncoderError: nothing has that name, the directory's files are missing, damaged or of another format, or there
            is no such device.
    """
    from training.models import MODELS

    described = describe_encoder(ref)
    check_device(device)
    directory = described.directory
    if described.family not in MODELS:
        raise EncoderError(f"{directory}: family {described.family!r} is not one of {', '.join(sorted(MODELS))}")
    family = MODELS[described.family]
    try:
        model = family.model(family.config(**described.config))
        name = weights_file(described.family)
        weights = (directory / name).read_bytes()
        model.load_state_dict(load_tensors(weights) if name == WEIGHTS_FILE else {"graph": _as_tensor(weights)})
        stored = (weights, (directory / "encoder.json").read_bytes())
    except (OSError, SafetensorError, TypeError, RuntimeError, ValueError) as exc:
        raise EncoderError(f"{directory}: not a usable encoder ({first_line(exc)})") from exc
    return Encoder(
        model,
        family=described.family,
        config=described.config,
        preprocessing=described.preprocessing,
        card=described.card,
        device=device,
        stored=stored,
    )


def _serialise(model: torch.nn.Module, family: str, stored_as: torch.dtype | Mapping[str, torch.dtype]) -> bytes:
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if family == IMPORTED:
        return bytes(tensors["graph"].numpy())
    types = stored_as if isinstance(stored_as, Mapping) else dict.fromkeys(tensors, stored_as)
    return save_tensors({name: t.to(types[name]) if t.is_floating_point() else t for name, t in tensors.items()})


def _as_tensor(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, np.uint8).copy())


@torch.no_grad()
def round_weights(model: torch.nn.Module, stored_as: torch.dtype) -> None:
    """Make of a model what loading it again will give.

    Raises:
        EncoderError: a number of the model is beyond the range of that type.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(stored_as))
            if not bool(tensor.isfinite().all()):
                raise EncoderError(f"{name} has numbers too large for {stored_as}; set weights=float32 in the recipe")
