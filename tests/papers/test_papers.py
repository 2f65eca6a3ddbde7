"""The preset and the published tables."""

from __future__ import annotations

from typing import Any

import pytest

from harness.papers import PaperTable, PublishedValue, paper_table, simmim
from harness.papers.tables import published_records, shipped_tables
from harness.spec import (
    Backbone,
    BinTarget,
    BlockMask,
    ClusterTarget,
    DalleTokenizer,
    HarnessError,
    InverseSwinHead,
    Loss,
    MlpHead,
    PixelTarget,
    Pretrain,
    RandomMask,
    Recipe,
    Scale,
    Shapes,
    Skip,
    SquareMask,
    Target,
    TokenTarget,
)

SHIPPED = sorted(shipped_tables())
METRICS = {
    "simmim_avgdist": "avgdist",
    "mae_models": "finetune_top1",
    "mae_table1": "finetune_top1",
    "mae_table1f_masks": "finetune_top1",
    "symmim_abstract": "finetune_top1",
    "simmim_table6_vit_b": "finetune_top1",
    "simmim_table7_scaling": "simmim_top1",
    "a2mim_comparison_memory": "finetune_top1",
    "a2mim_downstream": "coco_box_ap",
    "a2mim_imagenet": "a2mim",
    "downstream_published": "value",
}
RENAMED = {"masked_patch_size": "mask_patch_size"}


# Figures as printed in the paper, read off its tables.
@pytest.mark.parametrize(
    ("cell", "top1"),
    [
        ({"mask_type": "random", "mask_patch_size": 32, "mask_ratio": 0.5}, 83.0),
        ({"mask_type": "random", "mask_patch_size": 32, "mask_ratio": 0.6}, 82.8),
        ({"mask_type": "random", "mask_patch_size": 4, "mask_ratio": 0.4}, 81.9),
        ({"mask_type": "random", "mask_patch_size": 64, "mask_ratio": 0.2}, 82.6),
        ({"mask_type": "square", "mask_patch_size": 32, "mask_ratio": 0.11}, 82.6),
        ({"mask_type": "block-wise", "mask_patch_size": 16, "mask_ratio": 0.8}, 82.4),
        ({"mask_type": "random", "mask_patch_size": 32, "mask_ratio": 0.55}, None),
        ({"mask_type": "Random", "mask_patch_size": 32, "mask_ratio": 0.5}, None),
        ({"mask_type": "random", "mask_patch_size": 32, "mask_ratio": None}, None),
        ({"depth": 3}, None),
    ],
)
def test_table_1(cell: dict[str, str | int | float | None], top1: float | None) -> None:
    found = paper_table("simmim_table1_masking", rename=RENAMED).lookup(cell)
    assert (found.value if found else None) == top1


def test_axes_that_the_table_does_not_have_do_not_matter() -> None:
    table = paper_table("simmim_table4_scope")
    found = table.lookup({"scope": "masked area", "depth": 3})
    assert found is not None
    assert (found.value, found.verified) == (82.8, True)


def test_a_table_is_compared_only_at_the_values_it_was_made_with() -> None:
    table = paper_table("simmim_table4_scope", at={"mask_ratio": 0.6})
    assert table.lookup({"scope": "full image", "mask_ratio": 0.4}) is None
    found = table.lookup({"scope": "full image", "mask_ratio": 0.6})
    assert found is not None
    assert found.value == 81.7


def test_a_cell_that_several_rows_of_different_values_fit_has_no_published_value() -> None:
    # Ratio 0.6: 82.6 block-wise, 82.0 to 82.8 random.
    assert paper_table("simmim_table1_masking").lookup({"mask_ratio": 0.6}) is None
    # Block-wise at 0.4: 82.7 at both sizes.
    found = paper_table("simmim_table1_masking").lookup({"mask_type": "block-wise", "mask_ratio": 0.4})
    assert found is not None
    assert found.value == 82.7


def test_an_axis_that_a_row_lacks_is_printed_empty() -> None:
    cell = {"loss_family": "classification", "target": "BEiT", "pred_resolution": None}
    found = paper_table("simmim_table5_target").lookup(cell)
    assert found is not None
    assert found.value == 82.7
    assert paper_table("simmim_table5_target").lookup({**cell, "pred_resolution": 48}) is None


def test_numbers_agree_however_they_are_written() -> None:
    table = PaperTable("t", "top1", (({"ratio": "0.60", "size": "32"}, PublishedValue(1.0, "image", "")),))
    assert table.lookup({"ratio": 0.6, "size": 32.0}) is not None
    assert table.lookup({"ratio": 0.6, "size": "32.0"}) is None
    assert table.lookup({"size": True}) is None


@pytest.mark.parametrize("trust", ["memory", "ai"])
def test_what_nobody_has_looked_up_is_unverified(trust: str) -> None:
    assert not PublishedValue(1.0, trust, "").verified


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tables_are_whole(name: str) -> None:
    records = published_records(name)
    metric = METRICS.get(name, "top1")
    table = paper_table(name, metric=metric)
    assert len(table.rows) == sum(bool(record[metric]) for record in records) > 0
    for record in records:
        assert None not in record
        assert None not in record.values()
        assert record["trust"] in {"image", "code", "text", "abstract", "secondary", "computed", "memory", "ai"}
        assert record["source"]
    least = {"downstream_published": 30, "a2mim_downstream": 30, "simmim_avgdist": 1}.get(name, 50)
    assert all(least < value.value < 100 for _, value in table.rows)


@pytest.mark.parametrize(
    ("metric", "vit", "resnet"), [("miou", 49.0, 38.3), ("box_ap", 49.4, 39.8), ("mask_ap", 43.5, 34.9)]
)
def test_a_metric_of_a_table_in_long_form(metric: str, vit: float, resnet: float) -> None:
    table = paper_table("downstream_published", metric=metric)
    assert table.metric == metric
    for backbone, printed in (("ViT-B", vit), ("ResNet-50", resnet)):
        found = table.lookup({"method": "A2MIM", "backbone": backbone})
        assert found is not None
        assert (found.value, found.trust) == (printed, "secondary")
        assert table.lookup({"method": "SymMIM", "backbone": backbone}) is None
    # mmsegmentation at one scale and at several: the cell does not say which.
    assert table.lookup({"method": "MAE", "backbone": "ViT-B"}) is None


def test_one_table_of_a_file_of_several() -> None:
    where = {"table": "component", "backbone": "ResNet-50", "dataset": "ImageNet-1K"}
    table = paper_table("a2mim_ablation_memory", where=where)
    assert [(axes["arm"].split()[0], value.value, value.verified) for axes, value in table.rows] == [
        ("SimMIM", 78.2, False),
        ("without", 78.5, False),
        ("without", 78.6, False),
        ("A2MIM", 78.8, False),
    ]
    found = table.lookup({"arm": "A2MIM", "backbone": "anything"})
    assert found is not None
    assert found.value == 78.8


def test_a_table_with_a_column_for_each_method() -> None:
    across = ("method", {"supervised": "supervised", "SimMIM": "simmim", "A2MIM": "a2mim"})
    table = paper_table("a2mim_imagenet", across=across)
    assert len(table.rows) == 27
    for method, value in (("supervised", 79.8), ("SimMIM", 79.9), ("A2MIM", 80.4)):
        found = table.lookup({"backbone": "ResNet-50", "method": method})
        assert found is not None
        assert (found.value, found.verified) == (value, True)
    with pytest.raises(HarnessError, match="no column 'a3mim'"):
        paper_table("a2mim_imagenet", across=("method", {"A2MIM": "a3mim"}))
    with pytest.raises(HarnessError, match="no column 'bone'"):
        paper_table("a2mim_imagenet", metric="a2mim", where={"bone": "ResNet-50"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "simmim_table9"}, "no table 'simmim_table9'; shipped: a2mim_ablation_memory, "),
        ({"name": "../published/simmim_table4_scope"}, "no table"),
        ({"name": "simmim_table4_scope", "metric": "top5"}, "no column 'top5'; it has scope, top1"),
        ({"name": "simmim_table4_scope", "rename": {"skope": "x"}}, "no column 'skope'"),
        ({"name": "simmim_table1_masking", "at": {"mask_ratio": 0.6}}, "prints mask_ratio"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        paper_table(**options)  # type: ignore[arg-type]


def scale(image_size: int) -> Scale:
    recipe = Recipe(epochs=1, batch_size=8, lr=1e-3)
    backbone = Backbone(name="vit", patch_size=4)
    return Scale(name="s", data=Shapes(), image_size=image_size, backbone=backbone, pretrain=recipe, finetune=recipe)


def test_simmim_is_the_papers_point() -> None:
    run = simmim(scale(192))
    assert run.mask == RandomMask(size=32, ratio=0.6)
    assert (run.corruption.fill, run.corruption.token) == ("none", "replace")
    assert (run.head.kind, run.target, run.loss.kind, run.loss.scope) == ("linear", PixelTarget(), "l1", "masked")
    assert simmim(scale(48)).mask == RandomMask(size=8, ratio=0.6)  # 32 of 192 is 8 of 48


def test_an_ablation_replaces_one_piece_and_nothing_else() -> None:
    plain = simmim(scale(192))
    for name, piece in (
        ("mask", RandomMask(size=16, ratio=0.4)),
        ("head", MlpHead()),
        ("target", PixelTarget(downsample=2)),
        ("loss", Loss(scope="full")),
        ("seed", 3),
    ):
        run = simmim(scale(192), **{name: piece})  # type: ignore[arg-type]
        differing = [field for field, value in run.values.items() if value != plain.values[field]]
        assert [field for field in differing if field not in Pretrain.unkeyed] == [name]


@pytest.mark.parametrize("target", [BinTarget(bins=8), ClusterTarget(downsample=4), TokenTarget(downsample=4)])
def test_a_target_of_classes_brings_its_loss_unless_one_is_given(target: Target) -> None:
    assert simmim(scale(192), target=target).loss == Loss(kind="cross-entropy", scope="masked")
    full = Loss(kind="cross-entropy", scope="full")
    assert simmim(scale(192), target=target, loss=full).loss == full


def test_what_simmim_leaves_open_is_labelled() -> None:
    def notes(**pieces: Any) -> str:
        return "; ".join(simmim(scale(192), **pieces).assumed)

    assert notes() == notes(head=MlpHead(), loss=Loss(kind="l2")) == ""
    assert "LayerNorm and windows of 6" in notes(head=InverseSwinHead.tiny())
    assert "means over squares" in notes(target=PixelTarget(downsample=4))
    assert "64 colours in each of 1024 images, 20 rounds" in notes(target=ClusterTarget())
    assert "in place of BEiT's tokenizer" in notes(target=TokenTarget(downsample=4))
    assert "bicubic" in notes(target=TokenTarget(tokenizer=DalleTokenizer(path="w.pt", sha256="0a"), downsample=4))
    assert "beta 1" in notes(loss=Loss(kind="smooth-l1"))


def test_simmims_unit_may_not_fit_a_scale() -> None:
    with pytest.raises(Skip, match=r"4\.66667 px"):
        simmim(scale(28))


def test_what_simmim_leaves_open_of_its_masks_is_named() -> None:
    assert simmim(scale(192)).assumed == ()
    assert "whole units" in simmim(scale(192), mask=SquareMask(size=32, ratio=0.25)).assumed[0]
    note = simmim(scale(192), mask=BlockMask(size=32, ratio=0.4, count="beit", min_block=0.1)).assumed[0]
    for part in ("BEiT", "varies", "smallest block 0.1", "aspect ratio from 0.3"):
        assert part in note
