"""Checks shared by the configs of several families; each raises ValueError."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from training.layers.search import Turn


def check_image(size: int, channels: int) -> None:
    if not 8 <= size <= 1024:
        raise ValueError(f"size must be between 8 and 1024 pixels, not {size}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels}")


def check_at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(choices)}, not {value!r}")


def check_search(search_dim: int | None, latent_dim: int, whitening: float, turn: str) -> None:
    if search_dim is not None and not 1 <= search_dim <= latent_dim:
        raise ValueError(f"search_dim must be between 1 and the latent's size ({latent_dim}), not {search_dim}")
    check_share("whitening", whitening)
    check_choice("turn", turn, get_args(Turn))


def check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be between 0 and 1, not {value}")
