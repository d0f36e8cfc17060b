"""What a source consists of: images, and the rows and files that cannot become images."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from training.data.texts import shown


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image of one item, as described by its source; the image file has not been read yet.

    Args:
        file: absolute path of the image. A `Path` for each of a million files would take most of the time and memory
            of reading a folder.
        uri: the image's name in a catalogue that keeps a copy; None for an image that stays where it is.
        mask_uri: the same for the mask.
    """

    item_id: str
    file: str
    title: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    mask: Path | None = None
    where: str = ""
    uri: str | None = None
    mask_uri: str | None = None

    @property
    def path(self) -> Path:
        return Path(self.file)

    @property
    def stored_as(self) -> str:
        """The name under which a catalogue stores the image."""
        return self.uri or self.file

    @property
    def mask_stored_as(self) -> str | None:
        return self.mask_uri or (str(self.mask) if self.mask else None)

    @property
    def category(self) -> str | None:
        return self.attributes.get("category")


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """A row or file that cannot become a `SourceImage`: where it is, and how to correct it.

    The texts are made visible and cut, so that they can be printed and stored whatever the source contains.

    Args:
        hides: whether images of unknown items may be behind it, as in a folder that cannot be read.
    """

    where: str
    reason: str
    item_id: str | None = None
    image: str | None = None
    hides: bool = False

    def __post_init__(self) -> None:
        for name in ("where", "reason", "item_id", "image"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, shown(value))


Entry = SourceImage | SourceProblem
