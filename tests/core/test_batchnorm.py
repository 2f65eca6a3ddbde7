"""Batch norm over groups of images: against torch's own layers on each group alone, however the batch is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from gang_pieces import normed
from tiny import RECIPE, pretrain
from torch import Tensor, nn

from harness.core.model.batchnorm import GroupBatchNorm, Grouping, group_batch_norms
from harness.core.runtime.distributed import Group
from harness.core.runtime.drop_path import Place
from harness.core.runtime.session import Session
from harness.launch import Resources
from harness.launch.job import work
from harness.spec import CustomHead, HarnessError, Recipe
from harness.store import Store

CPU = torch.device("cpu")
BATCH, SIZE = 12, 4


def layer(kind: Any, channels: int, **options: Any) -> Any:
    found = kind(channels, **options).double()
    if found.affine:
        with torch.no_grad():
            found.weight.copy_(torch.linspace(0.5, 2, channels))
            found.bias.copy_(torch.linspace(-1, 1, channels))
    return found


def grouped(own: Any, *, batch: int = BATCH, size: int = SIZE) -> tuple[GroupBatchNorm, Place]:
    place = Place().move(0, torch.arange(batch))
    return GroupBatchNorm(own, Grouping(size, batch // size, place, Group(), across=False)), place


def images(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    scale = torch.linspace(0.2, 5, shape[0], dtype=torch.float64).view(-1, *(1,) * (len(shape) - 1))  # groups differ
    return torch.randn(shape, generator=generator, dtype=torch.float64) * scale + scale


CASES = [
    (nn.BatchNorm2d, (BATCH, 3, 2, 2), {}),
    (nn.BatchNorm1d, (BATCH, 5), {"affine": False, "eps": 1e-6}),
    (nn.BatchNorm1d, (BATCH, 3, 7), {"momentum": 0.3}),
    (nn.BatchNorm3d, (BATCH, 2, 2, 1, 2), {"track_running_stats": False}),
]


@pytest.mark.parametrize(("kind", "shape", "options"), CASES, ids=["2d", "1d", "1d of sequences", "3d"])
def test_each_group_is_normalised_as_if_it_were_alone(kind: Any, shape: tuple[int, ...], options: Any) -> None:
    x = images(*shape)
    weight = torch.cos(torch.arange(x.numel(), dtype=torch.float64)).view(shape)
    theirs, wanted = layer(kind, shape[1], **options), x.clone().requires_grad_()
    expected = torch.cat([theirs(part) for part in wanted.split(SIZE)])
    (expected * weight).sum().backward()
    ours, _ = grouped(layer(kind, shape[1], **options))
    inputs = x.clone().requires_grad_()
    found = ours(inputs)
    (found * weight).sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(inputs.grad, wanted.grad)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


def test_the_gradient_against_finite_differences() -> None:
    ours, _ = grouped(layer(nn.BatchNorm2d, 2))
    ours.weight.requires_grad_(False)
    ours.bias.requires_grad_(False)
    assert torch.autograd.gradcheck(ours, [images(BATCH, 2, 2, 1).requires_grad_()])


@pytest.mark.parametrize("momentum", [0.25, None])
def test_running_statistics_move_once_a_step_towards_the_mean_of_the_groups(momentum: float | None) -> None:
    """By hand over two steps; in one go, and in slices of one group each."""
    steps = [images(BATCH, 3, 2, 2), images(BATCH, 3, 2, 2).flip(0) * 2]
    mean, variance = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    for number, x in enumerate(steps, start=1):
        rate = momentum or 1 / number
        groups = [part.transpose(0, 1).flatten(1) for part in x.split(SIZE)]
        mean = (1 - rate) * mean + rate * torch.stack([group.mean(1) for group in groups]).mean(0)
        variance = (1 - rate) * variance + rate * torch.stack([group.var(1) for group in groups]).mean(0)
    for piece in (BATCH, SIZE):
        ours, place = grouped(layer(nn.BatchNorm2d, 3, momentum=momentum))
        for x in steps:
            for first in range(0, BATCH, piece):
                place.positions = torch.arange(first, first + piece)
                ours(x[first : first + piece])
            ours.settle()
        torch.testing.assert_close(ours.running_mean, mean)
        torch.testing.assert_close(ours.running_var, variance)
        assert ours.num_batches_tracked is not None
        assert ours.num_batches_tracked.item() == 2


def test_in_evaluation_it_is_torch_s_and_its_state_has_the_same_names() -> None:
    own = layer(nn.BatchNorm2d, 3)
    own(images(BATCH, 3, 2, 2))
    ours, _ = grouped(own)
    x = images(5, 3, 2, 2)
    assert torch.equal(ours.eval()(x), own.eval()(x))
    assert ours.state_dict().keys() == own.state_dict().keys()


def test_rows_of_an_image_stay_in_its_group() -> None:
    """Tokens as rows, [B * N, C], are normalised as [B, C, N]."""
    x = images(BATCH, 3, 5)
    theirs, _ = grouped(layer(nn.BatchNorm1d, 3))
    ours, _ = grouped(layer(nn.BatchNorm1d, 3))
    rows = ours(x.transpose(1, 2).reshape(-1, 3))
    torch.testing.assert_close(rows.view(BATCH, 5, 3).transpose(1, 2), theirs(x))
    with pytest.raises(HarnessError, match="13 rows, which are no multiple of the 12 images"):
        ours(images(13, 3))


def test_half_precision_comes_back_as_it_came() -> None:
    ours, _ = grouped(nn.BatchNorm2d(3))
    x = images(BATCH, 3, 4, 4)
    half = ours(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(
        half.double(), grouped(layer(nn.BatchNorm2d, 3, affine=False))[0](x), rtol=0.05, atol=0.05
    )


def model() -> nn.Module:
    return nn.Sequential(normed(4, 4))


def prepared(
    recipe: Recipe, found: nn.Module, *, processes: int = 1, micro_batch: int | None = None
) -> list[nn.Module]:
    """The batch norms of a model, after they were grouped."""
    session = Session(None, CPU, micro_batch=micro_batch, group=Group(0, processes))  # type: ignore[arg-type]
    group_batch_norms(found, recipe, session, Place())
    return [module for module in found.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def test_torch_s_layers_stay_where_they_do_what_is_wanted() -> None:
    assert [type(norm) for norm in prepared(RECIPE, model())] == [nn.BatchNorm2d]
    assert [type(norm) for norm in prepared(RECIPE, model(), micro_batch=16)] == [nn.BatchNorm2d]


@pytest.mark.parametrize(
    ("size", "processes", "micro_batch", "across"),
    [
        (None, 2, None, True),
        (8, 4, None, True),
        (4, 4, None, False),
        (4, 2, 4, False),
        (2, 1, 6, False),
        (4, 3, None, True),
    ],
)
def test_groups_lie_in_one_slice_or_are_spread_over_processes(
    size: int | None, processes: int, micro_batch: int | None, across: bool
) -> None:
    found = prepared(RECIPE.replace(batch_norm_group=size), model(), processes=processes, micro_batch=micro_batch)
    assert len(found) == 1
    assert isinstance(found[0], GroupBatchNorm)
    assert found[0].grouping.across is across


def test_groups_that_micro_batches_cut_apart_are_refused() -> None:
    with pytest.raises(
        HarnessError, match=r"groups of 16 images .* 1 process\(es\) .* of 4; valid --micro-batch: none"
    ):
        prepared(RECIPE, model(), micro_batch=4)
    with pytest.raises(HarnessError, match="valid --micro-batch: 4, or none"):
        prepared(RECIPE.replace(batch_norm_group=4), model(), processes=2, micro_batch=3)
    mixing = RECIPE.replace(batch_norm_group=8, augment=RECIPE.augment.replace(mixup=0.8))
    with pytest.raises(HarnessError, match="valid --micro-batch: none"):
        prepared(mixing, model(), processes=2, micro_batch=4)


def test_a_run_with_a_batch_norm_in_micro_batches_is_refused(tmp_path: Path) -> None:
    run = pretrain(head=CustomHead(function="gang_pieces:normed"))
    event = work(Store(tmp_path), run, CPU, Resources(micro_batch=4), report=lambda event: None)
    assert event.kind == "failed"
    assert "batch norm over groups of 16 images cannot be had from 1 process(es) with micro-batches of 4" in event.text


def test_what_cannot_be_grouped_is_refused() -> None:
    class Own(nn.BatchNorm2d):
        pass

    few = RECIPE.replace(batch_norm_group=4)
    with pytest.raises(HarnessError, match=r"Own cannot take .* valid: BatchNorm1d, BatchNorm2d, BatchNorm3d"):
        prepared(few, nn.Sequential(Own(3)))
    with pytest.raises(HarnessError, match="batch_norm_group is set, but the model has no batch norm"):
        prepared(few, nn.Linear(1, 1))
    alone, _ = grouped(nn.BatchNorm1d(3), size=1)
    with pytest.raises(HarnessError, match="one value a channel"):
        alone(torch.zeros(BATCH, 3))


def test_the_recipe_s_group() -> None:
    assert RECIPE.replace(batch_norm_group=16).digest == RECIPE.digest == RECIPE.replace(batch_norm_group=None).digest
    assert RECIPE.replace(batch_norm_group=8).digest != RECIPE.digest
    with pytest.raises(ValueError, match="batch_norm_group 5 does not divide batch_size; valid: 1, 2, 4, 8, 16"):
        RECIPE.replace(batch_norm_group=5)
