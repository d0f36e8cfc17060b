"""`nitamono demo-flow`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.commands.options import SeedOption
from training.console import JsonOption, progress_bar, say


def demo_flow(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the pictures.")],
    steps: Annotated[int, typer.Option(min=1, max=64, help="Number of couplings.")] = 8,
    hidden: Annotated[int, typer.Option(min=1, max=1024, help="Units of each hidden layer of a coupling.")] = 64,
    permutation: Annotated[
        str, typer.Option(help="Between two couplings: reverse, random or 1x1 (an invertible linear map).")
    ] = "reverse",
    actnorm: Annotated[bool, typer.Option(help="Normalise before each coupling, as Glow does.")] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training points.")] = 40,
    points: Annotated[int, typer.Option(min=100, max=1_000_000, help="Number of training points.")] = 20_000,
    seed: SeedOption = 0,
    json_output: JsonOption = False,
) -> None:
    """Train a flow on two moons and draw it step by step.

    Writes forward.gif (points become Gaussian noise) and inverse.gif (noise becomes points), one step of the flow after
    the other; density.png (the flow's density beside the true one); and samples.png (true points beside samples).
    Prints the negative log-density of held-out points, and that of the true density, which no model can beat on
    average.

    \b
    Examples:
      nitamono demo-flow --out flow
      nitamono demo-flow --out flow --permutation 1x1 --actnorm --steps 4
    """
    from training.files import check_output_folder
    from training.flow_demo import MoonPlan, run_demo

    plan = MoonPlan(steps, hidden, permutation, actnorm, epochs, points, seed)
    check_output_folder(out)
    with progress_bar("training", "epoch") as progress:
        progress.started(epochs)
        document = run_demo(plan, out, advance=progress.advance)
    say(
        document,
        json_output,
        f"{out}: {document['nats']:.4f} nats per held-out point, {document['true_nats']:.4f} under the true density",
    )
