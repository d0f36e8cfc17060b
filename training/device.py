"""The device that an encoder runs on, checked before any work. Imports torch only for a device other than the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.errors import EncoderError
from training.extras import extras
from training.reference import first_line

if TYPE_CHECKING:
    import torch


def check_device(device: str | torch.device) -> None:
    """Check that a device can compute.

    Raises:
        EncoderError: there is no such device.
        MissingExtraError: the device is not the CPU, and PyTorch is not installed.
    """
    if str(device) == "cpu":
        return
    with extras(f"device {str(device)!r}"):
        import torch
    try:
        torch.zeros(1, device=device).cpu()
    except (AssertionError, RuntimeError) as exc:  # AssertionError comes from a torch without CUDA
        raise EncoderError(f"device {str(device)!r} cannot be used here ({first_line(exc)}); use cpu") from exc


def precision_advice(device: str, precision: str) -> str | None:
    """What to do if a processor would emulate a precision, which is several times slower than 32; None otherwise.

    Args:
        device: auto, cpu or gpu.
    """
    import torch

    is_emulated = precision == "bf16-mixed" and torch.backends.cpu.get_cpu_capability() == "AVX2"
    if not is_emulated or device == "gpu" or (device == "auto" and torch.cuda.is_available()):
        return None
    return "this processor has no bfloat16 instructions and emulates bf16-mixed slowly; use --precision 32"
