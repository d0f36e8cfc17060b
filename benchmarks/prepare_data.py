"""Convert public data sets to sources: `python benchmarks/prepare_data.py ARCHIVES OUT`.

ARCHIVES is a folder with some or all of `clothing-train.tar`, `clothing-validation.tar`, `fashion-mnist.tar`,
`textures-cc0.tar` and `binarized-mnist.tar`. OUT gets a folder for each, with one PNG or JPEG file per image and one
sub-folder per class: `clothing/{train,validation}`, `fashion/{train,test}`, `mnist/{train,valid,test}`, and
`textures/{train,test}`, which share no material, so that no test texture is used in training.
"""

from __future__ import annotations

import gzip
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip


def write_png(pixels: NDArray[np.uint8], folder: Path, labels: list[str]) -> None:
    for label in set(labels):
        (folder / label).mkdir(parents=True, exist_ok=True)
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        Image.fromarray(image).save(folder / label / f"{number:05d}.png")


def idx(path: Path, header: int) -> NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def fashion(unpacked: Path, out: Path) -> None:
    for side, name in (("train", "train"), ("test", "t10k")):
        images = next(unpacked.rglob(f"{name}-images*"))
        labels = next(unpacked.rglob(f"{name}-labels*"))
        write_png(idx(images, 16).reshape(-1, 28, 28), out / side, [CLASSES[label] for label in idx(labels, 8)])


def mnist(unpacked: Path, out: Path) -> None:
    from scipy.io import loadmat

    for side in ("train", "valid", "test"):
        pixels = loadmat(next(unpacked.rglob(f"*{side}*.amat")))["X"]
        write_png((255 * pixels.reshape(-1, 28, 28)).astype(np.uint8), out / side, ["digit"] * len(pixels))


def clothing(unpacked: Path, out: Path) -> None:
    """Copy the archive's only folder to the name of its split."""
    found = [entry for entry in unpacked.iterdir() if entry.is_dir()]
    source = found[0] if len(found) == 1 else unpacked
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, out)


def textures(unpacked: Path, out: Path) -> None:
    folders = sorted({path.parent for path in unpacked.rglob("*.jpg")})
    for number, folder in enumerate(folders):
        shutil.copytree(folder, out / ("train" if number % 2 == 0 else "test") / folder.name)


STEPS = {
    "clothing-train": (clothing, "clothing/train"),
    "clothing-validation": (clothing, "clothing/validation"),
    "fashion-mnist": (fashion, "fashion"),
    "binarized-mnist": (mnist, "mnist"),
    "textures-cc0": (textures, "textures"),
}


def main(archives: Path, out: Path) -> None:
    for name, (unpack, place) in STEPS.items():
        archive = archives / f"{name}.tar"
        if not archive.is_file() or (out / place).exists():
            continue
        with tempfile.TemporaryDirectory() as scratch, tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
            unpack(Path(scratch), out / place)
        print(out / place)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
