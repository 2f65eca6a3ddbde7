"""What tells hard patches from easy ones."""

from __future__ import annotations

from pydantic import PositiveFloat

from harness.spec.base import Spec
from harness.spec.heads import DecoderHead


class LossPredictor(Spec):
    """A second decoder, which learns to rank hidden patches by their prediction error (HPM).

    It gives one number for each place. For each pair of hidden patches of an image whose errors differ, the difference
    of their numbers is the logit of which error is larger; the loss is the mean cross-entropy over an image's pairs and
    over images. An error is the mean squared difference between prediction and target in a patch. What the momentum
    encoder's copy of it says of the whole image is what a hard mask looks at. Behaves as Haochen-Wang409/HPM,
    models_mae_learn_loss.py with relative=True, but for the first linear layer and the mask token, which it shares with
    MAE's decoder there.

    weight: factor on the loss in the run's loss; 1 is assumed.
    decoder: its blocks.
    """

    weight: PositiveFloat = 1.0
    decoder: DecoderHead = DecoderHead()
