"""Errors of the training layer.

NitamonoError (ValueError)      printed by the CLI in one line; exit status 1
├── ImageError                  bytes that are not a usable image
│   └── ImageMemoryError        an image that would take more memory than the limit
├── DrawingError                strokes that are not a usable drawing
├── SourceError                 a folder or manifest that cannot be read at all
├── SettingError                an environment variable with an invalid value
├── OutputError                 a file or folder that cannot be written
├── ProcessError                child processes that cannot be started, or that end unexpectedly
├── RecipeError                 a recipe or ``--set`` value that is not valid
├── EncoderError                an encoder directory or reference that is not valid
└── MissingExtraError           a package of an optional extra that is not installed
"""


class NitamonoError(ValueError):
    """Base of all errors for the user: one line that names the thing, the value and the remedy."""


class ImageError(NitamonoError):
    """Bytes that are not a usable image; the message gives the reason, and the caller names the file."""


class ImageMemoryError(ImageError):
    """An image that would take more memory to decode than the limit; the message names the setting."""


class DrawingError(NitamonoError):
    """Strokes that are not a usable drawing; the message gives the reason, and the caller names the drawing."""


class SourceError(NitamonoError):
    """A folder or manifest that cannot be read at all (a single bad row is a `SourceProblem`, not an error)."""


class SettingError(NitamonoError):
    """An environment variable with an invalid value."""


class OutputError(NitamonoError):
    """A file or folder that cannot be written."""


class ProcessError(NitamonoError):
    """Child processes that cannot be started, or that end unexpectedly."""


class RecipeError(NitamonoError):
    """A recipe, or a value set on it, that is not valid."""


class EncoderError(NitamonoError):
    """An encoder reference or directory that is not valid."""


class MissingExtraError(NitamonoError):
    """A package of an optional extra is not installed."""
