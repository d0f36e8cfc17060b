"""Small valid and invalid ONNX graphs, built by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

DIM = 6
OPSET = 17


def constant(name: str, values: Any, kind: Any = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=kind), name)


def kernels(channels: int = 3, seed: int = 0) -> TensorProto:
    return constant("kernels", np.random.default_rng(seed).normal(size=(DIM, channels, 4, 4)))


def model(
    nodes: Sequence[NodeProto],
    constants: Sequence[TensorProto] = (),
    *,
    shape: Sequence[int | str] | None = ("B", 3, 16, 16),
    kind: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("vectors",),
    out_kind: int = TensorProto.FLOAT,
    domains: Sequence[str] = (),
) -> ModelProto:
    """A graph from `x` to outputs of any shape."""
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, out_kind, None) for name in outputs],
        list(constants),
    )
    opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="by hand")


def pooled(source: str = "x", target: str = "vectors") -> list[NodeProto]:
    """Convolution, tanh, global mean: vectors `(B, DIM)`."""
    return [
        helper.make_node("Conv", [source, "kernels"], ["map"], strides=[4, 4]),
        helper.make_node("Tanh", ["map"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["mean"]),
        helper.make_node("Flatten", ["mean"], [target]),
    ]


def vector_graph(**options: Any) -> ModelProto:
    """Images to vectors `(B, DIM)`."""
    return model(pooled(), [kernels()], **options)


def token_graph(channels: int = 3) -> ModelProto:
    """Images of any size to two outputs of tokens `(B, T, DIM)`, as in vision transformers."""
    nodes = [
        helper.make_node("Conv", ["x", "kernels"], ["map"], strides=[4, 4]),
        helper.make_node("Tanh", ["map"], ["active"]),
        helper.make_node("Reshape", ["active", "shape"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("Mul", ["tokens", "tokens"], ["squares"]),
    ]
    constants = [kernels(channels), constant("shape", [0, DIM, -1], np.int64)]
    return model(nodes, constants, shape=("B", channels, "H", "W"), outputs=("tokens", "squares"))


def load(encoder_model: Any, graph: ModelProto) -> None:
    """Load a graph into a model of family `onnx`."""
    data = bytearray(graph.SerializeToString())
    encoder_model.load_state_dict({"graph": torch.frombuffer(data, dtype=torch.uint8)})


def save(graph: ModelProto | bytes, path: Path) -> Path:
    path.write_bytes(graph if isinstance(graph, bytes) else graph.SerializeToString())
    return path


def save_with_data_beside(graph: ModelProto, path: Path, location: str = "graph.data") -> Path:
    """Store constants in an external file, as exporters of large models do."""
    onnx.save_model(
        graph, path, save_as_external_data=True, location=location, size_threshold=0, all_tensors_to_one_file=True
    )
    return path
