"""Run the ONNX graph of an imported encoder, from images to vectors, with ONNX Runtime. Imports no torch.

`training.onnx.checks` defines which graphs are accepted; `nitamono encoders import` also runs a graph before it imports
it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from training.errors import EncoderError
from training.preprocessing import Preprocessing
from training.reference import Metric, first_line

CHUNK = 8  # images per run; at 224 px and above, the activations of more images no longer fit the cache
Pool = Literal["none", "cls", "mean"]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class OnnxConfig:
    """How images are passed to a graph and how vectors are taken from its output.

    Args:
        mean, std: one number, or one per channel, for values x in [0, 1]; the graph receives `(x - mean) / std`.
        output: name of the output to use; None if the graph has only one.
        pool: how to pool an output of tokens `(B, tokens, dim)` or a map `(B, dim, H, W)`: `cls` takes the first token,
            `mean` the mean; `none` is for outputs `(B, dim)` and `(B, dim, 1, 1)`.
        metric: `cosine`, or `l2` for the Euclidean distance.
    """

    size: int = 224
    channels: int = 3
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    output: str | None = None
    pool: Pool = "none"
    metric: Metric = "cosine"

    def __post_init__(self) -> None:
        Preprocessing(self.size, self.channels)
        for name in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, name))  # JSON has lists
            object.__setattr__(self, name, values)
            if len(values) not in (1, self.channels):
                raise ValueError(f"{name} must have 1 or {self.channels} numbers, not {len(values)}")
            for value in values:
                if not (0.0 <= value <= 1.0) or (name == "std" and value == 0.0):
                    raise ValueError(
                        f"{name} must be for values in [0, 1], not {value:g}; divide it by 255 if it is for 0 to 255"
                    )
        for name, kinds in (("pool", Pool), ("metric", Metric)):
            if getattr(self, name) not in get_args(kinds):
                raise ValueError(f"{name} must be one of {', '.join(get_args(kinds))}, not {getattr(self, name)!r}")


class Graph:
    """A graph loaded into ONNX Runtime.

    Raises:
        EncoderError: the graph is not acceptable, or ONNX Runtime cannot load it.
    """

    def __init__(self, data: bytes, config: OnnxConfig, *, threads: int = 1) -> None:
        from training.onnx.checks import check_contents, parse

        check_contents(parse(data))
        self.config = config
        self._session = open_session(data, threads)
        inputs, outputs = self._session.get_inputs(), [output.name for output in self._session.get_outputs()]
        self._output = config.output or outputs[0]
        if len(inputs) != 1 or self._output not in outputs or (config.output is None and len(outputs) > 1):
            raise EncoderError(f"the graph has inputs {len(inputs)} and outputs {', '.join(outputs)}; import it again")
        self._input = inputs[0].name
        self.is_single = inputs[0].shape[0] == 1  # the graph takes one image at a time
        self._mean, self._std = (np.array(v, np.float32).reshape(1, -1, 1, 1) for v in (config.mean, config.std))
        self._dim: int | None = None

    @property
    def dim(self) -> int:
        if self._dim is None:
            shape = (1, self.config.channels, self.config.size, self.config.size)
            self._dim = self.run(np.zeros(shape, np.float32)).shape[1]
        return self._dim

    def embed(self, x: Floats | NDArray[np.uint8]) -> Floats:
        """Vectors `(B, dim)`, not normalised, of images `(B, C, S, S)`: uint8, or float32 in [0, 1]."""
        step = 1 if self.is_single else CHUNK
        parts = [self.run(_to_float(x[start : start + step])) for start in range(0, len(x), step)]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), np.float32)

    def run(self, x: Floats) -> Floats:
        """Vectors `(B, dim)` of images `(B, C, S, S)` float32 in [0, 1], in one run.

        Raises:
            EncoderError: the graph fails, or its output does not match the config.
        """
        try:
            (output,) = self._session.run([self._output], {self._input: (x - self._mean) / self._std})
        except Exception as exc:  # noqa: BLE001 - ONNX Runtime's exceptions have no common base but this
            raise EncoderError(f"the graph fails on a batch of {len(x)} ({first_line(exc)})") from exc
        return _pooled(output, self.config.pool, self._output, len(x))


def open_session(data: bytes, threads: int) -> Any:
    """An ONNX Runtime session on the CPU, without custom operators, access to files, or telemetry."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would begin with the import
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # its warnings concern faults that it repairs
    # Spinning threads would occupy the cores of the reading processes.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as exc:  # noqa: BLE001 - as above
        raise EncoderError(f"ONNX Runtime cannot load it ({first_line(exc)})") from exc


def _to_float(x: Floats | NDArray[np.uint8]) -> Floats:
    scale = np.float32(255.0 if x.dtype == np.uint8 else 1.0)
    return np.asarray(x, np.float32) / scale


def _pooled(output: Any, pool: Pool, name: str, count: int) -> Floats:
    if not isinstance(output, np.ndarray) or output.dtype != np.float32:
        found = output.dtype if isinstance(output, np.ndarray) else type(output).__name__
        raise EncoderError(f"output {name!r} is {found}; export it as float32")
    shape = output.shape
    if not shape or shape[0] != count:
        raise EncoderError(f"output {name!r} has shape {shape} for {count} images; expected ({count}, dim)")
    if pool == "cls" and output.ndim == 3 and shape[1]:
        output = output[:, 0]
    elif pool == "mean" and output.ndim in (3, 4):
        output = output.mean(axis=1 if output.ndim == 3 else (2, 3))
    elif pool == "none" and output.ndim == 4 and shape[2:] == (1, 1):
        output = output[:, :, 0, 0]
    elif pool != "none" or output.ndim != 2:
        remedy = {3: "tokens; choose --pool cls or mean", 4: "a map; choose --pool mean"}.get(output.ndim)
        right = f"is {remedy}" if remedy and pool == "none" else f"does not fit pool {pool!r}"
        raise EncoderError(f"output {name!r} of shape {shape} {right}")
    vectors: Floats = np.ascontiguousarray(output)
    return vectors
