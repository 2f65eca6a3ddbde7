"""SimMIM Table 2: how heavy a prediction head?

Paper   SimMIM (Xie et al., CVPR 2022), Table 2: Swin-B, 192 px, 100 epochs of pre-training, 100 of fine-tuning,
        ImageNet-1K top-1.
Claim   A linear layer is as good as any heavier head, and the cheapest.
Here    At reduced scales the inverse Swins stand to the scale's encoder as they do to Swin-B in the paper: one is its
        mirror image, the other has three quarters of its width and one block a stage.
Run     harness run studies/simmim_head.py --scale small
"""

from harness import InverseSwinHead, LinearHead, MlpHead, Study, axes, claims, paper_table, simmim
from studies.scales import CPU_SWIN, MARGINS, PAPER, SMALL, TINY, beside, finetune, stated

HEADS = ("linear", "2-layer MLP", "inverse Swin-T", "inverse Swin-B")


def head_of(scale, head):
    """The head of that name at a scale."""
    if head in ("linear", "2-layer MLP"):
        return LinearHead() if head == "linear" else MlpHead(layers=2)
    if scale.name == "paper":
        return InverseSwinHead.tiny() if head == "inverse Swin-T" else InverseSwinHead.base()
    width, depths, heads = (stated(scale.backbone, name) for name in ("embed_dim", "depths", "num_heads"))
    if head == "inverse Swin-T":
        width, depths = width * 3 // 4, (1,) * len(depths)
    return InverseSwinHead(embed_dim=width, depths=depths, num_heads=heads)


def cell(scale, head, seed):
    start = simmim(scale, head=head_of(scale, head), seed=seed)
    return {"top1": finetune(scale, start, seed), **beside(scale, start, seed)}


STUDY = Study(
    cell=cell,
    grid=axes(head=HEADS),
    scales=(SMALL, CPU_SWIN, TINY, PAPER),
    seeds=5,
    looks=(5, 10),
    reference={"head": "linear"},
    paper=paper_table("simmim_table2_head"),
    claims=tuple(
        claims.no_worse(f"a linear head is no worse than {name}", {"head": "linear"}, {"head": other}, margin=MARGINS)
        for name, other in (("two layers", HEADS[1]), ("an inverse Swin-T", HEADS[2]), ("an inverse Swin-B", HEADS[3]))
    ),
)
