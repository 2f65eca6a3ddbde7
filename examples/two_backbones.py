import harness as h

VIT = h.Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 32, "depth": 4, "num_heads": 2}, patch_size=16)
CNN = h.Backbone(name="resnet18", args={"channels": (8, 16, 24, 32)}, patch_size=4, stride=32)
DATA, SHORT = h.Shapes(image_size=96, train=128, test=64), h.Recipe(epochs=2, batch_size=32, lr=2e-3, lr_batch=None)
TINY = h.Scale(name="tiny", data=DATA, image_size=96, backbone=VIT, pretrain=SHORT, finetune=SHORT)


def cell(scale: h.Scale, net: str, start: str, seed: int) -> dict[str, h.Evaluation]:
    chosen = scale.replace(backbone=VIT if net == "ViT" else CNN)
    weights = h.simmim(chosen, seed=seed) if start == "SimMIM" else h.Scratch(backbone=chosen.backbone, image_size=96)
    top1, probe = (kind(start=weights, data=DATA, recipe=SHORT, seed=seed) for kind in (h.FineTune, h.LinearProbe))
    return {"top1": top1, "probe": probe, "knn": h.Knn(start=weights, data=DATA, k=5, seed=seed)}


CELLS, FIRST = h.axes(net=("ViT", "ResNet"), start=("SimMIM", "scratch")), {"net": "ViT", "start": "SimMIM"}
STUDY = h.Study(name="two_backbones", cell=cell, grid=CELLS, scales=(TINY,), seeds=2, reference=FIRST)

if __name__ == "__main__":  # a command that loads this file computes nothing by it
    print(h.plan(STUDY), (results := h.run(STUDY, on="inline")), sep="\n\n")
    results.figure("figure-top1").savefig("top1.png")
    print([tuple(found.shape) for found in h.load_encoder(results.run(net="ViT", start="SimMIM")).features("top1.png")])
