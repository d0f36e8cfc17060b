"""Errors of the service layer.

NitamonoError
└── ServiceError
    ├── SettingsError           an invalid setting
    ├── AddressError            a host and port that the server cannot listen on
    ├── HostError               a host name that the server does not answer to
    ├── AuthenticationError     a required API key that is missing, unknown, revoked or expired
    ├── ForbiddenError          an API key with insufficient scope; `.scope` is the required one
    ├── TooLargeError           a request body over the limit
    ├── RateLimitError          more requests from one key or address than allowed; `.retry_after` in seconds
    ├── MediaTypeError          a request body of an unsupported type
    ├── OverloadedError         more requests than the server can work on
    ├── RequestTimeoutError     a request body that arrives too slowly
    └── NotReadyError           no collection can be searched yet
"""

from training.errors import NitamonoError


class ServiceError(NitamonoError):
    """Base class of the service's errors."""


class SettingsError(ServiceError):
    """An invalid setting."""


class AddressError(ServiceError):
    """A host and port that the server cannot listen on."""


class HostError(ServiceError):
    """A host name that the server does not answer to."""


class AuthenticationError(ServiceError):
    """A required API key that is missing, unknown, revoked or expired; `given` says whether the request has one."""

    def __init__(self, message: str, *, given: bool = False) -> None:
        super().__init__(message)
        self.given = given


class ForbiddenError(ServiceError):
    """An API key with insufficient scope."""

    def __init__(self, scope: str, message: str) -> None:
        super().__init__(message)
        self.scope = scope


class TooLargeError(ServiceError):
    """A request body over the limit."""


class RateLimitError(ServiceError):
    """More requests from one key or address than its rate limit allows."""

    def __init__(self, retry_after: int, message: str) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class MediaTypeError(ServiceError):
    """A request body of an unsupported type."""


class OverloadedError(ServiceError):
    """More requests than the server can work on; the client should try again later."""


class RequestTimeoutError(ServiceError):
    """A request body that arrives too slowly."""


class NotReadyError(ServiceError):
    """No collection can be searched yet."""
