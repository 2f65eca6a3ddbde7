"""Everything that torch has to be asked about any run: its computation, and its multiply-adds.

The only match over the kinds of runs that loads torch. The job imports it; `plan` asks for multiply-adds in a
process of its own, `python -m harness.runs`. That reads a JSON list of `Described` from standard input and writes, in
the same order, an object for each: parameters, multiply_adds (of a forward pass for one image), memory_bytes,
activation_bytes and head_multiply_adds (a part of multiply_adds); or the reason in one line: refused, where a run would
refuse the model too, or error, where it cannot be counted.
"""

from __future__ import annotations

import json
import sys
from typing import assert_never

import torch

from harness.analysis.fourier import fourier
from harness.analysis.interactions import interactions
from harness.analysis.occlusion import occlusion
from harness.analysis.rgb import rgb_statistics
from harness.core.evaluate.detect import detect
from harness.core.evaluate.finetune import finetune
from harness.core.evaluate.logistic import logistic_probe
from harness.core.evaluate.probe import custom_evaluation, knn, linear_probe
from harness.core.evaluate.segment import segment
from harness.core.model import complexity
from harness.core.model.complexity import Complexity
from harness.core.pretrain.recipe import pretrain
from harness.core.runtime.precision import Arithmetic
from harness.core.runtime.session import Computation, Session
from harness.spec import (
    Corruption,
    CustomEvaluation,
    Detect,
    FineTune,
    Fourier,
    HarnessError,
    Interactions,
    Knn,
    LinearProbe,
    LogisticProbe,
    Occlusion,
    Pretrain,
    RgbStatistics,
    Run,
    Segment,
)
from harness.spec.model.described import Described


def compute(run: Run, session: Session) -> None:
    """Compute a run and publish its result."""
    for _ in compute_in_turns(run, session):
        pass


def compute_in_turns(run: Run, session: Session) -> Computation:
    """`compute` as a generator, so that one process advances several runs by `next`, each as if it were alone.

        waiting = [compute_in_turns(run, session) for run, session in ...]
        while waiting:
            waiting = [one for one in waiting if next(one, None) is not None]

    A run that raises ends alone; `close` cancels one. Runs that several processes compute together cannot take turns.
    """
    # Settings of the whole process are those of the run while it computes, and the caller's meanwhile. A run whose
    # recipe sets none, such as k-NN, has 32-bit sums everywhere: by torch's default convolutions have TF32's.
    computation, mine = _computation(run, session), Arithmetic("highest", convolutions=False)
    stream, first = session.own_stream(), True
    while True:
        others = Arithmetic.current()
        mine.use()
        try:
            with torch.cuda.stream(stream):
                ready = next(computation, None)
            mine = Arithmetic.current()
        finally:
            others.use()
        if ready is None:
            return
        if stream is not None and first:  # constants that runs share are made in a first turn, before others use them
            stream.synchronize()
        first = False
        yield ready


def _computation(run: Run, session: Session) -> Computation:
    match run:
        case Pretrain():
            yield from pretrain(run, session)
        case FineTune():
            yield from finetune(run, session)
        case LinearProbe():
            yield from linear_probe(run, session)
        case Segment():
            yield from segment(run, session)
        case Detect():
            yield from detect(run, session)
        case LogisticProbe():
            logistic_probe(run, session)
        case Knn():
            knn(run, session)
        case CustomEvaluation():
            custom_evaluation(run, session)
        case Interactions():
            interactions(run, session)
        case Occlusion():
            occlusion(run, session)
        case Fourier():
            fourier(run, session)
        case RgbStatistics():
            rgb_statistics(run, session)
        case _:
            assert_never(run)


def complexity_of(model: Described) -> Complexity:
    """Parameters and multiply-adds of the model that a run computes with."""
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
        case "segment":
            return complexity.segmentation(model)
        case "detect":
            return complexity.detection(model)
        case "frozen":
            return complexity.frozen(model.backbone, image_size=size, channels=channels, block=model.block)
        case _:
            assert_never(model.stage)


def described_as_plain(model: Described) -> dict[str, int | str]:
    """The object that is written for a model. Any failure becomes its error, so that the other models get theirs."""
    try:
        found = complexity_of(model)
    except HarnessError as error:
        return {"refused": str(error)}
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        return {"error": text.splitlines()[0]}
    return {
        "parameters": found.parameters,
        "multiply_adds": found.multiply_adds,
        "memory_bytes": found.memory_bytes,
        "activation_bytes": found.activation_bytes,
        "head_multiply_adds": found.head,
    }


if __name__ == "__main__":
    asked = [Described.model_validate_json(json.dumps(item)) for item in json.load(sys.stdin)]
    json.dump([described_as_plain(model) for model in asked], sys.stdout)
