"""Several processes give what one gives: the same batches and draws bit for bit, the same losses up to rounding."""

from __future__ import annotations

import math
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gang import CPU, PATIENCE, Gang, compute, first_gradients, made, normalised, scaled_step, talk
from safetensors.torch import load_file
from tiny import DATA, RECIPE, VIT, pretrain

from harness.core.data.batches import Batch, training_batches
from harness.core.data.datasets import load
from harness.core.evaluate.labelled import labelled_batches
from harness.core.masks.masking import make_mask
from harness.core.objective.losses import loss_weight, prediction_loss
from harness.core.runtime.distributed import Group, interface, rows_of
from harness.core.runtime.session import Session
from harness.launch import Resources
from harness.spec import (
    Augment,
    Contrastive,
    Corruption,
    CustomEvaluation,
    CustomHead,
    CustomMask,
    DecoderHead,
    Detect,
    FineTune,
    FourierLoss,
    GuidedMask,
    HarnessError,
    Knn,
    LinearProbe,
    Loss,
    MomentumEncoder,
    RandomMask,
    Run,
    Scratch,
    Segment,
    Shapes,
    SimplePyramid,
    TokenMask,
    UPerNet,
    key,
)
from harness.store import Store

FEW = Shapes(image_size=16, train=16, test=40)
STEPS = RECIPE.replace(
    epochs=20, lr=3e-4, drop_path=0.2
)  # a batch of 16: every step is an epoch, with a line of its own
SMALL = VIT.replace(args={"embed_dim": 16, "depth": 2, "num_heads": 2})
RAGGED = CustomMask(function="gang_pieces:ragged", size=4)
PLAIN = pretrain(data=FEW, image_size=16, backbone=SMALL, recipe=STEPS)
VARYING = PLAIN.replace(mask=RAGGED)
KEYS = Contrastive(hidden=16, out=8, crops="swapped", mask=TokenMask(size=4, ratio=0.5))
CONTRASTED = VARYING.replace(contrastive=KEYS, momentum=MomentumEncoder(start=0.9))
NORMED = VARYING.replace(head=CustomHead(function="gang_pieces:normed"))


@pytest.fixture(scope="module")
def gang(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gang]:
    started = Gang(tmp_path_factory.mktemp("gang"), 4)
    yield started
    started.end()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def lines(store: Store, run: Run, *names: str) -> list[list[float]]:
    return [[line[name] for name in names if name in line] for line in store.metrics(key(run))]


def computed(
    gang: Gang, root: Path, size: int, *runs: Run, stop: dict[int, int] | None = None, **resources: Any
) -> Store:
    """Compute runs in a store in so many processes, or here."""
    used = Resources(checkpoint_seconds=1e6, **resources)
    if size == 1:
        events = compute(Group(), root, list(runs), used, stop or {})
    else:
        events = gang.call(size, compute, root, list(runs), used, stop or {})[0]
    kinds = {event.kind for event in events}
    assert kinds == {"interrupted" if stop else "done"}, [event.text for event in events]
    return Store(root)


def test_computing_here_leaves_a_termination_signal_as_it_was(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    compute(Group(), tmp_path, [], Resources(), {})
    assert signal.getsignal(signal.SIGTERM) is before


# What each rank takes


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("batch", "size"), [(16, 1), (16, 4), (18, 4), (30, 7), (8, 4)])
def test_every_row_is_taken_once_and_mirrored_rows_stay_together(batch: int, size: int, mirrored: bool) -> None:
    parts = [rows_of(batch, rank, size, mirrored=mirrored) for rank in range(size)]
    assert sorted(torch.cat(parts).tolist()) == list(range(batch))
    for part in parts:
        assert part.tolist() == sorted(part.tolist())
        if mirrored:
            assert (batch - 1 - part.flip(0)).tolist() == part.tolist()
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= (2 if mirrored else 1)


def test_too_few_images_for_all_ranks_are_refused() -> None:
    with pytest.raises(HarnessError, match="a batch of 8 images feeds at most 4 processes, not 5"):
        Group(0, 5).rows(8, mirrored=True)
    with pytest.raises(HarnessError, match="at most 8 processes, not 9"):
        Group(0, 9).rows(8)


@pytest.mark.parametrize(
    "augment",
    [
        Augment(crop_scale=(0.5, 1.0)),
        Augment(mixup=0.8, smoothing=0.1),
        Augment(cutmix=1.0, rand_augment="rand-m9-mstd0.5-inc1"),
    ],
    ids=["crops", "mixup", "cutmix"],
)
def test_batches_and_masks_of_four_ranks_are_those_of_one_process(augment: Augment) -> None:
    run = FineTune(start=PLAIN, data=DATA, recipe=RECIPE.replace(augment=augment), seed=3)
    images = load(run.data, "train")

    def batches(group: Group) -> list[Batch]:
        session = Session(None, CPU, group=group)  # type: ignore[arg-type]
        return list(labelled_batches(run, images, session, 2))

    whole, ranks = batches(Group()), [batches(Group(rank, 4)) for rank in range(4)]
    assert len(whole) == 6
    for step, batch in enumerate(whole):
        for mine in (rank[step] for rank in ranks):
            assert len(mine.positions) == 4
            assert torch.equal(mine.images, batch.images[mine.positions])
            assert torch.equal(mine.labels, batch.labels[mine.positions])
            found, expected = (
                make_mask(RAGGED, image_size=16, seed=3, step=step, steps=9, positions=part.positions)
                for part in (mine, batch)
            )
            assert torch.equal(found, expected[mine.positions])


def test_rows_of_a_batch_are_the_batch_s() -> None:
    source = load(DATA, "train")
    common: dict[str, Any] = {"image_size": 32, "batch_size": 16, "seed": 0, "first_step": 1, "steps": 2, "device": CPU}
    whole = next(training_batches(source, Augment(), **common))
    part = next(training_batches(source, Augment(), **common, rows=torch.tensor([3, 12])))
    assert part.positions.tolist() == [3, 12]
    assert torch.equal(part.images, whole.images[[3, 12]])


# Messages


def test_what_is_said_in_a_group(gang: Gang) -> None:
    said = gang.call(3, talk)
    for rank, (total, agreed, shared, led, failed) in enumerate(said):
        assert total == [3.0, 3.0]
        assert agreed == (True, False)
        assert shared == 7
        assert led == "by 0"
        zero = "ZeroDivisionError: integer division or modulo by zero"
        assert failed == (zero if rank == 0 else f"LeaderLeft: {zero}")


def test_alone_nothing_is_sent() -> None:
    alone, tensor = Group(), torch.ones(2)
    assert alone.sum(tensor) is tensor
    assert alone.agree(True, False) == (True, False)
    assert alone.share(tensor) is alone.lead(lambda: tensor) is tensor
    assert alone.rows(16) is None
    model = torch.nn.Linear(1, 1)
    assert alone.replicate(model) is model


def test_an_overflow_on_one_rank_skips_the_step_on_all(gang: Gang) -> None:
    assert gang.call(2, scaled_step) == [([1.0], 4.0)] * 2


def test_the_network_interface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback on one machine; on several gloo's own choice, or the default route's where the host's name has none."""
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "ib0"), (3, "eth0")])
    routes = tmp_path / "route"
    routes.write_text(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
        "eth0\t00000000\t010200C0\t0003\t0\t0\t200\t00000000\n"
        "ib0\t00000000\t010200C0\t0003\t0\t0\t100\t00000000\n"
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
    )
    assert interface(several=False) == "lo"
    for address, expected in (("10.1.2.3", None), ("127.0.1.1", "ib0")):
        monkeypatch.setattr(socket, "gethostbyname", lambda name, address=address: address)
        assert interface(several=True, routes=routes) == expected

    def unknown(name: str) -> str:
        raise socket.gaierror

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    assert interface(several=True, routes=routes) == "ib0"
    assert interface(several=True, routes=tmp_path / "missing") is None


# The loss


@pytest.mark.parametrize("scope", ["masked", "full"])
def test_weighted_slices_add_up_to_the_loss_of_the_batch(scope: Any) -> None:
    """One image has nothing hidden, so slices count differently; the mean of the slices would be wrong."""
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 6, 3, 8, 8, generator=generator)
    units = torch.rand(6, 2, 2, generator=generator) < torch.tensor([0.0, 0.3, 0.5, 0.9, 1.0, 1.0]).view(6, 1, 1)
    hidden = units.repeat_interleave(4, 1).repeat_interleave(4, 2)
    loss = Loss(scope=scope)
    whole = (prediction - target).abs()[hidden[:, None].expand(-1, 3, -1, -1) | (scope == "full")].mean().item()
    weights = [loss_weight(loss, part).item() for part in units.split(1)]
    parts = [
        prediction_loss(loss, *(tensor[i : i + 1] for tensor in (prediction, target, hidden))).item() for i in range(6)
    ]
    found = sum(part * weight for part, weight in zip(parts, weights, strict=True)) / sum(weights)
    assert found == pytest.approx(whole, rel=1e-5)
    if scope == "masked":
        assert sum(parts) / 6 != pytest.approx(whole, rel=1e-2)


def test_micro_batches_are_exact_where_masks_hide_unequal_numbers(tmp_path: Path, gang: Gang) -> None:
    stores = [computed(gang, tmp_path / str(piece), 1, VARYING, micro_batch=piece) for piece in (None, 5)]
    whole, sliced = (lines(store, VARYING, "loss", "grad_norm") for store in stores)
    for one, other in zip(whole, sliced, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_the_fourier_loss_of_four_processes_is_that_of_one(tmp_path: Path, gang: Gang) -> None:
    """Beside masks that hide unequal numbers; the released one over groups of four, of which each process has one."""
    runs = [
        VARYING.replace(fourier=fourier, recipe=STEPS.replace(epochs=5))
        for fourier in (FourierLoss(), FourierLoss(variant="released", group=4))
    ]
    whole, ranks = computed(gang, tmp_path / "one", 1, *runs), computed(gang, tmp_path / "four", 4, *runs)
    for run in runs:
        one, four = (lines(store, run, "loss", "fourier_ratio") for store in (whole, ranks))
        assert len(one) == 5
        for left, right in zip(one, four, strict=True):
            assert left == pytest.approx(right, rel=1e-4)


def test_four_processes_give_the_losses_of_one(tmp_path: Path, gang: Gang) -> None:
    """Over 20 steps, with drop path; the second run with masks of unequal numbers, and in the same group."""
    whole = computed(gang, tmp_path / "one", 1, PLAIN, VARYING)
    ranks = computed(gang, tmp_path / "four", 4, PLAIN, VARYING)
    for run in (PLAIN, VARYING):
        one, four = (lines(store, run, "step", "loss", "lr") for store in (whole, ranks))
        assert len(one) == 20
        norms = (lines(store, run, "grad_norm") for store in (whole, ranks))
        assert all(left == pytest.approx(right, rel=1e-3) for left, right in zip(*norms, strict=True))
        for left, right in zip(one, four, strict=True):
            assert left == pytest.approx(right, rel=1e-5)
        results = [store.result(key(run)) for store in (whole, ranks)]
        assert results[0] is not None
        assert results[1] is not None
        assert results[0].metrics == pytest.approx(results[1].metrics, rel=1e-5)
        assert len(ranks.folder(key(run)).attempts()) == 1
    files = {path.name for path in ranks.folder(key(PLAIN)).attempt(1).path.iterdir()}
    assert files - {"dirty.patch"} == {"owner.json", "env.json", "metrics.jsonl", "weights.safetensors", "artefacts"}
    assert ranks.environment(key(PLAIN))["processes"] == 4
    assert {path.name for path in ranks.root.iterdir()} == {key(PLAIN), key(VARYING)}


def test_three_processes_with_micro_batches_and_unequal_shares(tmp_path: Path, gang: Gang) -> None:
    whole = computed(gang, tmp_path / "one", 1, VARYING)
    ranks = computed(gang, tmp_path / "three", 3, VARYING, micro_batch=2)
    for left, right in zip(lines(whole, VARYING, "loss"), lines(ranks, VARYING, "loss"), strict=True):
        assert left == pytest.approx(right, rel=1e-5)


def test_evaluations_in_four_processes(tmp_path: Path, gang: Gang) -> None:
    """Mixup, CutMix, the probe's batch norm, neighbours, and a user's own."""
    start = PLAIN.replace(recipe=STEPS.replace(epochs=2))
    mixing = STEPS.replace(epochs=8, layer_decay=0.8, augment=Augment(mixup=0.8, cutmix=1.0, smoothing=0.1))
    tuned = FineTune(start=start, recipe=mixing)
    probed = LinearProbe(start=start, recipe=RECIPE.replace(epochs=4, lr=1e-3))
    own = CustomEvaluation(start=start, function="gang_pieces:spread", metric="spread")
    near = Knn(start=start, k=3, crop=1.0)
    runs = (start, tuned, probed, near, own)
    stores = [
        computed(gang, tmp_path / str(size), size, *runs, micro_batch=micro) for size, micro in ((1, None), (4, 8))
    ]
    for run in runs:
        left, right = (store.result(key(run)) for store in stores)
        assert left is not None
        assert right is not None
        assert left.metrics == pytest.approx(right.metrics, rel=1e-4)
        if not isinstance(run, Knn | CustomEvaluation):
            pairs = zip(*(lines(store, run, "loss", "test_loss") for store in stores), strict=True)
            assert all(one == pytest.approx(four, rel=2e-5) for one, four in pairs)
    accuracies = [[line["test_top1"] for line in store.metrics(key(tuned))] for store in stores]
    assert accuracies[0] == accuracies[1]
    again = near.replace(seed=1)  # reads what four processes kept
    computed(gang, stores[1].root, 4, again, micro_batch=8)
    assert stores[1].environment(key(again))["train_features"] == "kept"
    found, kept = (stores[1].result(key(run)) for run in (near, again))
    assert found is not None
    assert kept is not None
    assert found.metrics == kept.metrics


def test_segmentation_in_two_processes(tmp_path: Path, gang: Gang) -> None:
    """Batch norms, dropout and means over known pixels of the global batch; counts over all test pictures."""
    start, scenes = Scratch(backbone=SMALL, image_size=32), Shapes(image_size=32, train=8, test=10)
    recipe = STEPS.replace(epochs=3, batch_size=8)
    run = Segment(start=start, data=scenes, recipe=recipe, head=UPerNet(width=8, pools=(1, 2), dropout=0.2))
    whole, ranks = (computed(gang, tmp_path / f"{size}", size, run) for size in (1, 2))
    for one, two in zip(lines(whole, run, "loss"), lines(ranks, run, "loss"), strict=True):
        assert two == pytest.approx(one, rel=1e-6 if one == next(iter(lines(whole, run, "loss"))) else 1e-4)
    left, right = (store.result(key(run)) for store in (whole, ranks))
    assert left is not None
    assert right is not None
    assert right.metrics == pytest.approx(left.metrics, rel=1e-3)


def test_detection_in_three_processes(tmp_path: Path, gang: Gang) -> None:
    """Means over anchors, regions and masks, of which each process has another number; objects found by all.

    Later steps are close only: rounding decides which of two regions of equal score is suppressed by the other.
    """
    pytest.importorskip("pycocotools")
    start, scenes = Scratch(backbone=SMALL, image_size=32), Shapes(image_size=32, train=8, test=10)
    recipe = RECIPE.replace(epochs=3, batch_size=8, lr=1e-5)
    run = Detect(start=start, data=scenes, recipe=recipe, pyramid=SimplePyramid(width=16), rois=32)
    stores = [
        computed(gang, tmp_path / f"{size} {micro}", size, run, micro_batch=micro)
        for size, micro in ((1, None), (3, None), (2, 2))
    ]
    wanted = [line["loss"] for line in stores[0].metrics(key(run))]
    for store in stores[1:]:
        found = [line["loss"] for line in store.metrics(key(run))]
        assert found[0] == pytest.approx(wanted[0], rel=1e-6)
        assert found == pytest.approx(wanted, rel=0.02)
        first, last = (one.result(key(run)) for one in (stores[0], store))
        assert first is not None
        assert last is not None
        assert set(last.metrics) == set(first.metrics)


def test_a_mask_that_looks_is_the_same_in_three_processes(tmp_path: Path, gang: Gang) -> None:
    """With drop path, which the momentum encoder it looks with does not have."""
    run = PLAIN.replace(mask=GuidedMask(size=8, ratio=0.5), momentum=MomentumEncoder(start=0.9))
    whole = computed(gang, tmp_path / "one", 1, run)
    ranks = computed(gang, tmp_path / "three", 3, run, micro_batch=2)
    for left, right in zip(lines(whole, run, "loss"), lines(ranks, run, "loss"), strict=True):
        assert left == pytest.approx(right, rel=1e-5)


# Batch norm


def test_a_batch_norm_over_four_ranks_is_torch_s_over_the_whole_batch(gang: Gang) -> None:
    """Forward, backward and running statistics over three steps, in double precision; an uneven split."""
    generator = torch.Generator().manual_seed(0)
    for kind, shape, momentum in (("BatchNorm2d", (10, 3, 4, 4), 0.1), ("BatchNorm1d", (11, 5), None)):
        batches, weights = (
            [torch.randn(shape, generator=generator, dtype=torch.float64) * 3 + 1 for _ in range(3)] for _ in range(2)
        )
        layer = made(kind, shape[1], momentum)
        expected = []
        for batch, weight in zip(batches, weights, strict=True):
            inputs = batch.clone().requires_grad_()
            output = layer(inputs)
            (output * weight).sum().backward()
            expected.append((output.detach(), inputs.grad))
        found = gang.call(4, normalised, kind, batches, weights, momentum)
        for step, (output, gradient) in enumerate(expected):
            torch.testing.assert_close(torch.cat([outputs[step] for outputs, _, _ in found]), output)
            torch.testing.assert_close(torch.cat([gradients[step] for _, gradients, _ in found]), gradient)
        for name, value in layer.state_dict().items():
            for _, _, state in found:
                torch.testing.assert_close(state[name], value)
        for name, parameter in layer.named_parameters():
            torch.testing.assert_close(found[0][2][f"gradient of {name}"], parameter.grad)


def test_a_head_with_batch_norm_in_four_processes(tmp_path: Path, gang: Gang) -> None:
    """Loss, gradients and running statistics of the first step, then the losses of 20."""
    one_step = NORMED.replace(recipe=STEPS.replace(epochs=1, clip=None))
    whole = first_gradients(Group(), tmp_path / "first", one_step)
    ranks = gang.call(4, first_gradients, tmp_path / "firsts", one_step)
    largest = max(gradient.abs().max().item() for gradient in whole.values())
    for found in ranks:
        assert found.keys() == whole.keys()
        for name, gradient in whole.items():
            error = (found[name] - gradient).abs().max().item()
            assert error <= 1e-5 * gradient.abs().max().item() + 1e-7 * largest  # some are small beside the others
    losses = [lines(Store(tmp_path / name), one_step, "loss")[0][0] for name in ("first", "firsts")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    states = [load_file(Store(tmp_path / n).folder(key(one_step)).attempt(1).weights) for n in ("first", "firsts")]
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        own, shared = (state[f"head.0.norm.{name}"] for state in states)
        torch.testing.assert_close(own, shared, rtol=1e-5, atol=1e-6)
    stores = [computed(gang, tmp_path / str(size), size, NORMED) for size in (1, 4)]
    one, four = (lines(store, NORMED, "loss") for store in stores)
    for left, right in zip(one, four, strict=True):
        assert left == pytest.approx(right, rel=1e-4)


def test_groups_smaller_than_a_process_are_the_same_however_they_are_cut(tmp_path: Path, gang: Gang) -> None:
    run = NORMED.replace(recipe=STEPS.replace(epochs=5, batch_norm_group=4))
    cuts: list[tuple[int, int | None]] = [(1, None), (1, 4), (2, 4), (3, None)]
    stores = [computed(gang, tmp_path / f"{size} {piece}", size, run, micro_batch=piece) for size, piece in cuts]
    losses = [lines(store, run, "loss") for store in stores]
    for other in losses[1:]:
        assert all(a == pytest.approx(b, rel=1e-4) for a, b in zip(losses[0], other, strict=True))
    assert losses[0] != lines(computed(gang, tmp_path / "whole", 1, NORMED), NORMED, "loss")[:5]


# Momentum encoders, keys of all processes, dropped tokens


@pytest.mark.slow
def test_keys_come_from_all_processes(tmp_path: Path, gang: Gang) -> None:
    """Losses and gradients of the first step, the losses of 20, and the averaged weights; three processes take uneven
    shares of a batch of masks that vary.
    """
    one_step = CONTRASTED.replace(recipe=STEPS.replace(epochs=1, clip=None, drop_path=0.0))
    whole = first_gradients(Group(), tmp_path / "first", one_step)
    ranks = gang.call(3, first_gradients, tmp_path / "firsts", one_step)
    largest = max(gradient.abs().max().item() for gradient in whole.values())
    for found in ranks:
        for name, gradient in whole.items():
            error = (found[name] - gradient).abs().max().item()
            assert error <= 1e-4 * gradient.abs().max().item() + 1e-6 * largest
    losses = [lines(Store(tmp_path / name), one_step, "loss")[0][0] for name in ("first", "firsts")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    stores = [computed(gang, tmp_path / str(size), size, CONTRASTED) for size in (1, 3)]
    one, three = (lines(store, CONTRASTED, "loss") for store in stores)
    for left, right in zip(one, three, strict=True):
        assert left == pytest.approx(right, rel=1e-4)
    states = [load_file(store.folder(key(CONTRASTED)).attempt(1).weights) for store in stores]
    for name in (name for name in states[0] if name.startswith("momentum.")):
        torch.testing.assert_close(states[0][name], states[1][name], rtol=1e-3, atol=1e-4)


def test_negatives_are_those_of_all_processes(tmp_path: Path, gang: Gang) -> None:
    """With keys of a process's own images alone the loss would be that of smaller batches."""
    one_step = CONTRASTED.replace(recipe=STEPS.replace(epochs=1), contrastive=KEYS.replace(temperature=100.0))
    (loss,) = lines(computed(gang, tmp_path, 4, one_step), one_step, "contrastive")
    # at such a temperature every key is as likely as every other: log 16, not log 4, in both directions
    assert loss[0] == pytest.approx(2 * 2 * 100 * math.log(16), rel=1e-2)


def test_dropped_tokens_in_four_processes(tmp_path: Path, gang: Gang) -> None:
    dropped = PLAIN.replace(
        mask=RandomMask(size=4, ratio=0.75),
        corruption=Corruption(token="drop"),
        head=DecoderHead(depth=1, width=16, heads=2),
    )
    stores = [
        computed(gang, tmp_path / str(size), size, dropped, micro_batch=piece) for size, piece in ((1, 5), (4, 3))
    ]
    one, four = (lines(store, dropped, "loss") for store in stores)
    for left, right in zip(one, four, strict=True):
        assert left == pytest.approx(right, rel=1e-5)


# Stopping and going on


def test_a_signal_to_one_rank_stops_all_and_another_number_of_processes_goes_on(tmp_path: Path, gang: Gang) -> None:
    long = VARYING.replace(data=DATA.replace(image_size=16))  # four steps an epoch: the stop falls between two lines
    whole = computed(gang, tmp_path / "whole", 1, long)
    root = tmp_path / "runs"
    for size, rank, step in ((4, 2, 6), (1, 0, 5), (2, 1, 7)):
        computed(gang, root, size, long, stop={rank: step})
    store = computed(gang, root, 2, long)
    assert len(store.folder(key(long)).attempts()) == 4
    one, many = (lines(found, long, "step", "loss") for found in (whole, store))
    assert len(one) == 21  # one an epoch, and one after 50 steps
    for left, right in zip(one, many, strict=True):
        assert left == pytest.approx(right, rel=5e-5)


def test_an_exception_on_one_rank_fails_the_run_and_ends_all(tmp_path: Path, gang: Gang) -> None:
    """The last test of this gang: its processes are gone afterwards."""
    run = PLAIN.replace(mask=CustomMask(function="gang_pieces:raising", size=4))
    events = gang.call(4, compute, tmp_path, [run], Resources(), {})
    assert events[0][0].kind == "failed"
    assert events[0][0].text == "ValueError: the third process has a hole"
    error = Store(tmp_path).state(key(run)).error
    assert error.startswith("process 2 of 4, counted from 0:\nTraceback")
    assert "in raising" in error
    for process in gang.processes:
        process.join(PATIENCE)
        assert process.exitcode == 1
    assert math.isfinite(PATIENCE)
