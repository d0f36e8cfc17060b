"""The registry of encoder families, used by families that contain other encoders to build their parts.

`training.models` fills it. This module imports no family, so that families can import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn


class Family(NamedTuple):
    """A frozen dataclass config, and the `torch.nn.Module` that is built from it.

    Args:
        of_drawings: it takes drawings, as `training.sketches` prepares them, instead of images.
    """

    config: type[Any]
    model: type[Any]
    of_drawings: bool = False


FAMILIES: dict[str, Family] = {}


@dataclass(frozen=True, kw_only=True)
class Part:
    """An encoder inside another one.

    Args:
        family: a name in `FAMILIES`.
        config: values of its config, including `size` and `channels`.
    """

    family: str
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(sorted(FAMILIES))}, not {self.family!r}")
        self.parsed()

    @classmethod
    def of(cls, value: Part | Mapping[str, Any]) -> Part:
        """The part from a part, or from the values in JSON or YAML."""
        return value if isinstance(value, Part) else cls(**value)

    def parsed(self) -> Any:
        """The config as the dataclass of the family; TypeError or ValueError for invalid values."""
        return FAMILIES[self.family].config(**self.config)

    def build(self) -> Any:
        """The untrained model of the part."""
        model: nn.Module = FAMILIES[self.family].model(self.parsed())
        return model
