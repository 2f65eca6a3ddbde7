"""Hours done and to do, by hand, from runs whose results are made up. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.launch.cost import Cost, ModelCost, remaining, write_model_cost
from harness.spec import (
    Backbone,
    CustomData,
    FineTune,
    Knn,
    LinearMap,
    LinearProbe,
    Pretrain,
    RandomMask,
    Recipe,
    Run,
    Segment,
    Shapes,
    key,
)
from harness.spec.model.described import costed_model
from harness.store import Attempt, Store

VIT = Backbone(name="vit_tiny_patch16_224", patch_size=4)
RECIPE = Recipe(epochs=3, batch_size=16, lr=1e-3, lr_batch=None)
IMAGES = 3 * 64  # 70 training images make 4 full batches of 16


def pretraining(seed: int = 0, **changes: Any) -> Pretrain:
    values = {
        "data": Shapes(image_size=16, train=70, test=32),
        "image_size": 16,
        "backbone": VIT,
        "mask": RandomMask(size=4, ratio=0.5),
        "recipe": RECIPE,
        "seed": seed,
    }
    return Pretrain(**{**values, **changes})


def own_data() -> CustomData:
    return CustomData(function="somewhere:images", source="ab")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def done(
    store: Store,
    run: Run,
    seconds: float,
    device: str = "cpu",
    lines: Sequence[dict[str, Any]] = (),
    processes: int = 1,
) -> None:
    """Have a run done in so many seconds."""
    attempt = owned(store, run)
    attempt.write_environment({"device": device, "processes": processes}, "")
    for line in lines:
        attempt.log(line)
    attempt.finish({"top1": 50.0}, seconds)
    attempt.release()


def owned(store: Store, run: Run) -> Attempt:
    attempt = store.acquire(run)
    assert isinstance(attempt, Attempt)
    return attempt


def cost(store: Store, *runs: Run, **rates: float) -> Cost:
    named = {key(run): run for run in runs}
    return remaining(named, store.states(named), store, rates)  # type: ignore[arg-type]


def test_nothing_is_known_before_a_run_is_done(store: Store) -> None:
    found = cost(store, pretraining(0), pretraining(1))
    assert (found.done_hours, found.to_do_hours, found.unknown, found.unit) == (0.0, None, 2, "hours")


def test_no_runs_cost_nothing(store: Store) -> None:
    assert cost(store) == Cost(0.0, 0.0, "")


def test_measured(store: Store) -> None:
    """36 s and 54 s, 45 s on average: two more cost 90 s. Standard deviation of (36, 54) over 45: 0.2828."""
    runs = [pretraining(seed) for seed in range(4)]
    done(store, runs[0], 36.0)
    done(store, runs[1], 54.0)
    found = cost(store, *runs)
    assert found.done_hours == pytest.approx(90 / 3600)
    assert found.to_do_hours == pytest.approx(90 / 3600)
    assert found.spread == pytest.approx(0.28284, abs=1e-5)
    assert (found.device, found.unit, found.unknown) == ("cpu", "CPU-hours", 0)
    assert found.basis == "from 2 finished runs on cpu"


def test_a_study_learns_from_the_finished_runs_of_others(store: Store) -> None:
    """36 s and 54 s for runs of another mask, 3 s for a k-NN on other seeds; another backbone tells nothing."""
    other = RandomMask(size=4, ratio=0.75)
    done(store, pretraining(0, mask=other), 36.0)
    done(store, pretraining(1, mask=other), 54.0)
    done(store, Knn(start=pretraining(0, mask=other), data=pretraining().data), 3.0)
    done(store, pretraining(2, mask=RandomMask(size=8, ratio=0.5), backbone=VIT.replace(patch_size=8)), 1000.0)
    found = cost(store, pretraining(0), Knn(start=pretraining(0), data=pretraining().data))
    assert found.done_hours == 0.0
    assert found.to_do_hours == pytest.approx(48 / 3600)
    assert found.basis == "from 3 finished runs on cpu"
    store.folder(key(pretraining(0, mask=other))).spec.write_text("{")
    assert cost(store, pretraining(0)).to_do_hours == pytest.approx(54 / 3600)


def test_of_a_large_store_some_runs_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = Store.spec

    def noting(self: Store, name: str) -> Run:
        read.append(name)
        return whole(self, name)

    monkeypatch.setattr(Store, "spec", noting)
    for side in (16, 32, 64):
        done(store, pretraining(image_size=side), 36.0)
    read.clear()
    assert cost(store, pretraining(image_size=48)).to_do_hours is None
    assert len(read) == 3
    monkeypatch.setattr("harness.launch.cost.LOOKED_AT", 2)
    cost(store, pretraining(image_size=48))
    assert len(read) == 3 + 2


def test_hours_of_a_cpu_count_its_threads(store: Store) -> None:
    """36 s on 4 threads are 144 CPU-seconds; a GPU is one device however many threads feed it."""
    for seed, device in enumerate(("cpu", "NVIDIA H100")):
        attempt = owned(store, pretraining(seed, image_size=16 * (seed + 1)))
        attempt.write_environment({"device": device, "processes": 1, "threads": 4}, "")
        attempt.finish({"loss": 1.0}, 36.0)
        attempt.release()
        found = cost(store, *(pretraining(number, image_size=16 * (seed + 1)) for number in (seed, 5)))
        assert found.done_hours == found.to_do_hours == pytest.approx((144 if device == "cpu" else 36) / 3600)
        assert found.unit == ("CPU-hours" if device == "cpu" else "GPU-hours")


def test_hours_of_a_busy_cpu_are_those_that_a_run_was_given(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """36 s of CPU time, whatever the clock and the threads say; a GPU counts as long as it was held."""
    monkeypatch.setattr("harness.store.attempt._cpu_seconds", iter((1.0, 37.0) * 2).__next__)
    for seed, device in enumerate(("cpu", "NVIDIA H100")):
        attempt = owned(store, pretraining(seed, image_size=16 * (seed + 1)))
        attempt.alone = True
        attempt.write_environment({"device": device, "processes": 1, "threads": 2}, "")
        attempt.finish({"loss": 1.0}, 250.0)
        attempt.release()
    for number, seconds in enumerate((36, 250)):
        found = cost(store, *(pretraining(seed, image_size=16 * (number + 1)) for seed in (number, 5)))
        assert found.done_hours == found.to_do_hours == pytest.approx(seconds / 3600)


def test_one_measurement_has_no_spread(store: Store) -> None:
    done(store, pretraining(0), 36.0, device="NVIDIA H100")
    found = cost(store, pretraining(0), pretraining(1))
    assert found.spread is None
    assert (found.unit, found.basis) == ("GPU-hours", "from 1 finished run on NVIDIA H100")


def test_longer_runs_cost_as_much_more(store: Store) -> None:
    """Twice the epochs; and a batch of 32 takes 2 x 32 of 70 images, as many as 4 x 16."""
    longer = pretraining(1, recipe=RECIPE.replace(epochs=6))
    larger = pretraining(1, recipe=RECIPE.replace(batch_size=32))
    done(store, pretraining(0), 36.0)
    assert cost(store, pretraining(0), longer).to_do_hours == pytest.approx(72 / 3600)
    assert cost(store, pretraining(0), larger).to_do_hours == pytest.approx(36 / 3600)


def test_another_mask_costs_the_same_and_another_backbone_or_stage_is_unknown(store: Store) -> None:
    first = pretraining(0)
    done(store, first, 36.0)
    assert cost(store, first, pretraining(0, mask=RandomMask(size=8, ratio=0.5))).unknown == 0
    for other in (
        pretraining(0, backbone=VIT.replace(args={"depth": 2})),
        pretraining(0, image_size=32),
        FineTune(start=first, recipe=RECIPE),
    ):
        found = cost(store, first, other)
        assert (found.unknown, found.to_do_hours) == (1, None)
        assert found.done_hours == pytest.approx(36 / 3600)


def test_what_is_known_is_a_lower_bound(store: Store) -> None:
    first = pretraining(0)
    done(store, first, 36.0)
    found = cost(store, first, pretraining(1), FineTune(start=first, recipe=RECIPE))
    assert found.to_do_hours == pytest.approx(36 / 3600)
    assert found.unknown == 1
    assert "1 run unknown" in found.basis


def test_a_run_under_way_counts_for_what_is_left_of_it(store: Store) -> None:
    done(store, pretraining(0), 40.0)
    attempt = owned(store, pretraining(1))
    attempt.log({"step": 3, "steps": 12, "seconds": 11.0})
    found = cost(store, pretraining(0), pretraining(1))
    attempt.release()
    assert found.to_do_hours == pytest.approx(0.75 * 40 / 3600)
    assert found.done_hours == pytest.approx((40 + 0.25 * 40) / 3600)  # and not its 11 s on a shared processor


def test_a_run_under_way_of_a_kind_that_was_not_measured_counts_by_its_own_time(store: Store) -> None:
    attempt = owned(store, pretraining(1))
    attempt.log({"step": 3, "steps": 12, "seconds": 11.0})
    found = cost(store, pretraining(1))
    attempt.release()
    assert found.done_hours == pytest.approx(11 / 3600)


def test_the_device_of_most_runs_counts(store: Store) -> None:
    for seed, (seconds, device) in enumerate([(10.0, "A100"), (12.0, "A100"), (99.0, "cpu")]):
        done(store, pretraining(seed), seconds, device)
    found = cost(store, *(pretraining(seed) for seed in range(4)))
    assert found.to_do_hours == pytest.approx(11 / 3600)
    assert found.device == "A100"


def test_hours_are_those_of_all_devices_of_a_run(store: Store) -> None:
    """8 GPUs for 90 s are 720 seconds of one GPU; so is the run to do."""
    done(store, pretraining(0), 90.0, "H100", processes=8)
    found = cost(store, pretraining(0), pretraining(1))
    assert found.done_hours == pytest.approx(0.2)
    assert found.to_do_hours == pytest.approx(0.2)


def test_images_of_a_user_s_own_set_are_known_once_a_run_has_begun(store: Store) -> None:
    """5 steps an epoch, as the metrics of the finished run say; the other has twice the epochs."""
    runs = pretraining(0, data=own_data()), pretraining(1, data=own_data(), recipe=RECIPE.replace(epochs=6))
    assert cost(store, *runs).to_do_hours is None
    done(store, runs[0], 30.0, lines=[{"step": 15, "steps": 15, "seconds": 30.0}])
    assert cost(store, *runs).to_do_hours == pytest.approx(60 / 3600)


def test_a_length_in_steps_needs_no_number_of_images(store: Store) -> None:
    """24 steps are twice the 3 epochs of 4 steps; of a user's own set, 12 steps cost as much as 12 of another run."""
    done(store, pretraining(0), 36.0)
    longer = pretraining(1, recipe=RECIPE.replace(steps=24))
    assert cost(store, pretraining(0), longer).to_do_hours == pytest.approx(72 / 3600)
    own = pretraining(1, data=own_data(), recipe=RECIPE.replace(steps=12))
    assert cost(store, pretraining(0), own).to_do_hours == pytest.approx(36 / 3600)


def test_evaluations_that_train_nothing_are_taken_as_equal(store: Store) -> None:
    first = pretraining(0)
    done(store, first, 36.0)
    done(store, Knn(start=first), 7.0)
    found = cost(store, first, Knn(start=first), Knn(start=first, k=5), Knn(start=first, seed=1))
    assert found.to_do_hours == pytest.approx(14 / 3600)


def test_stated_rate(store: Store) -> None:
    """Images x multiply-adds x 3 for a forward and a backward pass, x 1 for a frozen encoder, over the rate."""
    first = pretraining(0)
    probe = LinearProbe(start=first, recipe=RECIPE)
    assert cost(store, first, probe, pretrain=1e6, evaluation=1e6).unknown == 2, "not described yet"
    write_model_cost(store.root, costed_model(first), ModelCost(10, 5_000, 160, 1))
    write_model_cost(store.root, costed_model(probe), ModelCost(10, 4_000, 40, 0))
    found = cost(store, first, probe, pretrain=1e6, evaluation=2e6)
    assert found.to_do_hours == pytest.approx((IMAGES * 5_000 * 3 / 1e6 + IMAGES * 4_000 / 2e6) / 3600)
    assert found.basis == "from multiply-adds at the stated rate"
    assert cost(store, first, probe, pretrain=1e6).unknown == 1


def test_a_frozen_encoder_costs_one_forward_pass_and_its_head_three(store: Store) -> None:
    first = pretraining(0)
    trained = Segment(start=first, data=first.data, recipe=RECIPE, head=LinearMap())
    hours = []
    for run in (trained, trained.replace(frozen=True)):
        write_model_cost(store.root, costed_model(run), ModelCost(10, 5_000, 160, 1, 2_000))
        hours.append(cost(store, run, evaluation=1e6).to_do_hours)
    work = IMAGES / 1e6 / 3600
    assert hours == pytest.approx([work * 5_000 * 3, work * (3_000 + 3 * 2_000)])


def test_measured_goes_before_stated(store: Store) -> None:
    write_model_cost(store.root, costed_model(pretraining(0)), ModelCost(10, 5_000, 160, 1))
    done(store, pretraining(0), 36.0)
    found = cost(store, pretraining(0), pretraining(1), pretrain=1.0)
    assert found.to_do_hours == pytest.approx(36 / 3600)


def test_looking_changes_nothing(store: Store, tmp_path: Path) -> None:
    cost(store, pretraining(0))
    assert not list(tmp_path.iterdir())
