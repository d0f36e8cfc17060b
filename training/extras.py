"""Optional parts of the installation: which package comes with which extra, and the error when one is missing.

The base installation indexes, searches, evaluates and serves with encoders that have an ONNX file. Everything that
trains a model or runs one in PyTorch needs the extra `train`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from training.errors import MissingExtraError

EXTRA_OF = {
    "lightning": "train",
    "onnxscript": "train",
    "safetensors": "train",
    "skimage": "train",
    "sklearn": "train",
    "tensorboard": "train",
    "torch": "train",
    "torchvision": "train",
    "umap": "train",
    "pillow_heif": "heif",
    "plotly": "report",
    "pyarrow": "parquet",
    "psycopg": "postgres",
    "opentelemetry.exporter": "telemetry",
    "opentelemetry.sdk": "telemetry",
}


@contextmanager
def extras(what: str) -> Iterator[None]:
    """Report a package that is missing in this block as the extra to install.

    Args:
        what: the thing that needs the package, as the start of the message.

    Raises:
        MissingExtraError: a package of one of the extras is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        package = next((name for name in EXTRA_OF if f"{exc.name}.".startswith(f"{name}.")), None)
        if package is None:
            raise
        raise MissingExtraError(
            f"{what} needs the package {package!r}, which is not installed; "
            f"run `pip install 'nitamono[{EXTRA_OF[package]}]'`"
        ) from exc
