"""The contract that shipped pieces keep too: `python -m pytest` in this folder."""

from study import DIM, LOSSES, MIXER, SIGN

from harness.testing import check_augment, check_backbone, check_loss, check_optimiser


def test_the_network() -> None:
    check_backbone(MIXER)


def test_the_error() -> None:
    check_loss(LOSSES["rounded"])


def test_the_optimiser() -> None:
    check_optimiser(SIGN)


def test_the_augmentation() -> None:
    check_augment(DIM)
