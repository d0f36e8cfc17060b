"""Host names in headers and settings."""

from __future__ import annotations

import ipaddress
import re

_ENTRY = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def host_name(host: str) -> str:
    """The name in a `Host` header: without port, in lower case, without the dot of the root."""
    name = host.strip().lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0].removesuffix(".")


def is_address(name: str) -> bool:
    """Whether a name in a `Host` header is an IP address; IPv6 needs its brackets."""
    try:
        if name.startswith("["):
            ipaddress.IPv6Address(name[1:-1])
        else:
            ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True


def parse_hosts(text: str) -> tuple[str, ...]:
    """Parse a comma-separated allow-list.

    Raises:
        ValueError: an entry is not a host name, `*.` and a name, or `*`.
    """
    entries = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for entry in entries:
        if not (_ENTRY.fullmatch(entry) or is_address(entry)):
            raise ValueError(f"{entry!r} is not a host name; write names without scheme and port, *.NAME, or *")
    return entries
