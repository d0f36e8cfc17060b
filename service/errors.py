"""Errors of the service layer.

NitamonoError
└── ServiceError
    ├── SettingsError           a setting that cannot be
    ├── AddressError            a host and port that cannot be listened on
    ├── AuthenticationError     no API key where one is needed, or one that is unknown or revoked
    ├── ForbiddenError          an API key whose scope is too small; `.scope` names the one that is needed
    ├── TooLargeError           a request body over the limit
    ├── MediaTypeError          a request body of a type that the route does not read
    └── NotReadyError           nothing can be searched yet
"""

from training.errors import NitamonoError


class ServiceError(NitamonoError):
    """Base of the service's errors."""


class SettingsError(ServiceError):
    """A setting that cannot be."""


class AddressError(ServiceError):
    """A host and port that cannot be listened on."""


class AuthenticationError(ServiceError):
    """No API key where one is needed, or one that is unknown or revoked."""


class ForbiddenError(ServiceError):
    """An API key whose scope is too small for the request."""

    def __init__(self, scope: str, message: str) -> None:
        super().__init__(message)
        self.scope = scope


class TooLargeError(ServiceError):
    """A request body over the limit."""


class MediaTypeError(ServiceError):
    """A request body of a type that the route does not read."""


class NotReadyError(ServiceError):
    """Nothing can be searched yet."""
