"""Options that several commands on models share."""

from __future__ import annotations

from typing import Annotated

import typer

EncoderOption = Annotated[str, typer.Option(help="Encoder directory or name.")]
DeviceOption = Annotated[str, typer.Option(help="Device to run the model on: cpu, cuda or cuda:N.")]
SeedOption = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed.")]
TemperatureOption = Annotated[
    float,
    typer.Option(min=0, help="Sampling temperature: below 1 for likelier images, 0 for the most probable values."),
]
