"""The memory budget for decoding: refused above it, shared among threads, and free again afterwards."""

from __future__ import annotations

import io
import threading
import time

import pytest
from PIL import Image

from indexer.decoding import MemoryBudget, decoded
from indexer.errors import BusyError
from training.errors import ImageError, ImageMemoryError


def png(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "navy").save(buffer, "PNG")
    return buffer.getvalue()


def test_an_image_above_the_limit_is_refused_by_its_header_and_names_the_setting() -> None:
    memory = MemoryBudget(10**6, setting="NITAMONO_MAX_DECODE_BYTES")
    with pytest.raises(ImageMemoryError, match="NITAMONO_MAX_DECODE_BYTES"):
        with decoded(png(1000), at_least=96, limits=None, memory=memory):
            pass
    assert memory.used == 0


def test_a_reservation_waits_for_another_to_end() -> None:
    memory = MemoryBudget(100, patience=10)
    order = []
    held = threading.Event()

    def first() -> None:
        with memory.reserve(80):
            held.set()
            time.sleep(0.05)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    held.wait()
    with memory.reserve(80):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert memory.used == 0


def test_a_reservation_gives_up_after_a_short_while() -> None:
    memory = MemoryBudget(100, patience=0.02)
    with memory.reserve(80), pytest.raises(BusyError, match="try again"), memory.reserve(30):
        pass
    assert memory.used == 0


def test_memory_is_free_again_after_a_damaged_image() -> None:
    memory = MemoryBudget(10**8)
    with pytest.raises(ImageError), decoded(png(300)[:-40], at_least=96, limits=None, memory=memory):
        pass
    assert memory.used == 0


def test_the_pixels_are_free_when_the_block_has_dropped_them() -> None:
    memory = MemoryBudget(10**8)
    with decoded(png(300), at_least=None, limits=None, memory=memory) as image:
        assert memory.used > 300 * 300 * 3
        assert image.pixels.shape == (300, 300, 3)
    assert memory.used == 0
