"""Errors of the training layer.

NitamonoError (ValueError)      what the CLI prints in one line; exit status 1
├── ImageError                  bytes that are no image we can use
├── SourceError                 a folder or manifest that cannot be read at all
├── OutputError                 a file or folder that cannot be written
├── ReadingError                reading processes that cannot be started
├── RecipeError                 a recipe or ``--set`` value that is not valid
├── EncoderError                an encoder directory or reference that is not valid
└── MissingExtraError           a package of an optional extra that is not installed
"""


class NitamonoError(ValueError):
    """Base of all errors meant for the person at the keyboard: one line naming the thing, the value and the remedy."""


class ImageError(NitamonoError):
    """Bytes that are not an image we accept; the message says why, without naming the file (the caller knows it)."""


class SourceError(NitamonoError):
    """A folder or manifest that cannot be read at all (single bad rows are `SourceProblem`s, not errors)."""


class OutputError(NitamonoError):
    """A file or folder that was asked for cannot be written."""


class ReadingError(NitamonoError):
    """The processes that read images cannot be started."""


class RecipeError(NitamonoError):
    """A recipe, or a value set on it, that is not valid."""


class EncoderError(NitamonoError):
    """An encoder reference or directory that is not valid."""


class MissingExtraError(NitamonoError):
    """A package of an optional extra is not installed."""
