"""The registry of encoder families, which families that are made of others look their parts up in.

`training.models` fills it; this module imports no family, so that a family may import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn


class Family(NamedTuple):
    """A frozen dataclass config, and the `torch.nn.Module` that is built from it alone."""

    config: type[Any]
    model: type[Any]


FAMILIES: dict[str, Family] = {}


@dataclass(frozen=True, kw_only=True)
class Part:
    """An encoder inside another one.

    Args:
        family: its name in `FAMILIES`.
        config: values of its config, `size` and `channels` included.
    """

    family: str
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(sorted(FAMILIES))}, not {self.family!r}")
        self.parsed()

    @classmethod
    def of(cls, value: Part | Mapping[str, Any]) -> Part:
        """A part of what JSON or YAML holds."""
        return value if isinstance(value, Part) else cls(**value)

    def parsed(self) -> Any:
        """The part's config as its family's dataclass; raises TypeError or ValueError for values that do not fit."""
        return FAMILIES[self.family].config(**self.config)

    def build(self) -> Any:
        """The part's model, untrained."""
        model: nn.Module = FAMILIES[self.family].model(self.parsed())
        return model
