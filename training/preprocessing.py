"""The preprocessing that an encoder was trained with, stored in its directory so that both always agree.

Imports no torch: reading processes apply it without loading the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.errors import ImageError

if TYPE_CHECKING:
    from training.data.decode import Decoded

Fit = Literal["stretch", "pad", "crop"]
Box = tuple[float, float, float, float]


def check_fit(fit: str) -> Fit:
    """Return `fit`; raises ValueError unless it is stretch, pad or crop."""
    if fit not in get_args(Fit):
        raise ValueError(f"fit must be one of {', '.join(get_args(Fit))}, not {fit!r}")
    return cast(Fit, fit)


@dataclass(frozen=True)
class Preprocessing:
    """How an image of any size becomes `(channels, size, size)` uint8.

    Args:
        size: side of the square in pixels, 8 to 1024.
        channels: 3 for sRGB, 1 for grey (ITU-R 601 luma).
        fit: `stretch` ignores the aspect ratio, `pad` adds white bars, `crop` takes the middle square.
    """

    size: int = 64
    channels: int = 3
    fit: Fit = "stretch"

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 1024:
            raise ValueError(f"size must be between 8 and 1024 pixels, not {self.size}")
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 or 3, not {self.channels}")
        check_fit(self.fit)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a prepared image, `(channels, size, size)`."""
        return (self.channels, self.size, self.size)

    @property
    def least_side(self) -> int:
        """The height and width in pixels that an image should be decoded at, at least."""
        return self.size

    def random(self, count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Prepared images of noise `(count, channels, size, size)`."""
        return rng.integers(0, 256, (count, *self.shape), dtype=np.uint8)

    def of(self, decoded: Decoded) -> NDArray[np.uint8]:
        """A decoded photo, prepared `(channels, size, size)`.

        Raises:
            ImageError: it is a drawing.
        """
        if decoded.strokes is not None:
            raise ImageError("an SVG drawing cannot be compared with photos; give a photo, such as a JPEG or PNG file")
        return self.apply(decoded.pixels)

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """`(H, W, 3)` uint8 to `(channels, size, size)` uint8."""
        image = self._fit(Image.fromarray(pixels))
        if self.channels == 1:
            return np.asarray(image.convert("L"))[None]
        return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))

    def apply_to_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Mask `(H, W)` uint8 to `(size, size)` uint8, fitted as its image is; white bars count as background."""
        return np.asarray(self._fit(Image.fromarray(mask), fill=0))

    def to_source(self, box: Box, width: int, height: int) -> Box:
        """Convert a box of the preprocessed image to a box of the original image.

        Args:
            box: left, top, right, bottom as fractions of the square.
            width, height: size of the original image in pixels.

        Returns:
            The box as fractions of the original image, clipped to [0, 1].
        """
        if self.fit == "stretch":
            across = down = (0.0, 1.0)
        elif self.fit == "pad":
            across, down = self._padded(width, height), self._padded(height, width)
        else:
            across, down = self._middle(width, height), self._middle(height, width)
        left, right = (min(1.0, max(0.0, (edge - across[0]) / (across[1] - across[0]))) for edge in box[::2])
        top, bottom = (min(1.0, max(0.0, (edge - down[0]) / (down[1] - down[0]))) for edge in box[1::2])
        return left, top, right, bottom

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Preprocessing:
        return cls(**value)

    @staticmethod
    def _padded(length: int, other: int) -> tuple[float, float]:
        """Where a side of the image begins and ends between its bars, as fractions of the square."""
        share = min(1.0, length / other)
        return 0.5 - 0.5 * share, 0.5 + 0.5 * share

    @staticmethod
    def _middle(length: int, other: int) -> tuple[float, float]:
        """Where a side of the image begins and ends, as fractions of the square cropped from its middle."""
        beyond = 0.5 * (max(1.0, length / other) - 1.0)
        return -beyond, 1.0 + beyond

    def _fit(self, image: Image.Image, fill: str | int = "white") -> Image.Image:
        square = (self.size, self.size)
        width, height = image.size
        if self.fit == "crop":
            side = min(width, height)
            left, top = (width - side) / 2, (height - side) / 2
            return image.resize(
                square,
                Image.Resampling.BOX if side > self.size else Image.Resampling.BILINEAR,
                box=(left, top, left + side, top + side),
            )
        if self.fit == "pad":
            scale = self.size / max(width, height)
            inner = (max(1, round(width * scale)), max(1, round(height * scale)))
            canvas = Image.new(image.mode, square, fill)
            resized = image.resize(inner, Image.Resampling.BILINEAR)
            canvas.paste(resized, ((self.size - inner[0]) // 2, (self.size - inner[1]) // 2))
            return canvas
        return image.resize(square, Image.Resampling.BILINEAR)
