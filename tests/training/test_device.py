"""Advice about a precision that the processor emulates."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import write_photos
from training.device import precision_advice


@pytest.mark.parametrize(
    ("capability", "device", "precision", "is_advised"),
    [
        ("AVX2", "cpu", "bf16-mixed", True),
        ("AVX2", "auto", "bf16-mixed", not torch.cuda.is_available()),
        ("AVX2", "gpu", "bf16-mixed", False),
        ("AVX2", "cpu", "32", False),
        ("AVX512", "cpu", "bf16-mixed", False),
    ],
)
def test_a_processor_without_bfloat16_is_told_where_it_would_emulate_it(
    monkeypatch: pytest.MonkeyPatch, capability: str, device: str, precision: str, is_advised: bool
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert (precision_advice(device, precision) is not None) is is_advised


def test_training_prints_the_advice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from training.commands.train import train

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    settings = ["preprocessing.size=16", "epochs=1", "batch_size=8", "patience=null", "optimiser.warmup_steps=1"]
    train(
        "ae", [write_photos(tmp_path / "photos", 16)], tmp_path / "out", settings, device="cpu", precision="bf16-mixed"
    )
    assert "use --precision 32" in capsys.readouterr().err
