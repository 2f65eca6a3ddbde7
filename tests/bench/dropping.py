"""How much faster a pre-training step is that drops 75 % of the tokens, against what multiply-adds predict.

Run  python tests/bench/dropping.py [--device cuda] [--model vit_base_patch16_224] [--batch 64] [--pairs 10]

A step is masks, forward and backward pass and AdamW, of the same encoder and decoder: once with dropped tokens, once
with all of them (a mask token in place of the hidden ones). The two are timed in turn, on a CPU in processor time of
one thread, so that what else the machine does counts little. The shares printed are of each pair, and their median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != HERE]  # torch imports another queue.py

import torch  # noqa: E402

from harness.core.masks.masking import make_mask  # noqa: E402
from harness.core.model.complexity import pretraining  # noqa: E402
from harness.core.objective.losses import total  # noqa: E402
from harness.core.pretrain.mim import MaskedImageModel  # noqa: E402
from harness.core.runtime.precision import autocast  # noqa: E402
from harness.core.train.optimiser import make_optimiser, parameter_groups  # noqa: E402
from harness.spec import (  # noqa: E402
    Backbone,
    Corruption,
    DecoderHead,
    Loss,
    NormPixelTarget,
    Pretrain,
    Recipe,
    Shapes,
    TokenMask,
)


def run_of(arguments: argparse.Namespace, token: str) -> Pretrain:
    """The pre-training that is timed."""
    return Pretrain(
        data=Shapes(),
        image_size=arguments.image_size,
        backbone=Backbone(name=arguments.model, patch_size=16, variant="mae"),
        mask=TokenMask(size=16, ratio=arguments.ratio),
        corruption=Corruption(token=token),  # type: ignore[arg-type]
        head=DecoderHead(depth=arguments.depth, width=arguments.width, heads=arguments.heads),
        target=NormPixelTarget(size=16),
        loss=Loss(kind="l2"),
        recipe=Recipe(epochs=1, batch_size=arguments.batch, lr=1e-4, clip=None, precision=arguments.precision),
    )


def stepper(run: Pretrain, device: torch.device) -> Callable[[int], float]:
    """A function that trains one step and gives its seconds."""
    model = MaskedImageModel(run, 3).to(device).train()
    optimiser = make_optimiser(parameter_groups(model.named_parameters(), run.recipe), run.recipe)
    images = torch.randn(run.recipe.batch_size, 3, run.image_size, run.image_size, device=device)
    positions = torch.arange(len(images), device=device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter

    def step(number: int) -> float:
        wait(device)
        begun = clock()
        units = make_mask(run.mask, image_size=run.image_size, seed=0, step=number, steps=100, positions=positions)
        with autocast(run.recipe, device):
            loss = total(model(images, units)[1])
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        wait(device)
        return clock() - begun

    return step


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def predicted(dropping: Pretrain, visible: int) -> float:
    """How many times as many multiply-adds all tokens take; a backward pass takes twice those of its forward pass."""
    whole, part = (
        pretraining(
            dropping.backbone,
            image_size=dropping.image_size,
            channels=3,
            head=dropping.head,
            target=dropping.target,
            visible=count,
        ).multiply_adds
        for count in (None, visible)
    )
    return whole / part


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--model", default="vit_tiny_patch16_224")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--ratio", type=float, default=0.75)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    dropping, whole = run_of(arguments, "drop"), run_of(arguments, "replace")
    places = (arguments.image_size // 16) ** 2
    expected = predicted(dropping, places - dropping.mask.hidden_units(arguments.image_size))
    steps = stepper(dropping, device), stepper(whole, device)
    for step in steps:  # warm up
        step(0)
    shares = []
    for number in range(1, arguments.pairs + 1):
        short, long = (step(number) for step in steps)
        shares.append(long / short / expected)
        print(f"dropped {short:.3f} s, all {long:.3f} s: {long / short:.2f} times, {shares[-1]:.0%} of {expected:.2f}")
    print(f"median {statistics.median(shares):.1%} of the {expected:.2f} times that multiply-adds predict")


if __name__ == "__main__":
    main()
