"""The public contract of the training layer: an encoder turns images into vectors, and is a directory on disk.

`training.stored` has the files. This module imports torch; `training.reference` describes encoders and
`training.preprocessing` prepares images without it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.errors import EncoderError
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
from training.reference import describe_encoder
from training.stored import StoredModel

DRAWN_AT_ONCE = 64  # images that are drawn together, to bound the memory for cached activations


class Encoder(StoredModel[Preprocessing]):
    """A model of images with its preprocessing, and the identity of both.

    Example:
        >>> encoder = load_encoder("hog")
        >>> vectors = encoder.encode(torch.stack([encoder.prepare(Image.new("RGB", (80, 60)))]))
        >>> vectors.shape == (1, encoder.dim)
        True
    """

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
    """Load an encoder of images by directory, name or alias (`default`, `accurate`, `small`, `label-free`).

    Raises:
        EncoderError: the name is unknown, files of the directory are missing, damaged or of another format, the
            encoder takes drawings, or the device is not available.
    """
    return Encoder.load(describe_encoder(ref), device)
