"""Describing models in a process of its own: `python -m harness.core.model.describe`, JSON in, JSON out.

On standard input a list of `Described`; on standard output, in the same order, an object for each: parameters,
multiply_adds (of a forward pass for one image), memory_bytes; or in one line why not: refused, where a run would refuse
the model too, or error, where it cannot be counted.
"""

from __future__ import annotations

import json
import sys
from typing import assert_never

from harness.core.model import complexity
from harness.core.model.complexity import Complexity
from harness.spec import Corruption, HarnessError
from harness.spec.described import Described


def cost(model: Described) -> Complexity:
    """Parameters and multiply-adds of a model."""
    size, channels = model.image_size, model.channels
    match model.stage:
        case "pretrain":
            if model.head is None or model.target is None:
                raise HarnessError("a pre-training has a head and a target")
            return complexity.pretraining(
                model.backbone,
                image_size=size,
                channels=channels,
                head=model.head,
                target=model.target,
                mask_token=model.mask_token,
                corruption=Corruption(token="gated-add" if model.gated else "replace", site=model.site),
                visible=model.visible,
            )
        case "finetune":
            return complexity.classifier(
                model.backbone,
                image_size=size,
                channels=channels,
                num_classes=model.num_classes or 0,
                pool=model.pool,
            )
        case "frozen":
            return complexity.frozen(model.backbone, image_size=size, channels=channels, block=model.block)
        case _:
            assert_never(model.stage)


def answer(model: Described) -> dict[str, int | str]:
    """The object that is written for a model; whatever goes wrong is its error, so that the others get theirs."""
    try:
        found = cost(model)
    except HarnessError as error:
        return {"refused": str(error)}
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        return {"error": text.splitlines()[0]}
    return {
        "parameters": found.parameters,
        "multiply_adds": found.multiply_adds,
        "memory_bytes": found.memory_bytes,
    }


if __name__ == "__main__":
    asked = [Described.model_validate_json(json.dumps(item)) for item in json.load(sys.stdin)]
    json.dump([answer(model) for model in asked], sys.stdout)
