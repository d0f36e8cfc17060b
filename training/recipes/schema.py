"""What a recipe may say: its sections, their settings and ranges. Imports no torch."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.data.sources import MaskSource
from training.preprocessing import Fit, Preprocessing


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PreprocessingSettings(Section):
    """See `training.preprocessing.Preprocessing`."""

    size: int = Field(64, ge=8, le=1024)
    channels: int = Field(3, ge=1, le=3)
    fit: Fit = "stretch"

    def build(self) -> Preprocessing:
        return Preprocessing(self.size, self.channels, self.fit)


class Optimiser(Section):
    """AdamW; the rate rises over `warmup_steps` and falls along a cosine to `final_lr` of itself."""

    lr: float = Field(1e-3, gt=0)
    final_lr: float = Field(0.01, ge=0, le=1)
    warmup_steps: int = Field(100, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: float | None = Field(200.0, gt=0, description="largest gradient norm; the loss is a sum over pixels")
    backbone_lr: float = Field(0.1, gt=0, le=1, description="rate of a backbone's tuned levels, as a share of lr")


class Augment(Section):
    """Changes made to each training image, newly in every epoch; see `training.fitting.augment`."""

    flip: bool = Field(True, description="mirror half of them")
    crop: float = Field(1.0, ge=0.25, le=1, description="least share of the side that a random crop keeps; 1 is none")
    aspect: float = Field(1.0, ge=1, le=2, description="most that a crop's sides differ in their shares")
    rotate: float = Field(0.0, ge=0, le=180, description="most degrees of a turn, either way")
    scale: float = Field(0.0, ge=0, le=0.75, description="most that an image grows or shrinks; 0.2 is 80 % to 120 %")
    translate: float = Field(0.0, ge=0, le=0.5, description="most of the side that an image moves, across and down")
    shear: float = Field(0.0, ge=0, le=45, description="most degrees of a slant, across and down")
    perspective: float = Field(0.0, ge=0, le=0.5, description="most that one side comes nearer than the other")
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    saturation: float = Field(0.0, ge=0, le=1)
    hue: float = Field(0.0, ge=0, le=0.5, description="most of the colour circle that colours turn by")
    grey: float = Field(0.0, ge=0, le=1, description="share of images that lose their colour")
    blur: float = Field(0.0, ge=0, le=8, description="standard deviation in pixels of the strongest blur")
    erase: float = Field(0.0, ge=0, le=1, description="share of images with a rectangle hidden from the encoder alone")


class BackgroundKinds(Section):
    """How often each kind of background is drawn, to the sum of all; `folder` counts only where there is one."""

    flat: float = Field(1.0, ge=0)
    gradient: float = Field(1.0, ge=0)
    texture: float = Field(2.0, ge=0)
    white: float = Field(0.0, ge=0, description="as the item finder leaves it")
    photos: float = Field(2.0, ge=0, description="what is behind the items of other training photos")
    studio: float = Field(2.0, ge=0, description="drawn rooms")
    folder: float = Field(8.0, ge=0)


class HardBackgrounds(Section):
    """Of several backgrounds the one that moves the latent furthest; see `training.fitting.views`."""

    candidates: int = Field(
        4, ge=2, le=64, description="backgrounds tried per picture; costs candidates + 1 encoder passes"
    )
    share: float = Field(0.5, gt=0, le=1, description="share of the replaced backgrounds that are chosen so")


class Backgrounds(Section):
    """Random backgrounds behind the items of training images; see `training.data.backgrounds`."""

    probability: float = Field(0.9, ge=0, le=1, description="share of the images whose background is replaced")
    count: int = Field(512, ge=2, le=20_000, description="backgrounds drawn once for the run")
    kinds: BackgroundKinds = BackgroundKinds()
    folder: str | None = Field(None, description="folder of background photos or textures")
    rough: float = Field(
        0.0, ge=0, le=8, description="pixels by which masks are grown, shrunk and blurred at random, as a finder errs"
    )
    feather: float = Field(0.7, ge=0, le=8, description="pixels that the item's edge is softened by at most")
    light: float = Field(0.5, ge=0, le=1, description="most that a background's light goes towards the item's")
    shadow: float = Field(0.3, ge=0, le=1, description="darkest shadow of the item on its background")
    hard: HardBackgrounds | None = None


class Contrastive(Section):
    """InfoNCE between the latents of two views of each item; see `training.objectives`."""

    weight: float = Field(gt=0, description="nats of the objective per nat of InfoNCE")
    temperature: float = Field(0.1, gt=0)
    shape_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the latent, and of the pairs, that is contrasted in strange colours and so holds shapes",
    )
    projection: int | None = Field(None, ge=2, description="width of a head between latents and cosine; it never ships")

    @model_validator(mode="after")
    def _one_head(self) -> Self:
        if self.shape_share > 0 and self.projection is not None:
            raise ValueError(
                "projection must be null beside a shape_share: the parts of the latent have no common head"
            )
        return self


class Teacher(Section):
    """A moving average of the weights as the teacher of the weights themselves; see `training.objectives.teacher`."""

    weight: float = Field(gt=0, description="nats of the objective per nat of KL from the teacher's posterior")
    decay: float = Field(0.99, gt=0, lt=1, description="of the average after each step; it rises to this at first")


class Prototypes(Section):
    """Views of an item belong to the same prototypes; see `training.objectives.prototypes`."""

    count: int = Field(64, ge=2, le=65_536, description="prototypes; at most as many as items in a batch")
    weight: float = Field(gt=0, description="nats of the objective per nat of the cross-entropy")
    temperature: float = Field(0.1, gt=0)
    epsilon: float = Field(0.05, gt=0, description="how soft the assignments of a batch are")
    iterations: int = Field(3, ge=1, le=100, description="of Sinkhorn and Knopp; each balances the assignments more")


class SmallViews(Section):
    """Parts of a picture that are compared with its whole views; see `training.objectives.small_views`."""

    count: int = Field(
        2, ge=1, le=16, description="small views per pair, taken alternately from its first and second photo"
    )
    least: float = Field(0.3, ge=0.05, le=1, description="least share of the side that one shows")
    most: float = Field(0.6, ge=0.05, le=1, description="largest share of the side that one shows")
    size: int | None = Field(None, ge=8, le=1024, description="pixels of its side; none is the model's own size")

    @model_validator(mode="after")
    def _from_least_to_most(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least must be at most most ({self.most}), not {self.least}")
        return self


class Mined(Section):
    """Items that are one another's nearest lend each other second views; see `training.fitting.mining`."""

    every: int = Field(5, ge=1, description="epochs after which neighbours are looked for again")
    neighbours: int = Field(5, ge=1, le=100, description="k: two photos are neighbours where each is in the other's k")
    share: float = Field(0.5, ge=0, le=1, description="share of the second views, where there are neighbours")
    start: int = Field(10, ge=1, description="epochs before the first time: latents must mean something by then")


class Objective(Section):
    """What is asked of the latents besides the family's own objective; see `training.objectives`."""

    clean_target: bool = Field(False, description="the likelihood is of the item on white, whatever it stood on")
    foreground_weight: float = Field(1.0, ge=0, le=1, description="weight of background pixels in the likelihood")
    consistency: float = Field(0.0, ge=0, description="weight of the KL between the posteriors of two views")
    contrastive: Contrastive | None = None
    teacher: Teacher | None = None
    prototypes: Prototypes | None = None
    small_views: SmallViews | None = None
    mined: Mined | None = None
    foreground: float = Field(
        0.0, ge=0, description="weight of the nats by which the encoder's guess of the item's pixels misses the masks"
    )
    other_photo: float = Field(0.5, ge=0, le=1, description="share of second views from another photo of the item")
    condition: str | None = Field(None, description="category, item_id, background, or an attribute of the items")

    @property
    def has_two_views(self) -> bool:
        over_two = (self.contrastive, self.teacher, self.prototypes)
        return self.consistency > 0 or any(term is not None for term in over_two)

    @model_validator(mode="after")
    def _views_to_mine_for(self) -> Self:
        if self.mined is not None and not self.has_two_views:
            raise ValueError(
                "mined needs a term over two views; set contrastive, prototypes, teacher or consistency as well"
            )
        return self

    @model_validator(mode="after")
    def _views_to_compare_small_ones_with(self) -> Self:
        if self.small_views is not None and self.contrastive is None and self.prototypes is None:
            raise ValueError("small_views needs a term that compares them; set contrastive or prototypes as well")
        return self

    @property
    def shape_share(self) -> float:
        """Share of the latent, and of the pairs, that is there for shapes."""
        return 0.0 if self.contrastive is None else self.contrastive.shape_share


class Progressive(Section):
    """Smaller pictures first; see `training.fitting.views`."""

    size: int = Field(ge=8, le=1024, description="side that the encoder is shown at first, below preprocessing.size")
    after: float = Field(0.67, gt=0, lt=1, description="share of the epochs after which pictures are shown in full")


class PriorFit(Section):
    """How a `pixel-cnn` prior over codes is fitted, after all else of a VQ model."""

    epochs: int = Field(60, ge=1)
    patience: int | None = Field(10, ge=1, description="epochs without a better held-out objective before stopping")
    ema: float | None = Field(0.99, gt=0, lt=1, description="decay of the weights' moving average, which is what ships")
    optimiser: Optimiser = Optimiser(lr=2e-3)


class ItemFirstSettings(Section):
    """The item finder before the encoder; see `training.models.item_first`."""

    size: int = Field(192, ge=96, le=1024, description="side of the pictures that items are cut out of, in pixels")
    margin: float = Field(0.08, ge=0, le=1, description="around the item, in shares of its longer side")
    passes: int = Field(1, ge=1, le=2, description="times that the finder looks")
    paint: float = Field(1.0, ge=0, le=1, description="how white the background becomes before the encoder sees it")
    spare_plain: bool = Field(False, description="leave a background of one colour as it is")
    beside: float = Field(0.0, ge=0, lt=1, description="share of the whole photo's vector beside the item's")


class Recipe(Section):
    """A model, and how it is trained."""

    name: str
    description: str
    family: str
    preprocessing: PreprocessingSettings = PreprocessingSettings()
    item_first: ItemFirstSettings | None = Field(
        None, description="train on what the item finder cuts out of the photos, and ship the encoder behind it"
    )
    model: dict[str, Any] = {}
    backbone_weights: str | None = Field(
        None, description="state dict of model.backbone, .safetensors or of torch.save; none is the installed package's"
    )
    epochs: int = Field(100, ge=1)
    batch_size: int = Field(128, ge=2)
    validation: float = Field(0.1, gt=0, lt=1, description="share of the items held out")
    patience: int | None = Field(None, ge=1, description="epochs without a better held-out objective before stopping")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of the weights' moving average, which is what ships")
    seed: int = Field(0, ge=0, lt=2**32)
    weights: Literal["float32", "float16"] = Field(
        "float32", description="how weights are stored; float16 halves the file and rounds them to three digits"
    )
    deterministic: bool = Field(False, description="equal weights from equal runs on one machine, at some cost")
    max_minutes: float | None = Field(
        None, gt=0, description="stop cleanly after so many minutes of fitting; a prior's fit has as many again"
    )
    pictures_every: int = Field(10, ge=1, description="epochs between reconstructions and samples as pictures")
    optimiser: Optimiser = Optimiser()
    augment: Augment = Augment()
    masks: tuple[MaskSource, ...] = Field(
        ("column", "alpha", "border", "finder"), description="where masks of the items may come from, best first"
    )
    backgrounds: Backgrounds | None = None
    objective: Objective = Objective()
    progressive: Progressive | None = None
    prior: PriorFit = PriorFit()

    def for_prior(self) -> Recipe:
        """The recipe that the prior over codes is fitted by: on whole photos, with nothing asked of latents.

        Backgrounds are replaced only where their number is what conditions the model.
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
                "augment": self.augment.model_copy(update={"erase": 0.0}),
                "backgrounds": backgrounds,
                "pictures_every": fit.epochs + 1,
            }
        )

    def photo_preprocessing(self) -> Preprocessing:
        """How photos are prepared before anything is cut out of them."""
        settings = self.preprocessing
        size = settings.size if self.item_first is None else self.item_first.size
        return Preprocessing(size, settings.channels, settings.fit)

    @model_validator(mode="after")
    def _colours_for_the_finder(self) -> Self:
        if self.item_first is not None and self.preprocessing.channels != 3:
            raise ValueError("preprocessing.channels must be 3 beside item_first: the finder looks at colours")
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
            raise ValueError("max_minutes and patience must be null beside progressive: a run cut short stays small")
        if self.epochs < 2:
            raise ValueError(f"epochs must be 2 or more beside progressive, not {self.epochs}")
        return self

    @model_validator(mode="after")
    def _mined_in_time(self) -> Self:
        mined = self.objective.mined
        if mined is not None and mined.start >= self.epochs:
            raise ValueError(f"objective.mined.start must be below epochs ({self.epochs}), not {mined.start}")
        return self

    @model_validator(mode="after")
    def _items_for_all_prototypes(self) -> Self:
        asked, share = self.objective.prototypes, self.objective.shape_share
        items = round(self.batch_size * (1.0 if share == 0 else min(share, 1.0 - share)))
        if asked is not None and asked.count > items:
            raise ValueError(
                f"objective.prototypes.count must be at most {items}, the items of a batch that a part of the latent "
                f"is compared over, not {asked.count}"
            )
        return self

    def size_shown(self, epoch: int) -> int:
        """Side of the pictures that the encoder is trained on in an epoch; 0 is the first."""
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
        """The values that the family's config is built from."""
        return {"size": self.preprocessing.size, "channels": self.preprocessing.channels, **self.model}
