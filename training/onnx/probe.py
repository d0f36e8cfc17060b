"""Run an ONNX graph in a separate process with limited memory and time: `python -m training.onnx.probe`.

The parent passes a config as JSON in the first argument and the graph on stdin; the child answers with one JSON
document: `dim`, or `refused` with the reason.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from training.errors import EncoderError
from training.onnx.graph import Floats, Graph, OnnxConfig
from training.reference import MAX_DIM

SECONDS = 120  # limit of processor time
WALL_FACTOR = 10  # limit of wall time, in multiples of the limit of processor time
BASE_MEMORY = 2 * 2**30  # limit of memory in bytes, in addition to six times the size of the graph
TOLERANCE = 1e-3  # maximum distance between vectors of the same image, relative to their length


def probe(data: bytes, config: OnnxConfig, *, seconds: int = SECONDS, memory: int = BASE_MEMORY) -> int:
    """Run a graph on several images in a separate process; returns the dimension of its vectors.

    Raises:
        EncoderError: ONNX Runtime cannot load or run the graph; it takes too much memory or time; or its vectors are
            not finite, not repeatable, equal for all images, or dependent on the other images of a batch.
    """
    memory += 6 * len(data)
    asked = {"config": asdict(config), "memory": memory, "seconds": seconds}
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "training.onnx.probe", json.dumps(asked)],
            input=data,
            capture_output=True,
            timeout=WALL_FACTOR * seconds,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            check=False,
        )
        if done.returncode == -signal.SIGXCPU:
            raise subprocess.TimeoutExpired(done.args, seconds)
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired as exc:
        raise EncoderError(f"takes more than {seconds} s for a few images; use a smaller model or size") from exc
    except ValueError as exc:  # a signal ended it, or it could not answer
        raise EncoderError(
            f"crashes ONNX Runtime, or takes more than {memory / 1e9:.1f} GB of memory (status {done.returncode})"
        ) from exc
    if "refused" in answer:
        raise EncoderError(str(answer["refused"]))
    return int(answer["dim"])


def try_graph(data: bytes, config: OnnxConfig) -> int:
    """Like `probe`, in this process."""
    _check_sizes(data)
    graph = Graph(data, config)
    pictures = _pictures(config)
    vectors = np.concatenate([graph.run(picture[None]) for picture in pictures.values()])
    for name, vector in zip(pictures, vectors, strict=True):
        if not np.isfinite(vector).all():
            raise EncoderError(f"gives NaN or infinity for a {name} image; check --mean and --std, or export again")
    if not 1 <= vectors.shape[1] <= MAX_DIM:
        raise EncoderError(f"gives vectors of {vectors.shape[1]} numbers; expected 1 to {MAX_DIM:,}; choose --output")
    _check_repeatable(graph.run, np.stack(list(pictures.values())), vectors, is_single=graph.is_single)
    if np.abs(vectors - vectors[:1]).max() <= 1e-6 * max(np.abs(vectors).max(), 1e-30):
        raise EncoderError("gives the same vector for every image; choose another output with --output")
    return int(vectors.shape[1])


def _pictures(config: OnnxConfig) -> dict[str, Floats]:
    shape = (config.channels, config.size, config.size)
    ramp = np.broadcast_to(np.linspace(0, 1, config.size, dtype=np.float32), shape)
    noise = np.random.default_rng(0).random(shape, np.float32)
    return {"black": np.zeros(shape, np.float32), "white": np.ones(shape, np.float32), "striped": ramp, "noisy": noise}


def _check_repeatable(run: Callable[[Floats], Floats], x: Floats, vectors: Floats, *, is_single: bool) -> None:
    """Raise EncoderError unless an image has the same vector in every call and every batch."""
    again = np.concatenate([run(picture[None]) for picture in x])
    if _apart(again, vectors) > TOLERANCE:
        raise EncoderError("gives an image different vectors in different calls; export it in evaluation mode")
    if not is_single and _apart(run(x), vectors) > TOLERANCE:
        raise EncoderError(
            "gives an image different vectors in different batches; export it in evaluation mode, or with a batch of 1"
        )


def _apart(vectors: Floats, others: Floats) -> float:
    lengths = np.linalg.norm(others, axis=1)
    return float((np.linalg.norm(vectors - others, axis=1) / np.maximum(lengths, 1e-6 * lengths.max() + 1e-30)).max())


def _check_sizes(data: bytes) -> None:
    """Raise EncoderError for values whose inferred shape is too large, before they are computed."""
    import onnx

    from training.onnx.checks import check_bytes

    try:
        inferred = onnx.shape_inference.infer_shapes(data, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        return  # the checks or ONNX Runtime have a better message
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.HasField("tensor_type") and all(dim.HasField("dim_value") for dim in dims):
            kind = value.type.tensor_type.elem_type
            check_bytes(f"value {value.name!r}", [dim.dim_value for dim in dims], kind)


def _limit(memory: int, seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))


def _answer(asked: dict[str, Any], data: bytes) -> dict[str, Any]:
    try:
        return {"dim": try_graph(data, OnnxConfig(**asked["config"]))}
    except EncoderError as exc:
        text = str(exc)
        if "bad_alloc" in text or "Failed to allocate memory" in text:
            return {"refused": f"takes more than {asked['memory'] / 1e9:.1f} GB of memory; use a smaller model or size"}
        return {"refused": text}
    except MemoryError:
        return {"refused": f"takes more than {asked['memory'] / 1e9:.1f} GB of memory; use a smaller model or size"}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    _limit(given["memory"], given["seconds"])
    sys.stdout.write(json.dumps(_answer(given, sys.stdin.buffer.read())))
