"""Decode images within a memory budget that all threads of a process share.

What an image will take is estimated from its header and reserved before any pixel is decoded. A reservation that does
not fit waits for others to end, for a short while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from indexer.errors import BusyError
from training.data.cost import decoding_bytes, image_size
from training.data.decode import Decoded, ImageLimits, decode_image
from training.errors import ImageMemoryError

DEFAULT_BYTES = 288 * 2**20  # enough for a PNG of 64 megapixels
PATIENCE = 1.0  # seconds that a reservation waits


class MemoryBudget:
    """Bytes that the threads of a process may hold at once.

    Args:
        limit: bytes in all; also the limit of a single reservation.
        setting: name of the setting that raises the limit, for messages.
        patience: seconds that a reservation waits for others to end.
    """

    def __init__(
        self, limit: int = DEFAULT_BYTES, *, setting: str = "NITAMONO_MAX_DECODE_BYTES", patience: float = PATIENCE
    ) -> None:
        self.limit = limit
        self._setting = setting
        self._patience = patience
        self._used = 0
        self._freed = threading.Condition()

    @property
    def used(self) -> int:
        """Bytes reserved at the moment."""
        return self._used

    @contextmanager
    def reserve(self, count: int) -> Iterator[None]:
        """Hold bytes during the block.

        Raises:
            ImageMemoryError: more than the whole budget.
            BusyError: other reservations left too little room for `patience` seconds.
        """
        if count > self.limit:
            raise ImageMemoryError(
                f"decoding the image needs {count} bytes of memory; the limit is {self.limit} (setting {self._setting})"
            )
        self._acquire(count)
        try:
            yield
        finally:
            with self._freed:
                self._used -= count
                self._freed.notify_all()

    def _acquire(self, count: int) -> None:
        deadline = time.monotonic() + self._patience
        with self._freed:
            while self._used + count > self.limit:
                left = deadline - time.monotonic()
                if left <= 0 or not self._freed.wait(left):
                    raise BusyError("too many large images are being decoded; try again in a few seconds")
            self._used += count


@contextmanager
def decoded(
    data: bytes, *, at_least: int | None, limits: ImageLimits | None, memory: MemoryBudget | None
) -> Iterator[Decoded]:
    """Decode an image; its memory is reserved until the block ends, so drop the pixels there.

    Args:
        memory: the budget; None reserves nothing.

    Raises:
        ImageError: see `decode_image`.
        ImageMemoryError, BusyError: see `MemoryBudget.reserve`.
    """
    if memory is None:
        yield decode_image(data, at_least=at_least, limits=limits)
        return
    limits = limits or ImageLimits()
    limits.check_bytes(len(data))
    count = decoding_bytes(data, at_least)
    if count > memory.limit and (size := image_size(data)) is not None:
        limits.check_pixels(*size)  # the better explanation
    with memory.reserve(count):
        yield decode_image(data, at_least=at_least, limits=limits)
