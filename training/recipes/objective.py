"""The schema of a recipe's section `objective`. Imports no torch."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from training.recipes.section import Section


class Contrastive(Section):
    """InfoNCE between the latents of two views of each item; see `training.objectives`."""

    weight: float = Field(gt=0, description="weight of InfoNCE in the objective")
    temperature: float = Field(0.1, gt=0)
    shape_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="fraction of the latent, and of the pairs, contrasted under strong recolouring to learn shape",
    )
    projection: int | None = Field(
        None, ge=2, description="width of a projection head before the cosine; it never ships"
    )

    @model_validator(mode="after")
    def _one_head(self) -> Self:
        if self.shape_share > 0 and self.projection is not None:
            raise ValueError(
                "projection must be null with a shape_share, as the parts of the latent have no common head"
            )
        return self


class Teacher(Section):
    """A moving average of the weights as the teacher of the weights themselves; see `training.objectives.teacher`."""

    weight: float = Field(gt=0, description="weight of the KL from the teacher's posterior in the objective")
    decay: float = Field(
        0.99, gt=0, lt=1, description="decay of the moving average per step; it rises to this value at first"
    )


class Prototypes(Section):
    """Assign the views of an item to the same prototypes; see `training.objectives.prototypes`."""

    count: int = Field(64, ge=2, le=65_536, description="number of prototypes, at most the number of items in a batch")
    weight: float = Field(gt=0, description="weight of the cross-entropy in the objective")
    temperature: float = Field(0.1, gt=0)
    epsilon: float = Field(0.05, gt=0, description="softness of the assignments")
    iterations: int = Field(
        3, ge=1, le=100, description="Sinkhorn-Knopp iterations; more balance the assignments better"
    )


class SmallViews(Section):
    """Compare parts of an image with its full views; see `training.objectives.small_views`."""

    count: int = Field(
        2, ge=1, le=16, description="small views per pair, taken alternately from its first and second photo"
    )
    least: float = Field(0.3, ge=0.05, le=1, description="smallest side of a small view, as a fraction")
    most: float = Field(0.6, ge=0.05, le=1, description="largest side of a small view, as a fraction")
    size: int | None = Field(
        None, ge=8, le=1024, description="side of a small view in pixels; null for the model's size"
    )

    @model_validator(mode="after")
    def _from_least_to_most(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least must be at most most ({self.most}), not {self.least}")
        return self


class Mined(Section):
    """Use mutual nearest neighbours as second views of each other; see `training.fitting.mining`."""

    every: int = Field(5, ge=1, description="epochs between searches for neighbours")
    neighbours: int = Field(
        5, ge=1, le=100, description="k: two photos are neighbours if each is among the k nearest of the other"
    )
    share: float = Field(
        0.5, ge=0, le=1, description="fraction of second views taken from neighbours, for photos that have some"
    )
    start: int = Field(10, ge=1, description="epochs before the first search, until latents are meaningful")


class Objective(Section):
    """Objectives on the latents beside the loss of the family; see `training.objectives`."""

    clean_target: bool = Field(
        False, description="the target of the likelihood is the item on white, whatever its background"
    )
    foreground_weight: float = Field(1.0, ge=0, le=1, description="weight of background pixels in the likelihood")
    consistency: float = Field(0.0, ge=0, description="weight of the KL between the posteriors of two views")
    contrastive: Contrastive | None = None
    teacher: Teacher | None = None
    prototypes: Prototypes | None = None
    small_views: SmallViews | None = None
    mined: Mined | None = None
    foreground: float = Field(
        0.0, ge=0, description="weight of the cross-entropy between the predicted foreground and the masks"
    )
    other_photo: float = Field(
        0.5, ge=0, le=1, description="fraction of second views that come from another photo of the item"
    )
    condition: str | None = Field(None, description="category, item_id, background, or an attribute of the items")

    @property
    def has_two_views(self) -> bool:
        over_two = (self.contrastive, self.teacher, self.prototypes)
        return self.consistency > 0 or any(term is not None for term in over_two)

    @model_validator(mode="after")
    def _views_to_mine_for(self) -> Self:
        if self.mined is not None and not self.has_two_views:
            raise ValueError(
                "mined needs a term over two views; also set contrastive, prototypes, teacher or consistency"
            )
        return self

    @model_validator(mode="after")
    def _views_to_compare_small_ones_with(self) -> Self:
        if self.small_views is not None and self.contrastive is None and self.prototypes is None:
            raise ValueError("small_views needs a term that compares them; also set contrastive or prototypes")
        return self

    @property
    def shape_share(self) -> float:
        """Fraction of the latent, and of the pairs, that learns shape."""
        return 0.0 if self.contrastive is None else self.contrastive.shape_share
