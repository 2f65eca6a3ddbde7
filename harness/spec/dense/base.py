"""Fields that evaluations with a head at many places share."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import PositiveInt, model_validator

from harness.spec.model.backbone import AnyBackbone
from harness.spec.recipe import Recipe, check_frozen, check_no_mask_token, check_scenes
from harness.spec.run import TRAINED_PASSES, Evaluated, Start, check_family, spares_swin_v2


class Dense(Evaluated[Start]):
    """Fields of segmentation and detection.

    data: has to be stated, as the start's images seldom have masks or boxes.
    recipe: optimiser, schedule, augmentation and precision.
    frozen: True to train what is new, on top of the encoder as it is.
    backbone: as for FineTune.
    tested_epochs: as for FineTune; the last epoch alone by default, as a test takes long.
    """

    recipe: Recipe
    frozen: bool = False
    backbone: AnyBackbone | None = None
    tested_epochs: PositiveInt | None = 1

    @property
    def forward_passes(self) -> int:
        return 1 if self.frozen else TRAINED_PASSES

    def current_revision(self) -> int:
        """One more where weight decay was taken from parameters of Swin V2, besides what all evaluations have."""
        return super().current_revision() + (not self.frozen and spares_swin_v2(self.built, self.recipe))

    @property
    def stated(self) -> AnyBackbone:
        return self.backbone or self.start.backbone

    @property
    def built(self) -> AnyBackbone:
        """The backbone that is built."""
        return self.encoder

    @property
    def setting(self) -> tuple[object, ...]:
        left_out = {"start", "data", "recipe", "seed"} | self.unkeyed
        return tuple(str(value) for name, value in self.values.items() if name not in left_out)

    @model_validator(mode="before")
    @classmethod
    def _data_stated(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("data") is None:
            raise ValueError(f"data has to be stated, a set with {cls.truth}: Garments, Shapes or {cls.folder}")
        return values

    unkeyed: ClassVar[frozenset[str]] = frozenset({"assumed", "crop"})

    @model_validator(mode="after")
    def _whole_pictures(self) -> Self:
        if self.crop != type(self).model_fields["crop"].default:
            raise ValueError("crop would do nothing: test pictures are not cropped; leave it out")
        return self

    @model_validator(mode="after")
    def _fitting_recipe(self) -> Self:
        check_family(self.start.backbone, self.backbone)
        (check_frozen if self.frozen else check_no_mask_token)(self.recipe)
        check_scenes(self.recipe, self.needs)
        if self.recipe.average is not None:
            raise ValueError("recipe.average belongs to FineTune; leave it out")
        return self
