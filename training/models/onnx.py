"""Family `onnx`: an imported encoder, given as an ONNX graph.

The graph is stored as a tensor of bytes in the state of the model, so that an encoder with several parts keeps it among
its own weights. ONNX Runtime runs it on the CPU whatever the device of the model, without gradients.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from training.errors import EncoderError
from training.onnx.graph import Graph, OnnxConfig
from training.reference import Metric


class Onnx(nn.Module):
    """Images `(B, C, S, S)` in [0, 1] to vectors `(B, dim)` by a graph, which `load_state_dict` loads.

    Raises:
        EncoderError: from `load_state_dict`, as for `Graph`; from other methods as long as no graph is loaded.
    """

    is_exportable = False  # it already is a graph, which torch cannot trace
    graph: Tensor

    def __init__(self, config: OnnxConfig) -> None:
        super().__init__()
        self.config = config
        self.metric: Metric = config.metric
        self.register_buffer("graph", torch.empty(0, dtype=torch.uint8))
        self._runner: Graph | None = None

    @property
    def dim(self) -> int:
        return self.runner.dim

    @property
    def runner(self) -> Graph:
        if self._runner is None:
            if not len(self.graph):
                raise EncoderError("family 'onnx' has no graph yet; import one with `nitamono encoders import`")
            self._runner = Graph(bytes(self.graph.cpu().numpy()), self.config, threads=torch.get_num_threads())
        return self._runner

    def embed(self, x: Tensor) -> Tensor:
        vectors = self.runner.embed(x.detach().float().cpu().numpy())
        return torch.from_numpy(vectors).to(x.device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        given = state_dict.get(f"{prefix}graph")
        if isinstance(given, Tensor):
            self.graph = torch.empty_like(given, device=self.graph.device)
        super()._load_from_state_dict(state_dict, prefix, *others)
        self._runner = None
        if len(self.graph):
            _ = self.runner  # builds the runner, which checks the graph

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_runner": None}  # an ONNX Runtime session cannot be copied
