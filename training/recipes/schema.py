"""The schema of a recipe: its sections, their settings and ranges. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from training.data.sources import MaskSource
from training.preprocessing import Fit, Preprocessing
from training.recipes.objective import Objective
from training.recipes.section import Section


class PreprocessingSettings(Section):
    """See `training.preprocessing.Preprocessing`."""

    size: int = Field(64, ge=8, le=1024)
    channels: int = Field(3, ge=1, le=3)
    fit: Fit = "stretch"

    def build(self) -> Preprocessing:
        return Preprocessing(self.size, self.channels, self.fit)


class Optimiser(Section):
    """AdamW; the learning rate rises over `warmup_steps` and decays along a cosine to `final_lr` times `lr`."""

    lr: float = Field(1e-3, gt=0)
    final_lr: float = Field(0.01, ge=0, le=1)
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: float | None = Field(
        200.0, gt=0, description="largest gradient norm; large, as the loss is a sum over pixels"
    )
    backbone_lr: float = Field(
        0.1, gt=0, le=1, description="learning rate of a backbone's tuned levels, as a fraction of lr"
    )


class Augment(Section):
    """Random augmentation of every training image in every epoch; see `training.fitting.augment`."""

    flip: bool = Field(True, description="mirror half of the images")
    crop: float = Field(
        1.0, ge=0.25, le=1, description="smallest side of a random crop, as a fraction; 1 does not crop"
    )
    aspect: float = Field(1.0, ge=1, le=2, description="largest ratio between the side fractions of a crop")
    rotate: float = Field(0.0, ge=0, le=180, description="largest rotation in degrees, either way")
    scale: float = Field(0.0, ge=0, le=0.75, description="largest change of scale; 0.2 is 80 % to 120 %")
    translate: float = Field(0.0, ge=0, le=0.5, description="largest shift across and down, as a fraction of the side")
    shear: float = Field(0.0, ge=0, le=45, description="largest shear in degrees, across and down")
    perspective: float = Field(0.0, ge=0, le=0.5, description="largest perspective distortion")
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    saturation: float = Field(0.0, ge=0, le=1)
    hue: float = Field(0.0, ge=0, le=0.5, description="largest change of hue, as a fraction of the colour circle")
    grey: float = Field(0.0, ge=0, le=1, description="fraction of images converted to grey")
    blur: float = Field(0.0, ge=0, le=8, description="largest standard deviation of the blur in pixels")
    erase: float = Field(
        0.0, ge=0, le=1, description="fraction of images with a rectangle erased from the encoder's input only"
    )
    edges: float = Field(0.0, ge=0, le=1, description="fraction of images that the encoder sees as drawings of edges")


class DrawingSettings(Section):
    """How drawings are prepared, and changed anew in every epoch; see `training.sketches`."""

    longest: int = Field(128, ge=2, le=1000, description="rows of a drawing: its points and the end")
    epsilon: float = Field(2.0, ge=0, le=255, description="simplification, in 255ths of the drawing's longer side")
    scale: float = Field(0.15, ge=0, lt=1, description="largest random change of width and of height, as a fraction")
    drop: float = Field(0.1, ge=0, lt=1, description="fraction of the points inside of strokes that are dropped")
    rotate: float = Field(0.0, ge=0, le=180, description="largest rotation in degrees, either way")
    shear: float = Field(0.0, ge=0, le=45, description="largest slant in degrees, either way")
    warp: float = Field(
        0.0, ge=0, le=0.25, description="largest shift by a smooth distortion, as a fraction of the longer side"
    )
    order: float = Field(
        0.0, ge=0, le=1, description="fraction of drawings whose strokes the encoder sees in random order"
    )
    reverse: float = Field(
        0.0, ge=0, le=1, description="fraction of strokes that the encoder sees drawn from their other end"
    )


class BackgroundKinds(Section):
    """Relative frequency of each kind of background; `folder` only counts if `backgrounds.folder` is set."""

    flat: float = Field(1.0, ge=0)
    gradient: float = Field(1.0, ge=0)
    texture: float = Field(2.0, ge=0)
    white: float = Field(0.0, ge=0, description="white, as painted by the item finder")
    photos: float = Field(2.0, ge=0, description="backgrounds of other training photos")
    studio: float = Field(2.0, ge=0, description="synthetic rooms")
    folder: float = Field(8.0, ge=0)


class HardBackgrounds(Section):
    """Choose the background that moves the latent furthest; see `training.fitting.views`."""

    candidates: int = Field(
        4, ge=2, le=64, description="backgrounds tried per image; costs candidates + 1 encoder passes"
    )
    share: float = Field(0.5, gt=0, le=1, description="fraction of the replaced backgrounds that are chosen this way")


class Backgrounds(Section):
    """Random backgrounds behind the items of training images; see `training.data.backgrounds`."""

    probability: float = Field(0.9, ge=0, le=1, description="fraction of the images whose background is replaced")
    count: int = Field(512, ge=2, le=20_000, description="number of backgrounds, drawn once per run")
    kinds: BackgroundKinds = BackgroundKinds()
    folder: str | None = Field(None, description="folder of background photos or textures")
    rough: float = Field(
        0.0,
        ge=0,
        le=8,
        description="pixels by which masks are randomly grown, shrunk and blurred, to imitate a finder's errors",
    )
    feather: float = Field(0.7, ge=0, le=8, description="largest blur of the item's edge in pixels")
    light: float = Field(
        0.5, ge=0, le=1, description="largest fraction by which a background's light is matched to the item's"
    )
    shadow: float = Field(0.3, ge=0, le=1, description="largest darkness of the item's shadow")
    hard: HardBackgrounds | None = None


class Progressive(Section):
    """Train on smaller images first; see `training.fitting.views`."""

    size: int = Field(ge=8, le=1024, description="side of the encoder's input at first, below preprocessing.size")
    after: float = Field(0.67, gt=0, lt=1, description="fraction of the epochs after which images have full size")


class PriorFit(Section):
    """How the `pixel-cnn` prior of a VQ model is fitted in the second stage."""

    epochs: int = Field(60, ge=1)
    patience: int | None = Field(
        10, ge=1, description="epochs without improvement of the held-out objective before stopping"
    )
    ema: float | None = Field(
        0.99, gt=0, lt=1, description="decay of the moving average of the weights, which ships; null ships the weights"
    )
    optimiser: Optimiser = Optimiser(lr=2e-3)


class ItemFirstSettings(Section):
    """An item finder in front of the encoder; see `training.models.item_first`."""

    size: int = Field(192, ge=96, le=1024, description="side in pixels of the images that items are cropped from")
    margin: float = Field(0.08, ge=0, le=1, description="margin around the item, as a fraction of its longer side")
    passes: int = Field(1, ge=1, le=2, description="passes of the finder")
    paint: float = Field(1.0, ge=0, le=1, description="how white the background becomes before encoding")
    spare_plain: bool = Field(False, description="leave a plain background unpainted")
    beside: float = Field(0.0, ge=0, lt=1, description="weight of the whole photo's vector beside the item's")


class Recipe(Section):
    """A model and how it is trained."""

    name: str
    description: str
    family: str
    preprocessing: PreprocessingSettings = PreprocessingSettings()
    drawings: DrawingSettings | None = Field(None, description="of drawings, for family sketch-rnn")
    item_first: ItemFirstSettings | None = Field(
        None, description="train on photos cropped by the item finder, and ship the encoder with the finder in front"
    )
    model: dict[str, Any] = {}
    backbone_weights: str | None = Field(
        None, description="state dict of model.backbone (.safetensors or torch.save); null for the installed package"
    )
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(128, ge=2)
    validation: float = Field(0.1, gt=0, lt=1, description="fraction of the items held out")
    patience: int | None = Field(
        None, ge=1, description="epochs without improvement of the held-out objective before stopping"
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of the moving average of the weights, which ships; null ships the weights"
    )
    seed: int = Field(0, ge=0, lt=2**32)
    weights: Literal["float32", "float16"] = Field(
        "float32", description="storage type of the weights; float16 halves the file and rounds weights to three digits"
    )
    deterministic: bool = Field(False, description="bit-identical weights from equal runs on one machine; slower")
    max_minutes: float | None = Field(
        None, gt=0, description="stop cleanly after this many minutes of fitting; the second stage has as many again"
    )
    pictures_every: int = Field(10, ge=1, description="epochs between pictures of reconstructions and samples")
    optimiser: Optimiser = Optimiser()
    augment: Augment = Augment()
    masks: tuple[MaskSource, ...] = Field(
        ("column", "alpha", "border", "finder"), description="sources of item masks, in order of preference"
    )
    backgrounds: Backgrounds | None = None
    objective: Objective = Objective()
    progressive: Progressive | None = None
    prior: PriorFit = PriorFit()

    def for_prior(self) -> Recipe:
        """The recipe of the second stage, which fits the prior over codes on whole photos without further objectives.

        Backgrounds are only replaced if they condition the model.
        """
        fit, backgrounds = self.prior, None
        if self.backgrounds is not None and self.is_conditioned_on_backgrounds:
            backgrounds = self.backgrounds.model_copy(update={"hard": None})
        return self.model_copy(
            update={
                "epochs": fit.epochs,
                "patience": fit.patience,
                "ema": fit.ema,
                "optimiser": fit.optimiser,
                "objective": Objective(condition=self.objective.condition),
                "progressive": None,
                "augment": self.augment.model_copy(update={"erase": 0.0, "edges": 0.0}),
                "backgrounds": backgrounds,
                "pictures_every": fit.epochs + 1,
            }
        )

    def photo_preprocessing(self) -> Preprocessing:
        """The preprocessing of photos before items are cropped from them."""
        settings = self.preprocessing
        size = settings.size if self.item_first is None else self.item_first.size
        return Preprocessing(size, settings.channels, settings.fit)

    @model_validator(mode="after")
    def _colours_for_the_finder(self) -> Self:
        if self.item_first is not None and self.preprocessing.channels != 3:
            raise ValueError("preprocessing.channels must be 3 with item_first, as the finder needs colour")
        return self

    @model_validator(mode="after")
    def _smaller_at_first(self) -> Self:
        if self.progressive is not None and self.progressive.size >= self.preprocessing.size:
            raise ValueError(
                f"progressive.size must be below preprocessing.size ({self.preprocessing.size}), "
                f"not {self.progressive.size}"
            )
        return self

    @model_validator(mode="after")
    def _all_epochs_when_progressive(self) -> Self:
        if self.progressive is None:
            return self
        if self.max_minutes is not None or self.patience is not None:
            raise ValueError(
                "max_minutes and patience must be null with progressive: a shortened run might never reach full size"
            )
        if self.epochs < 2:
            raise ValueError(f"epochs must be at least 2 with progressive, not {self.epochs}")
        return self

    @model_validator(mode="after")
    def _mined_in_time(self) -> Self:
        mined = self.objective.mined
        if mined is not None and mined.start >= self.epochs:
            raise ValueError(f"objective.mined.start must be below epochs ({self.epochs}), not {mined.start}")
        return self

    @model_validator(mode="after")
    def _items_for_all_prototypes(self) -> Self:
        requested, share = self.objective.prototypes, self.objective.shape_share
        items = round(self.batch_size * (1.0 if share == 0 else min(share, 1.0 - share)))
        if requested is not None and requested.count > items:
            raise ValueError(
                f"objective.prototypes.count must be at most {items}, the number of items in a batch that a part of "
                f"the latent is compared over, not {requested.count}"
            )
        return self

    def size_shown(self, epoch: int) -> int:
        """Side of the encoder's input in an epoch; 0 is the first."""
        first = self.progressive
        if first is not None and epoch < min(first.after * self.epochs, self.epochs - 1):
            return first.size
        return self.preprocessing.size

    @property
    def is_conditioned_on_backgrounds(self) -> bool:
        return self.objective.condition == "background"

    @property
    def needs_masks(self) -> bool:
        objective = self.objective
        needed = objective.clean_target or objective.foreground_weight < 1 or objective.foreground > 0
        return self.backgrounds is not None or needed

    def model_config_values(self) -> dict[str, Any]:
        """The values of the family's config."""
        if self.drawings is not None:
            return {"longest": self.drawings.longest, **self.model}
        return {"size": self.preprocessing.size, "channels": self.preprocessing.channels, **self.model}
