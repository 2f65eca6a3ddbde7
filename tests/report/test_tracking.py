"""Metrics in TensorBoard's files and in offline runs of Weights & Biases, read back by these packages themselves."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from fake_study import finish_all, half_finished, scope_plan
from test_report_tables import hostile_plan

from harness.report.tracking import logged, write_tensorboard, write_wandb
from harness.spec import HarnessError
from harness.store import Store


def test_every_run_that_logged_once_with_its_cell(tmp_path: Path) -> None:
    store, plan = Store(tmp_path), scope_plan()
    half_finished(store, plan)
    found = {item.key: item for item in logged(plan, store)}
    # 4 pre-trainings of masked and 1 of full are done; 3 of 4 evaluations of masked, and both from scratch.
    assert sorted(item.run.kind for item in found.values()) == ["finetune"] * 5 + ["pretrain"] * 5
    assert len({item.name for item in found.values()}) == 10
    first = next(item for item in found.values() if item.title == "masked 0.6 seed 1 pretrain")
    assert [step for step, _ in first.lines] == list(range(5, 45, 5))
    assert first.lines[0][1]["loss"] == pytest.approx(0.3 + math.exp(-5 / 15))
    assert first.started == 1767225600.0


def test_names_stay_in_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    plan = hostile_plan(store)
    assert list(logged(plan, store))
    assert all("/" not in item.name and item.name.isascii() for item in logged(plan, store))
    assert all(item.title.isprintable() for item in logged(plan, store))


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store, plan = Store(tmp_path / "runs"), scope_plan()
    half_finished(store, plan)
    for _ in range(2):
        assert write_tensorboard(plan, store, tmp_path / "logs") == 10
    assert len(list((tmp_path / "logs").glob("*/events*"))) == 10
    (place,) = (tmp_path / "logs").glob("masked_0_6-seed_0-pretrain-*")
    found = EventAccumulator(str(place)).Reload()
    assert [event.step for event in found.Scalars("loss")] == list(range(5, 45, 5))
    assert found.Scalars("loss")[0].value == pytest.approx(0.3 + math.exp(-5 / 15))
    assert found.Scalars("result/loss")[0].value == 0.5


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-own"))
    store, plan = Store(tmp_path / "runs"), scope_plan(seeds=1)
    finish_all(store, plan)
    assert write_wandb(plan, store, tmp_path / "logs") == 9
    assert len(list((tmp_path / "logs" / "wandb").glob("offline-run-*/run-*.wandb"))) == 9
    assert write_wandb(plan, store, tmp_path / "logs") == 0


@pytest.mark.parametrize(("write", "package"), [(write_tensorboard, "tensorboard"), (write_wandb, "wandb")])
def test_without_the_package_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object, package: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(HarnessError, match=rf"pip install 'mim-harness\[{package}\]'"):
        write(scope_plan(), Store(tmp_path), tmp_path / "logs")  # type: ignore[operator]
    assert not (tmp_path / "logs").exists()
