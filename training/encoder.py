"""The public contract of the training layer: an encoder turns images into vectors, and is a directory on disk.

    weights.safetensors   all tensors of the model; for family `onnx` encoder.onnx, the graph, instead
    encoder.json          format, family, config, preprocessing, dim, metric
    card.json             information for people: data fingerprint, recipe, seed, commit, figures

The `encoder_id` is the SHA-256 of the weights (or graph) and encoder.json, so encoders with equal ids give equal
vectors. Nothing is ever pickled. This module imports torch; `training.reference` describes encoders and
`training.preprocessing` prepares images without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from training.card import card_bytes
from training.device import check_device
from training.errors import EncoderError
from training.files import publish_directory
from training.models import MODELS
from training.preprocessing import Preprocessing
from training.protocols import (
    CompletingModel,
    GenerativeModel,
    LabelConditionedModel,
    Likelihood,
    LikelihoodModel,
    LocatingModel,
    SamplingModel,
)
from training.reference import (
    CARD_FILE,
    IMPORTED,
    WEIGHTS_FILE,
    Metric,
    describe_encoder,
    description_bytes,
    first_line,
    identity,
    weights_file,
)

DRAWN_AT_ONCE = 64  # images that are drawn together, to bound the memory for cached activations


class Encoder:
    """A model with its preprocessing, and the identity of both.

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
        """Wrap a model.

        Args:
            card: contents of `card.json`, without the id.
            stored: contents of the weights file and `encoder.json`, for an encoder that was loaded.
            stored_as: dtype of the tensors in the weights file, for all of them or by name.
        """
        self.family = family
        self.preprocessing = preprocessing
        self.card = dict(card or {})
        self.device = torch.device(device)
        self.model = cast(Any, model.to(self.device).eval())
        self.dim: int = self.model.dim
        self.metric: Metric = self.model.metric
        self.config = dict(config)
        # A loaded encoder keeps the bytes of its files, so that saving it again does not change its id.
        self._weights, self._description = stored or (_serialise(model, family, stored_as), self._describe())
        self.encoder_id = identity(self._weights, self._description)

    def stored_types(self) -> dict[str, torch.dtype]:
        """The dtype of each tensor in the weights file."""
        types = {name: tensor.dtype for name, tensor in self.model.state_dict().items()}
        if self.family != IMPORTED:
            types |= {name: tensor.dtype for name, tensor in load_tensors(self._weights).items()}
        return types

    @property
    def label_names(self) -> list[str]:
        """Names of the labels that condition the model, by number; empty without labels, or if they have no names."""
        return list(self.card.get("labels", {}).get("names") or [])

    @property
    def is_generative(self) -> bool:
        return isinstance(self.model, GenerativeModel)

    def prepare(self, image: Image.Image | NDArray[np.uint8]) -> Tensor:
        """Preprocess an image, or an `(H, W, 3)` uint8 array, to `(C, S, S)` uint8, exactly as in training."""
        pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image, dtype=np.uint8)
        return torch.from_numpy(self.preprocessing.apply(pixels))

    @torch.inference_mode()
    def encode(self, batch: Tensor) -> Tensor:
        """Search vectors `(B, dim)` float32 on the CPU, with unit norm for metric cosine.

        Args:
            batch: `(B, C, S, S)`, uint8 as from `prepare`, or float in [0, 1].

        Raises:
            EncoderError: the shape of the batch does not match the preprocessing.
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
        """Vectors as from `encode`, and the regions `(B, 5)` that they describe; see `LocatingModel`.

        Raises:
            EncoderError: as for `encode`, or the family encodes whole images.
        """
        if not isinstance(self.model, LocatingModel):
            raise EncoderError(f"family {self.family!r} encodes whole images; use an encoder that finds the item first")
        vectors, regions = self.model.embed_with_regions(self._to_float(batch), framed.to(self.device))
        if self.metric == "cosine":
            vectors = torch.nn.functional.normalize(vectors.float(), dim=1)
        return vectors.float().cpu(), regions.float().cpu()

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        """Mean images `(B, C, S, S)` in [0, 1] of latents `(B, latent_dim)`, or of codes for families with codes."""
        return self._generative().decode(latent.to(self.device)).float().cpu()

    @torch.inference_mode()
    def reconstruct(self, batch: Tensor) -> Tensor:
        """Reconstructions in [0, 1] of a batch as for `encode`."""
        return self._generative().reconstruct(self._to_float(batch)).float().cpu()

    @torch.inference_mode()
    def log_likelihood(self, batch: Tensor) -> Likelihood:
        """Log-likelihood in nats per image of a batch as for `encode`, exact or a lower bound.

        Raises:
            EncoderError: the family has no likelihood, or its likelihood is for binary images and these are not.
        """
        if not isinstance(self.model, LikelihoodModel):
            raise EncoderError(f"family {self.family!r} has no likelihood; use one that has, such as 'vae'")
        x = self._to_float(batch)
        if self.config.get("likelihood") == "bernoulli" and bool(((x > 0.0) & (x < 1.0)).any()):
            raise EncoderError("this encoder's likelihood is for black-and-white images; give images without greys")
        likelihood = self.model.log_likelihood(x)
        return Likelihood(likelihood.nats.cpu(), likelihood.exact)

    @torch.inference_mode()
    def sample(self, count: int, *, seed: int = 0, temperature: float = 1.0, label: int | None = None) -> Tensor:
        """Images `(count, C, S, S)` in [0, 1] drawn from the model.

        Args:
            seed: equal seeds give equal images.
            temperature: below 1 for more probable images.
            label: label number of all images, for models with labels; None draws labels by their training frequency.

        Raises:
            EncoderError: the family draws no images, or the model does not have this label.
        """
        if not isinstance(self.model, SamplingModel):
            raise EncoderError(f"family {self.family!r} draws no images; use one that does, such as 'pixel-cnn'")
        if not temperature >= 0:
            raise EncoderError(f"temperature must be at least 0, not {temperature}")
        if label is not None:
            self._check_label(label)
        noise = torch.Generator().manual_seed(seed)
        drawn = []
        for first in range(0, count, DRAWN_AT_ONCE):
            part = min(DRAWN_AT_ONCE, count - first)
            given = {} if label is None else {"label": torch.full((part,), label)}
            drawn.append(self.model.sample(part, noise, temperature=temperature, **given).float().cpu())
        return torch.cat(drawn)

    @torch.inference_mode()
    def complete(self, batch: Tensor, known: Tensor, *, seed: int = 0, temperature: float = 1.0) -> Tensor:
        """Images `(B, C, S, S)` in [0, 1] from a batch as for `encode`, with the unknown pixels drawn.

        Args:
            known: pixels to keep, `(S, S)` bool.

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
        """Contents of the files of the encoder directory, by name."""
        card = {**self.card, "encoder_id": self.encoder_id}
        return {
            weights_file(self.family): self._weights,
            "encoder.json": self._description,
            CARD_FILE: card_bytes(card),
        }

    def save(self, directory: Path) -> Path:
        """Write the encoder directory atomically; an existing directory is replaced."""
        return publish_directory(Path(directory), self.files())

    def _describe(self) -> bytes:
        return description_bytes(self.family, self.config, self.preprocessing, dim=self.dim, metric=self.metric)

    def _check_label(self, label: int) -> None:
        classes = self.model.classes if isinstance(self.model, LabelConditionedModel) else None
        if classes is None:
            raise EncoderError(f"this encoder (family {self.family!r}) has no labels; leave the label out")
        if not 0 <= label < classes:
            names = f" ({', '.join(self.label_names)})" if self.label_names else ""
            raise EncoderError(f"label must be between 0 and {classes - 1}{names}, not {label}")

    def _generative(self) -> GenerativeModel:
        if not isinstance(self.model, GenerativeModel):
            raise EncoderError(f"family {self.family!r} has no decoder; use a generative encoder such as 'vae'")
        return self.model

    def _to_float(self, batch: Tensor) -> Tensor:
        expected = (self.preprocessing.channels, self.preprocessing.size, self.preprocessing.size)
        if batch.ndim != 4 or tuple(batch.shape[1:]) != expected:
            raise EncoderError(f"batch has shape {tuple(batch.shape)}; expected (B, {', '.join(map(str, expected))})")
        batch = batch.to(self.device)
        return batch.float() / 255.0 if batch.dtype == torch.uint8 else batch.float()


def load_encoder(ref: str | Path, device: str | torch.device = "cpu") -> Encoder:
    """Load an encoder by directory, name or alias (`default`, `accurate`, `small`, `label-free`).

    Raises:
        EncoderError: the name is unknown, files of the directory are missing, damaged or of another format, or the
            device is not available.
    """
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
    """Round the weights of a model in place to the values that loading it from disk will give.

    Raises:
        EncoderError: a weight is out of the range of the dtype.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(tensor.to(stored_as))
            if not bool(tensor.isfinite().all()):
                raise EncoderError(f"{name} has values too large for {stored_as}; set weights=float32 in the recipe")
