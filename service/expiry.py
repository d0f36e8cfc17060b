"""When API keys expire: durations and dates as they are written on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from indexer.errors import InvalidRequestError

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LONGEST = timedelta(days=36_500)
_DURATION = re.compile(r"([0-9]{1,8})([mhdw])")


def parse_duration(field: str, text: str, *, otherwise: str = "") -> timedelta:
    """Parse a duration such as `90d`: a whole number of minutes, hours, days or weeks.

    Args:
        otherwise: what else the field may be, for the message.

    Raises:
        InvalidRequestError: the text is no duration, or one of more than 100 years.
    """
    found = _DURATION.fullmatch(text)
    duration = timedelta(**{UNITS[found[2]]: int(found[1])}) if found else None
    if duration is None or duration > LONGEST:
        raise InvalidRequestError(
            field,
            f"{field} {text!r} must be a number and a unit, m, h, d or w, such as 12h or 90d (up to 100 years)"
            f"{otherwise}",
        )
    return duration


def parse_expiry(text: str, now: datetime) -> datetime:
    """Parse the end of a key's validity: a duration from now, or an ISO 8601 date or time.

    Args:
        text: a date means its first moment; UTC unless the time names a time zone.

    Raises:
        InvalidRequestError: the text is neither, or the time has passed or is more than 100 years away.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        if text[:1].isdecimal() and "-" in text:
            raise InvalidRequestError("expires", f"expires {text!r} is not an ISO date such as 2027-01-31") from None
        moment = now + parse_duration("expires", text, otherwise=", or an ISO date such as 2027-01-31")
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    if not now < moment <= now + LONGEST:
        raise InvalidRequestError("expires", f"expires {text!r} must be in the future, and within 100 years")
    return moment
