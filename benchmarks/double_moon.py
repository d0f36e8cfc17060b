"""Flows on the double moon, beside those of two other libraries: `python benchmarks/double_moon.py`.

Needs `pip install zuko normflows`. All flows have the same number of couplings with networks of the same layers, see
the same points in the same order, and are fitted by the same optimiser and schedule (`training.fitting.density`), which
keeps each one's best epoch on the held-out points. Prints a Markdown table of nats per held-out point, and of the true
density.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import normflows
import torch
import zuko
from torch import Tensor, nn

from training.double_moon import double_moon, log_density
from training.fitting.density import DensitySettings, fit_density
from training.layers.vector_flow import VectorFlow, VectorFlowConfig

HELD_OUT = 20_000


class Zuko(nn.Module):
    """A flow of zuko, with `log_prob` on the module itself."""

    def __init__(self, steps: int, hidden: int) -> None:
        super().__init__()
        self.flow = zuko.flows.RealNVP(2, transforms=steps, hidden_features=(hidden, hidden))

    def log_prob(self, x: Tensor) -> Tensor:
        log_prob: Tensor = self.flow().log_prob(x)
        return log_prob


def build_normflows(steps: int, hidden: int) -> Any:
    """The Real NVP of normflows' own example: couplings whose networks start at zero, with swapped halves."""
    layers: list[Any] = []
    for _ in range(steps):
        network = normflows.nets.MLP([1, hidden, hidden, 2], init_zeros=True)
        layers += [normflows.flows.AffineCouplingBlock(network), normflows.flows.Permute(2, mode="swap")]
    return normflows.NormalizingFlow(normflows.distributions.base.DiagGaussian(2, trainable=False), layers)


def builders(steps: int, hidden: int) -> dict[str, Callable[[], Any]]:
    ours: dict[str, Any] = {"steps": steps, "hidden": (hidden, hidden)}
    return {
        "real-nvp": lambda: VectorFlow(VectorFlowConfig(**ours)),
        "glow (1x1, actnorm)": lambda: VectorFlow(VectorFlowConfig(**ours, permutation="1x1", actnorm=True)),
        "zuko `RealNVP`": lambda: Zuko(steps, hidden),
        "normflows Real NVP": lambda: build_normflows(steps, hidden),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8, help="couplings")
    parser.add_argument("--hidden", type=int, default=64, help="units of each of the two hidden layers")
    parser.add_argument("--points", type=int, default=20_000, help="training points")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--lr", type=float, default=DensitySettings().lr)
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args()
    nats: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    parameters: dict[str, int] = {}
    true = []
    for seed in range(asked.seeds):
        noise = torch.Generator().manual_seed(seed)
        train, held_out = double_moon(asked.points, noise).x, double_moon(HELD_OUT, noise).x
        true.append(-float(log_density(held_out).double().mean()))
        for name, build in builders(asked.steps, asked.hidden).items():
            torch.manual_seed(seed)
            flow, started = build(), time.monotonic()
            fit = fit_density(flow, train, held_out, DensitySettings(epochs=asked.epochs, lr=asked.lr, seed=seed))
            seconds.setdefault(name, []).append(time.monotonic() - started)
            nats.setdefault(name, []).append(fit.nats)
            parameters[name] = sum(each.numel() for each in flow.parameters() if each.requires_grad)
            print(f"seed {seed}, {name}: {fit.nats:.4f}", flush=True)
    print("\n| flow | parameters | nats per held-out point | seconds |\n|---|---|---|---|")
    for name, values in nats.items():
        listed, took = ", ".join(f"{value:.4f}" for value in values), ", ".join(f"{each:.0f}" for each in seconds[name])
        print(f"| {name} | {parameters[name]:,} | {listed} | {took} |")
    print(f"| true density | | {', '.join(f'{value:.4f}' for value in true)} | |")


if __name__ == "__main__":
    main()
