"""The paper's numbers beside ours: protocols, deltas, agreement in order; and fine-tunings nested in a pre-training."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from fake_study import finish_all, scope_cell, scope_plan

from harness.papers import PaperTable, Protocol, PublishedValue, paper_table, protocol_of
from harness.report.collect import runs_frame
from harness.report.tables.footnotes import reading
from harness.report.tables.paper_values import SEPARABLE, column_beside, order_agreement
from harness.report.tables.statistics import summary, units
from harness.spec import Evaluation, FineTune, Scale
from harness.stats.additive import fit
from harness.store import Store

OURS = Protocol(
    data="shapes", backbone="vit_tiny", pretrain_size=32, image_size=32, pretrain_epochs=4, finetune_epochs=2,
    evaluation="finetune", epoch="last",
)  # fmt: skip


def _measured(protocol: Protocol, trust: str = "image") -> PaperTable:
    value = PublishedValue(83.0, trust, "by hand", protocol)
    return PaperTable("made_up", "top1", (({"scope": "masked", "mask_ratio": "0.6"}, value),))


def _cell(tmp_path: Path, paper: PaperTable) -> tuple[pd.Series[Any], tuple[str, ...]]:
    store, plan = Store(tmp_path), scope_plan(paper=paper)
    finish_all(store, plan, lambda row: 84.0 + row.seed)
    runs = runs_frame(plan, store)
    cells = summary(plan, runs)
    return cells.iloc[1], reading(plan, runs, cells)


def test_ours_is_read_from_the_specs() -> None:
    plan = scope_plan()
    assert protocol_of(plan.rows[2].evaluations["top1"]) == OURS
    scratch = protocol_of(plan.rows[-1].evaluations["top1"])
    assert (scratch.pretrain_epochs, scratch.pretrain_size) == (0, 0)


def test_a_delta_needs_one_protocol(tmp_path: Path) -> None:
    same, _ = _cell(tmp_path / "a", _measured(OURS))
    assert (same["paper_delta"], same["paper_differs"], same["paper_unknown"]) == (1.5, "", "")
    other, told = _cell(tmp_path / "b", _measured(replace(OURS, finetune_epochs=100, data="imagenet")))
    assert math.isnan(other["paper_delta"])
    assert other["paper_differs"] == "data imagenet, here shapes; finetune epochs 100, here 2"
    assert any(line.startswith("No difference from the paper is shown where the protocol differs:") for line in told)


def test_what_is_not_known_is_footnoted_and_what_is_unverified_is_not_compared(tmp_path: Path) -> None:
    unknown, told = _cell(tmp_path / "a", _measured(replace(OURS, epoch=None, pretrain_epochs=None)))
    assert (unknown["paper_delta"], unknown["paper_unknown"]) == (1.5, "pretrain epochs, epoch")
    assert "Not known of the paper's protocol: pretrain epochs, epoch." in told
    memory, told = _cell(tmp_path / "b", _measured(OURS, "memory"))
    assert math.isnan(memory["paper_delta"])
    assert "The paper's values: from memory (1)." in told
    assert not any(line.startswith("Order:") for line in told)


def test_shipped_tables_say_how_they_were_measured() -> None:
    table = paper_table("simmim_table7_scaling", metric="simmim_top1")
    found = table.lookup({"model": "Swin-B", "pretrain_epochs": 800, "pretrain_size": 192, "finetune_size": 224})
    assert found is not None
    assert found.protocol == Protocol(
        data="imagenet", backbone="swin_base_patch4_window7_224 (window_size=7)", pretrain_size=192, image_size=224,
        pretrain_epochs=800, finetune_epochs=100, evaluation="finetune",
    )  # fmt: skip
    for name in ("simmim_table1_masking", "simmim_table4_scope"):
        assert {value.protocol.pretrain_epochs for _, value in paper_table(name).rows} == {100}
    linear = paper_table("simmim_table6_vit_b", metric="linear_top1")
    assert {value.trust for axes, value in linear.rows if axes["method"] == "SimMIM"} == {"memory"}
    pixels = {value.protocol for _, value in paper_table("a2mim_imagenet", metric="a2mim").rows}
    assert {found.data for found in pixels} == {"imagenet"}
    assert {"resnet50", "convnext_small"} <= {found.backbone for found in pixels}
    assert {found.pretrain_epochs for found in pixels} >= {300, 800}
    own = paper_table("simmim_table4_scope", protocol=OURS)
    assert {value.protocol for _, value in own.rows} == {OURS}


def test_agreement_in_order_by_hand() -> None:
    paper = np.array([82.0, 82.2, 82.5, 83.0, np.nan, 90.0])
    cells = pd.DataFrame({"paper": paper, "paper_unverified": [False] * 5 + [True]})
    base = np.array([70.0, 70.1, 69.0, 71.0, 75.0, 60.0])
    values = base[:, None] + np.array([[0.1, -0.1], [-0.1, 0.1]] * 3)
    found = order_agreement(cells, fit(values))
    # 82.0-82.2 is too close, and kept. 82.0, 82.2 < 82.5: not here; all < 83.0: here too.
    assert (found.pairs, found.kept, found.closer, found.closer_kept) == (5, 3, 1, 1)
    assert found.resolved_kept <= found.resolved <= 5
    assert pytest.approx(1.96 * math.sqrt(2) * 0.09, abs=0.001) == SEPARABLE


def test_fine_tunings_of_one_pretraining_are_one_unit(tmp_path: Path) -> None:
    def nested(scale: Scale, scope: str, mask_ratio: float | None, seed: int) -> dict[str, Evaluation]:
        run = scope_cell(scale, scope, mask_ratio, seed // 2)["top1"]
        assert isinstance(run, FineTune)
        return {"top1": run.replace(seed=seed)}

    store, plan = Store(tmp_path), scope_plan(cell=nested, seeds=4)
    finish_all(store, plan, lambda row: 80.0 + [0, 1, 4, 5][row.seed] + (row.axes["scope"] == "full"))
    runs = runs_frame(plan, store)
    found = units(runs)
    assert list(found[found["cell"] == 0]["value"]) == [80.5, 84.5]
    assert list(found[found["cell"] == 0]["seed"]) == [0, 2]
    cells = summary(plan, runs).set_index("cell")
    assert (cells.loc[0, "n"], cells.loc[0, "values"], cells.loc[0, "n_planned"]) == (2, 4, 2)
    assert cells.loc[0, "sd"] == pytest.approx(math.sqrt(8))
    assert cells.loc[6, "n"] == 4  # the control has no pre-training, so each of its runs is a unit


def test_each_evaluation_has_the_table_of_its_name(tmp_path: Path) -> None:
    def tabled(metric: str, value: float) -> PaperTable:
        found = PublishedValue(value, "image", "by hand", OURS)
        return PaperTable("made_up", metric, (({"scope": "masked", "mask_ratio": "0.6"}, found),))

    def several(scale: Scale, scope: str, mask_ratio: float | None, seed: int) -> dict[str, Evaluation]:
        run = scope_cell(scale, scope, mask_ratio, seed)["top1"]
        assert isinstance(run, FineTune)
        return {"top1": run, "again": run, "other": run}

    store = Store(tmp_path)
    plan = scope_plan(cell=several, paper=(tabled("other", 60.0), tabled("top1", 83.0), tabled("absent", 1.0)))
    finish_all(store, plan, lambda row: 84.0 + row.seed)
    runs = runs_frame(plan, store)
    cells = summary(plan, runs)
    found = {row["evaluation"]: row["paper"] for _, row in cells[cells["cell"] == 1].iterrows()}
    assert (found["other"], found["top1"], math.isnan(found["again"])) == (60.0, 83.0, True)
    assert column_beside(plan, ["top1", "again", "other"]) == "other"
    assert any("top-1 (%) of made_up; other (%) of made_up" in line for line in reading(plan, runs, cells))
