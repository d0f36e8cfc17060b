"""Rates of requests: how they are written in settings, and how they are kept."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
MAX_CLIENTS = 100_000  # that are remembered for each rate; those idle for longest are forgotten
_RATE = re.compile(rf"([1-9][0-9]{{0,8}})/({'|'.join(SECONDS)})")


@dataclass(frozen=True)
class Rate:
    """`count` requests at once, and after that as many again in each `seconds`, evenly spread."""

    count: int
    seconds: int


def parse_rate(text: str) -> Rate | None:
    """Parse a rate such as `600/minute`; None if the text is empty.

    Raises:
        ValueError: the text is not a rate.
    """
    if not (text := text.strip().lower()):
        return None
    if (found := _RATE.fullmatch(text)) is None:
        raise ValueError(f"write a number, / and {', '.join(SECONDS)}, such as 600/minute; leave empty for no limit")
    return Rate(int(found[1]), SECONDS[found[2]])


class Quota(NamedTuple):
    """What a client may still send: `remaining` requests at once, all of them again in `reset` seconds.

    `retry_after` is 0 for a request that is allowed, else the seconds until one is.
    """

    remaining: int
    reset: int
    retry_after: int


class RateLimiter:
    """Counts requests of many clients against a rate.

    By the generic cell rate algorithm (ITU-T I.371, annex A), which keeps one number for each client: the time when it
    has its whole quota again.
    """

    def __init__(self, rate: Rate, max_clients: int = MAX_CLIENTS) -> None:
        self.rate = rate
        self._interval = rate.seconds / rate.count
        self._max_clients = max_clients
        self._whole_at: OrderedDict[str, float] = OrderedDict()

    def hit(self, client: str, now: float) -> Quota:
        """Count a request of a client at a time in seconds, unless it is one too many."""
        whole_at = max(self._whole_at.get(client, now), now)
        too_early = whole_at + self._interval - now - self.rate.seconds
        # Differences of times carry rounding errors, which must not cost a client its last request.
        if too_early > self._interval * 1e-6:
            return Quota(0, math.ceil(whole_at - now), max(1, math.ceil(too_early)))
        whole_at += self._interval
        self._whole_at[client] = whole_at
        self._whole_at.move_to_end(client)
        if len(self._whole_at) > self._max_clients:
            self._whole_at.popitem(last=False)
        left = (self.rate.seconds - (whole_at - now)) / self._interval
        return Quota(max(0, math.floor(left + 1e-6)), math.ceil(whole_at - now), 0)
