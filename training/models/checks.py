"""Checks that the configs of several families share."""

from __future__ import annotations


def check_image(size: int, channels: int) -> None:
    if not 8 <= size <= 1024:
        raise ValueError(f"size must be between 8 and 1024 pixels, not {size}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels}")


def check_at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
