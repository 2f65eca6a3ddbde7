"""SimMIM's two stages as runs: its ViT, and Swin with a larger window for a larger image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import BEIT, RECIPE, SWIN, pretrain

from harness.core.model.encoder import SHARED_BIAS
from harness.launch.job import work
from harness.launch.resources import Resources
from harness.spec import FineTune, LinearProbe, Run, key
from harness.store import Store

STILL = RECIPE.replace(epochs=1, lr=1e-12, weight_decay=0.0)  # what is loaded is what is saved, but for rounding


def compute(store: Store, *runs: Run) -> dict[str, torch.Tensor]:
    """Compute runs in order; returns the last one's weights."""
    for run in runs:
        ended = work(store, run, torch.device("cpu"), Resources(), report=lambda event: None)
        assert ended.kind == "done", ended
    path = store.weights(key(runs[-1]))
    assert path is not None
    return load_file(path)


def test_vit_is_pre_trained_with_one_table_and_fine_tuned_with_a_copy_in_each_block(tmp_path: Path) -> None:
    store, start = Store(tmp_path), pretrain(backbone=BEIT)
    first = compute(store, start)
    shared = first[f"encoder.model.{SHARED_BIAS}"]
    assert shared.abs().max() > 0, "the table is trained"
    tuned = compute(store, FineTune(start=start, recipe=STILL))
    for block in range(2):
        own = tuned[f"blocks.{block}.attn.relative_position_bias_table"]
        torch.testing.assert_close(own, shared, atol=1e-9, rtol=0)
    assert SHARED_BIAS not in tuned
    assert compute(store, LinearProbe(start=start, recipe=STILL, block=1))


def test_swin_is_fine_tuned_with_a_larger_window(tmp_path: Path) -> None:
    whole = SWIN.replace(args={**dict(SWIN.args), "always_partition": True})  # no window shrinks to a map of 2 x 2
    store, start = Store(tmp_path), pretrain(backbone=whole, image_size=64)
    larger = whole.replace(args={**dict(whole.args), "window_size": 6})
    run = FineTune(start=start, image_size=96, recipe=STILL, backbone=larger)
    before = compute(store, start)
    after = compute(store, run)
    name = "layers.0.blocks.0.attn.relative_position_bias_table"
    old, new = before[f"encoder.model.{name}"], after[name]
    assert (old.shape, new.shape) == ((49, 1), (121, 1))
    assert new[60].item() == pytest.approx(old[24].item(), abs=1e-6), "the centre of the table stays"
