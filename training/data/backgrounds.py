"""A bank of training backgrounds, drawn once per seed: flat, white, gradient, texture, rooms, photos and files.

None of them comes from the numbered bank of the synthetic shop, on which encoders are compared.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.decode import decode_image
from training.data.studio.scenes import background_kind, draw_background
from training.errors import ImageError, SourceError
from training.preprocessing import Preprocessing
from training.recipes.schema import Backgrounds

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Draw = Callable[[np.random.Generator, int], Floats]  # draws (size, size, 3) in 0..255
STREAM = 5  # random stream of a seed, different from those of the synthetic shop
SHOPS = 2**31  # smallest seed of the rooms; synthetic shops have smaller seeds
MAX_FILES = 20_000


def build_backgrounds(settings: Backgrounds, seed: int, size: int, channels: int, photos: PhotoBackgrounds) -> Pixels:
    """The bank `(count, channels, size, size)` uint8.

    Raises:
        SourceError: the folder does not exist or contains no readable image.
    """
    rng = np.random.default_rng([seed, STREAM])
    weights = {kind: weight for kind, weight in settings.kinds if kind != "folder" or settings.folder}
    draws: dict[str, Draw] = {
        "flat": flat, "white": white, "gradient": gradient, "texture": texture, "studio": room, "photos": photos.draw,
    }  # fmt: skip
    if settings.folder and weights["folder"]:
        draws["folder"] = Folder(Path(settings.folder)).draw
    chances = np.array(list(weights.values())) / sum(weights.values())
    kinds = rng.choice(list(weights), settings.count, p=chances)
    bank = np.empty((settings.count, channels, size, size), np.uint8)
    for number, kind in enumerate(kinds):
        drawn = np.clip(np.round(draws[str(kind)](rng, size)), 0, 255).astype(np.uint8)
        bank[number] = cv2.cvtColor(drawn, cv2.COLOR_RGB2GRAY)[None] if channels == 1 else drawn.transpose(2, 0, 1)
    return bank


class PhotoBackgrounds:
    """Backgrounds made from photos: the scene with its item inpainted, or a crop of it if the mask does not allow that.

    Args:
        images: `(N, C, S, S)` uint8.
        masks: `(N, S, S)` uint8, all 255 for an image without a usable mask.
    """

    def __init__(self, images: Pixels, masks: Pixels) -> None:
        self.images = images
        self.masks = masks

    def draw(self, rng: np.random.Generator, size: int) -> Floats:
        number = int(rng.integers(len(self.images)))
        image = np.ascontiguousarray(self.images[number].transpose(1, 2, 0))
        painted = paint_out(image, self.masks[number])
        scene = painted if painted is not None else _crop(rng, image, float(rng.uniform(0.3, 0.7)))
        if scene.ndim == 2 or scene.shape[2] == 1:
            scene = np.asarray(cv2.cvtColor(scene, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
        soft = cv2.GaussianBlur(scene, (0, 0), float(rng.uniform(0.3, 1.2)))
        return cv2.resize(soft, (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32)


def paint_out(image: Pixels, mask: Pixels) -> Pixels | None:
    """Inpaint the item of a photo `(H, W, 3)` with mask `(H, W)`; None if the mask is empty or covers nearly all."""
    covered = cv2.dilate(mask, np.ones((5, 5), np.uint8)) > 24
    if not 0.0 < covered.mean() < 0.8:
        return None
    return np.asarray(cv2.inpaint(image, covered.astype(np.uint8), 3, cv2.INPAINT_TELEA), dtype=np.uint8)


class Folder:
    """Images of a folder and its sub-folders; each draw is a random crop of one, mirrored or not."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SourceError(f"backgrounds {folder}: no such folder")
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        self._files = files[:MAX_FILES]
        self._folder = folder

    def draw(self, rng: np.random.Generator, size: int) -> Floats:
        while self._files:
            place = int(rng.integers(len(self._files)))
            try:
                pixels = decode_image(self._files[place].read_bytes(), at_least=2 * size).pixels
            except (ImageError, OSError):
                del self._files[place]
                continue
            return _square(rng, pixels, size)
        raise self._nothing()

    def each(self, rng: np.random.Generator, size: int, count: int) -> list[tuple[str, Floats]]:
        """Crops of `count` different images, each with the image's path in the folder.

        If the folder has fewer than `count` readable images, several crops are taken from each.
        """
        order = [self._files[place] for place in rng.permutation(len(self._files))]
        found: list[tuple[str, Floats]] = []
        place = 0
        while order and len(found) < count:
            place %= len(order)
            try:
                pixels = decode_image(order[place].read_bytes(), at_least=2 * size).pixels
            except (ImageError, OSError):
                del order[place]
                continue
            found.append((order[place].relative_to(self._folder).as_posix(), _square(rng, pixels, size)))
            place += 1
        if not found:
            raise self._nothing()
        return found

    def _nothing(self) -> SourceError:
        return SourceError(f"backgrounds {self._folder}: it contains no readable image")


def _square(rng: np.random.Generator, pixels: Pixels, size: int) -> Floats:
    part = _crop(rng, pixels, float(rng.uniform(0.5, 1.0)))
    square = Preprocessing(size, 3, "crop").apply(part).transpose(1, 2, 0)
    return (square[:, ::-1] if rng.random() < 0.5 else square).astype(np.float32)


def flat(rng: np.random.Generator, size: int) -> Floats:
    return np.tile(_colour(rng), (size, size, 1))


def white(rng: np.random.Generator, size: int) -> Floats:
    return np.full((size, size, 3), 255.0, np.float32)


def gradient(rng: np.random.Generator, size: int) -> Floats:
    """A linear gradient, a radial gradient around a lit centre, or a wall above a floor."""
    x, y = _grid(size)
    kind = int(rng.integers(3))
    if kind == 0:
        angle = rng.uniform(0, 2 * np.pi)
        amount = 0.5 + 0.7 * ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle))
    elif kind == 1:
        amount = np.hypot(x - rng.uniform(0.3, 0.7), y - rng.uniform(0.3, 0.7)) * rng.uniform(0.8, 1.6)
    else:
        amount = 1.0 / (1.0 + np.exp(-(y - rng.uniform(0.5, 0.85)) * rng.uniform(10, 80)))
    return _mix(_colour(rng), _colour(rng), amount)


def texture(rng: np.random.Generator, size: int) -> Floats:
    kinds = (clouds, stripes, checks, fabric, wood)
    pixels = kinds[int(rng.integers(len(kinds)))](rng, size)
    light = 1.0 + 0.12 * _noise(rng, size, 2)
    return pixels * light[..., None] + rng.normal(0, rng.uniform(0, 5), pixels.shape).astype(np.float32)


def room(rng: np.random.Generator, size: int) -> Floats:
    shop = SHOPS + int(rng.integers(2**31))
    number = next(number for number in range(10_000) if background_kind(shop, number) == "room")
    return draw_background(shop, number, size)


def clouds(rng: np.random.Generator, size: int) -> Floats:
    """Noise on several scales, as on plaster, stone or leaves."""
    octaves = [2, 4, 8, 16, 32]
    falloff = rng.uniform(0.4, 0.95)
    total = sum(falloff**i * _noise(rng, size, min(cells, size)) for i, cells in enumerate(octaves))
    return _mix(_colour(rng), _colour(rng), 0.5 + 0.25 * np.asarray(total))


def stripes(rng: np.random.Generator, size: int) -> Floats:
    x, y = _grid(size)
    angle, count = rng.uniform(0, np.pi), rng.uniform(3, 14)
    wave = np.sin(2 * np.pi * count * (x * np.cos(angle) + y * np.sin(angle)) + rng.uniform(0, 7))
    return _mix(_colour(rng), _colour(rng), 0.5 + 0.5 * np.tanh(wave * rng.uniform(1, 8)))


def checks(rng: np.random.Generator, size: int) -> Floats:
    x, y = _grid(size)
    angle, count = rng.uniform(-0.4, 0.4), rng.uniform(2, 9)
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    wave = np.sin(2 * np.pi * count * u) * np.sin(2 * np.pi * count * v)
    return _mix(_colour(rng), _colour(rng), 0.5 + 0.5 * np.tanh(wave * rng.uniform(2, 10)))


def fabric(rng: np.random.Generator, size: int) -> Floats:
    x, y = _grid(size)
    threads = size * rng.uniform(0.2, 0.4)
    weave = 0.06 * (np.sin(2 * np.pi * threads * x) + np.sin(2 * np.pi * threads * y))
    folds = 0.13 * _noise(rng, size, 4) + 0.08 * _noise(rng, size, 9)
    return np.asarray(_colour(rng) * (1.0 + weave + folds)[..., None], dtype=np.float32)


def wood(rng: np.random.Generator, size: int) -> Floats:
    x, y = _grid(size)
    if rng.random() < 0.5:
        x, y = y, x
    planks = rng.integers(3, 9)
    tone = rng.uniform(0.8, 1.1, planks + 1)[np.floor(y * planks).astype(int)]
    grain = np.sin(y * planks * rng.uniform(20, 50) + 2.0 * _noise(rng, size, 6) + 0.5 * x)
    joint = np.where(np.abs((y * planks) % 1 - 0.5) > 0.47, 0.6, 1.0)
    base = np.array([rng.uniform(90, 210), 0, 0], np.float32)
    base[1] = base[0] * rng.uniform(0.65, 0.85)
    base[2] = base[1] * rng.uniform(0.55, 0.85)
    return np.asarray(base * (tone * (1 + 0.07 * grain) * joint)[..., None], dtype=np.float32)


def _crop(rng: np.random.Generator, pixels: Pixels, share: float) -> Pixels:
    """A random crop with the aspect ratio of the image."""
    height, width = pixels.shape[:2]
    rows, columns = max(1, int(share * height)), max(1, int(share * width))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    return np.ascontiguousarray(pixels[top : top + rows, left : left + columns])


def _colour(rng: np.random.Generator) -> Floats:
    """Mostly the pale, dull colours of walls and floors; sometimes a bright colour."""
    hue, value = rng.uniform(0, 360), rng.uniform(0.15, 1.0)
    saturation = rng.uniform(0.3, 1.0) if rng.random() < 0.3 else rng.uniform(0.0, 0.3)
    hsv = np.array([[[hue, saturation, value]]], np.float32)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255.0, dtype=np.float32)


def _mix(first: Floats, second: Floats, amount: NDArray[np.floating]) -> Floats:
    share = np.clip(amount, 0.0, 1.0)[..., None].astype(np.float32)
    return np.asarray(first * (1 - share) + second * share, dtype=np.float32)


def _grid(size: int) -> tuple[Floats, Floats]:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    return x, y


def _noise(rng: np.random.Generator, size: int, cells: int) -> Floats:
    """Smooth noise with mean 0, standard deviation of about 1 and `cells` bumps along a side."""
    small = rng.normal(0, 1, (cells + 1, cells + 1)).astype(np.float32)
    return np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
