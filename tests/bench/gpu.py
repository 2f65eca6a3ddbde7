"""What only a GPU can show, in one script of eight minutes: tests that are skipped elsewhere, speed against a peer.

Run  python tests/bench/gpu.py --out gpu.json              # on a machine with an H100 or H200, from the checkout
     python tests/bench/gpu.py --out /tmp/x.json --smoke   # the whole script at toy size on a CPU, to try it out
     python tests/bench/gpu.py --out gpu.json --only a,c   # some sections

Sections, the most important first, each in processes of its own with a limit of seconds: what fails or hangs in one is
written down, and the next goes on. The JSON is written after each.

    a  machine: versions, rate of a matrix product in bf16, copies within the device
    b  tests/core/test_gpu.py: precisions, captured and compiled steps, resuming, DDP, host waits; meanwhile the models
       of the next section are compiled once, so that their kernels are in the cache
    c  Swin-B at 192 px, ViT-B at 224 px and ResNet-50 at 224 px, batch 256, bf16: the ordinary research loop
       (research_loop.py), and `harness.bench` eager, compiled, captured and both
    d  the model of studies/quickstart.py: steps a second, eager and captured
    e  a table of 32 cells (table_study.py): one process a cell, of the research loop and of this package, and all of
       them in one process with --in-flight 8
    f  JPEGs a second that the processors decode

Aims: c at least twice the research loop, ViT-B at least 45 % of the matrix rate; e ten times one process a cell.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import gc
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.spec import Pretrain

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != HERE]  # torch imports another queue.py

MODELS = {"swin-b": "simmim/swin-b", "vit-b": "simmim/vit-b", "r50": "simmim/r50"}
ARMS: dict[str, dict[str, bool]] = {
    "eager": {},
    "compiled": {"compile": True},
    "captured": {"capture": True},
    "compiled and captured": {"compile": True, "capture": True},
}
LOOPS = {"loop": "fused", "loop, attention written out": "written-out"}
ORDER = ("eager", "loop", "compiled", "captured", "compiled and captured", "loop, attention written out")
QUICKSTART = "quickstart"
CELLS = 32
TAIL = 4000
"""Characters of output that are kept."""


class Report:
    """What has been found so far, written to a file after each addition."""

    def __init__(self, path: Path) -> None:
        self.path, self.found, self.begun = path, dict[str, Any](), time.monotonic()

    def add(self, name: str, value: Any) -> None:
        self.found[name] = value
        self.found["seconds"] = round(time.monotonic() - self.begun, 1)
        self.path.write_text(json.dumps(self.found, indent=1, default=str) + "\n", encoding="utf-8")


@dataclasses.dataclass
class Machine:
    """How the sections are run. left: seconds until the whole has to end."""

    smoke: bool
    scratch: Path
    ends: float

    @property
    def left(self) -> float:
        return self.ends - time.monotonic()

    @property
    def device(self) -> str:
        return "cpu" if self.smoke else "cuda"

    def environment(self) -> dict[str, str]:
        """Of all processes that are started: one cache of compiled kernels, this checkout, no threads that fight."""
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(self.scratch / "inductor"), "XDG_CACHE_HOME": str(self.scratch / "xdg")}
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        return {**os.environ, **cache, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HARNESS_GPU_TESTS": self.device}

    def start(self, *command: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            env=self.environment(),
            start_new_session=True,  # so that a limit ends its children too
        )

    def run(self, seconds: float, *command: object) -> dict[str, Any]:
        """Exit code, seconds on the wall and the end of the output of a command."""
        begun = time.monotonic()
        code, output = finish(self.start(*command), min(seconds, self.left))
        return {"exit": code, "seconds": round(time.monotonic() - begun, 2), "output": output[-TAIL:]}


def finish(process: subprocess.Popen[str], seconds: float) -> tuple[int | str, str]:
    """Exit code, or that it ran out of time, and output of a process that may take so many seconds from now."""
    try:
        output, _ = process.communicate(timeout=max(seconds, 1.0))
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return "out of time", output
    return process.returncode, output


def machine(at: Machine) -> dict[str, Any]:
    """Section a, in this process's child, as CUDA must not be touched here."""
    done = at.run(60, sys.executable, __file__, "--rates", at.device)
    try:
        found: dict[str, Any] = json.loads(str(done["output"]).splitlines()[-1])
    except (ValueError, IndexError):
        return done
    return found | {"seconds": done["seconds"]}


def rates(device_name: str) -> dict[str, Any]:
    """Versions and ceilings of the machine."""
    import torch

    from harness.bench import matrix_rate, wait

    device = torch.device(device_name)
    size = (1 << 31) if device_name == "cuda" else (1 << 24)
    source, target = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    seconds = []
    for _ in range(6):
        wait(device)
        begun = time.perf_counter()
        target.copy_(source)
        wait(device)
        seconds.append(time.perf_counter() - begun)
    low = ("bf16", "fp32") if device_name == "cpu" else ("bf16", "tf32", "fp32")
    return {
        "device": torch.cuda.get_device_name() if device_name == "cuda" else platform.processor(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "timm": __import__("timm").__version__,
        "processors": len(os.sched_getaffinity(0)),
        "commit": commit(),
        "matrix_rate": {name: matrix_rate(device, name) for name in low},
        "copy_bytes_per_second": 2 * size / min(seconds),
    }


def commit() -> str:
    """Commit of the checkout, where git is there to say."""
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    with contextlib.suppress(OSError):
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return ""


def tests(at: Machine) -> dict[str, Any]:
    """Section b: the tests, while models are compiled for the next one."""
    warming = {
        name: at.start(*arms_command(at, name, ["compiled"], at.scratch / f"warm-{name}.jsonl", steps=1))
        for name in ([] if at.smoke else MODELS)
    }
    # Without the cache plug-in, and with other libraries' deprecation warnings let through.
    pytest = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "default", "-v", "--tb=short"]
    found = at.run(100, *pytest, "tests/core/test_gpu.py")
    for name, process in warming.items():
        code, output = finish(process, 150 - found["seconds"])
        found[f"compiled once: {name}"] = code if code == 0 else [code, output[-TAIL:]]
    return found


def arms_command(at: Machine, model: str, arms: Sequence[str], out: Path, *, steps: int) -> list[object]:
    smoke = ["--smoke"] if at.smoke else []
    return [sys.executable, __file__, "--arms", model, "--only", ";".join(arms), "--out", out, "--steps", steps, *smoke]


def speed(at: Machine) -> dict[str, Any]:
    """Section c: all arms of a model in one process, one model after the other."""
    seconds = 600.0 if at.smoke else min(90.0, at.left / 3)
    return {model: compared(at, model, [*LOOPS, *ARMS], seconds, steps=2 if at.smoke else 50) for model in MODELS}


def quickstart(at: Machine) -> dict[str, Any]:
    """Section d."""
    return compared(at, QUICKSTART, list(ARMS), 60, steps=5 if at.smoke else 300)


def compared(at: Machine, model: str, arms: Sequence[str], seconds: float, *, steps: int) -> dict[str, Any]:
    out = at.scratch / f"{model}.jsonl"
    done = at.run(seconds, *arms_command(at, model, arms, out, steps=steps))
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    found = {line.pop("arm"): line for line in lines}
    if done["exit"] != 0:
        found["process"] = done
    base = "loop" if "loop" in found else "eager"
    for line in found.values():
        if "images_per_second" in line and (first := found[base].get("images_per_second")):
            line[f"times the {base}"] = round(line["images_per_second"] / first, 2)
    return found


def arms(model: str, chosen: Sequence[str], out: Path, *, steps: int, smoke: bool) -> None:
    """The process of one model: times each arm, and writes a line after each."""
    import torch

    from harness import bench

    device = torch.device("cpu" if smoke else "cuda")
    torch.set_num_threads(1)
    if smoke:
        torch.compile = functools.partial(torch.compile, backend="eager")  # kernels for a CPU take minutes
    precision = "fp32" if smoke else "bf16"
    run = toy_run(model) if smoke else pretraining(MODELS[model]) if model in MODELS else first_of_quickstart()
    batch = 2 if smoke else 64 if model == QUICKSTART else 256
    timed = bench.prepared(run, batch=batch, precision=precision, steps=steps)
    rate = bench.matrix_rate(device, precision)
    flops = 0.0
    for arm in [name for name in ORDER if name in chosen]:
        begun = time.perf_counter()
        found: dict[str, Any]
        try:
            if arm in LOOPS:
                found = loop(model, device, LOOPS[arm], batch=batch, steps=steps, tiny=smoke)
                if flops:
                    found["share"] = flops * found["images_per_second"] / batch / rate
            else:
                options = for_session(ARMS[arm])
                timing = bench.measure(timed, device, steps=steps, **options)
                flops = timing.flops
                found = dataclasses.asdict(timing) | {
                    "images_per_second": timing.images_per_second,
                    "share": timing.share,
                    "steps_per_second": timing.steps / timing.seconds,
                }
        except Exception:
            found = {"error": traceback.format_exc()[-TAIL:]}
        found |= {"arm": arm, "whole_seconds": round(time.perf_counter() - begun, 1)}
        with out.open("a") as file:
            file.write(json.dumps(found) + "\n")
        torch._dynamo.reset()
        gc.collect()
        if not smoke:
            torch.cuda.empty_cache()


def for_session(options: Mapping[str, bool]) -> dict[str, Any]:
    """Fields of the session for an arm.

    Raises:
        LookupError: this checkout has no such field.
    """
    from harness.core.runtime.session import Session

    known = {field.name for field in dataclasses.fields(Session)}
    if lacking := set(options) - known:
        raise LookupError(f"sessions of this checkout have no {', '.join(sorted(lacking))}")
    return dict(options)


def loop(model: str, device: Any, attention: str, **size: Any) -> dict[str, Any]:
    from timm.layers.config import set_fused_attn, use_fused_attn

    sys.path.insert(0, str(HERE))
    import research_loop

    sys.path[:] = [folder for folder in sys.path if folder != str(HERE)]
    before = use_fused_attn()
    set_fused_attn(attention == "fused")
    try:
        return research_loop.timed(model, device, **size)
    finally:
        set_fused_attn(bool(before))


def first_of_quickstart() -> Any:
    from harness.spec import Pretrain
    from harness.study import expand, load

    plan = expand(load(ROOT / "studies" / "quickstart.py"), seeds=1)
    return next(run for run in plan.runs().values() if isinstance(run, Pretrain))


def pretraining(name: str) -> Pretrain:
    """A published pre-training by name."""
    from harness.papers.models import named
    from harness.spec import Pretrain

    run = named(name).make()
    assert isinstance(run, Pretrain)
    return run


def toy_run(model: str) -> Any:
    """A run of the model's family that a CPU can compute."""
    from harness.spec import Backbone

    if model == QUICKSTART:
        return first_of_quickstart()
    run = pretraining(MODELS[model])
    assert isinstance(run.backbone, Backbone)
    sizes: dict[str, dict[str, Any]] = {
        "swin-b": {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 6},
        "vit-b": {"embed_dim": 32, "depth": 2, "num_heads": 2},
        "r50": {},
    }
    name = "resnet18" if model == "r50" else run.backbone.name
    return run.replace(backbone=Backbone(**{**run.backbone.model_dump(), "name": name, "args": sizes[model]}))


def table(at: Machine) -> dict[str, Any]:
    """Section e."""
    # A copy, as reports are written beside the project of a study: none into the checkout.
    study, scale = shutil.copy(HERE / "table_study.py", at.scratch), "toy" if at.smoke else "small"
    command = [sys.executable, "-m", "harness.cli", "run", study, "--scale", scale, "--device", at.device]
    found: dict[str, Any] = {}
    toy = ["--tiny", "--images", 128, "--epochs", 1, "--tuned", 1, "--workers", 0] if at.smoke else []
    found["loop, a process a cell"] = [
        at.run(60, sys.executable, HERE / "research_loop.py", "small", "--table", "--device", at.device, *toy)
    ]
    alone, flown = at.scratch / "alone", at.scratch / "flown"
    # Not of one column, so that the extrapolation is of cells as they come.
    cells = [("2", "0.1"), ("16", "0.6")]
    found["harness, a process a cell"] = [
        at.run(60, *command, "--on", "inline", "--store", alone, "-w", f"unit={unit}", "-w", f"mask_ratio={ratio}")
        for unit, ratio in cells
    ]
    few = ["-w", "unit=2,16", "-w", "mask_ratio=0.1,0.6"] if at.smoke else []
    count = 4 if at.smoke else CELLS
    options = ["--on", "inline", "--in-flight", 8]
    found["in flight"] = at.run(at.left - 10, *command, *options, "--store", flown, *few)
    seconds = {
        name: [one["seconds"] for one in (runs if isinstance(runs, list) else [runs])] for name, runs in found.items()
    }
    each = {name: sum(times) / len(times) for name, times in seconds.items()}
    accuracies = {name: tops(store) for name, store in (("alone", alone), ("in flight", flown))}
    both = accuracies["alone"].keys() & accuracies["in flight"].keys()
    return found | {
        "cells": count,
        "cells in flight that were done": len(accuracies["in flight"]),
        "extrapolated seconds": {
            "loop, a process a cell": each["loop, a process a cell"] * count,
            "harness, a process a cell": each["harness, a process a cell"] * count,
            "in flight": each["in flight"],
        },
        "accuracies": accuracies,
        "equal to alone": {name: accuracies["alone"][name] == accuracies["in flight"][name] for name in both},
    }


def tops(root: Path) -> dict[str, dict[str, float]]:
    """Metrics of the finished fine-tunings of a store, by key."""
    found = {}
    for path in sorted(root.glob("finetune-*/result.json")):
        found[path.parent.name] = json.loads(path.read_text()).get("metrics", {})
    return found


def decode(at: Machine) -> dict[str, Any]:
    """Section f."""
    count = 32 if at.smoke else 4096
    done = at.run(60, sys.executable, __file__, "--decode", count, "--out", at.scratch)
    with contextlib.suppress(ValueError, IndexError):
        done["found"] = json.loads(str(done["output"]).splitlines()[-1])
    return done


def decoded(count: int, scratch: Path) -> dict[str, Any]:
    """Images a second of 500 x 375 JPEGs, one process and one a processor."""
    import numpy as np
    import torch
    from PIL import Image

    from harness.bench import loader_rate, prepared
    from harness.spec import ImageFolder

    drawn = np.random.default_rng(0)
    folder = scratch / "jpegs"
    for number in range(64):
        coarse = Image.fromarray(drawn.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        path = folder / "train" / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
    for number in range(64, count):
        path = folder / "train" / f"class{number % 2}" / f"{number}.jpg"
        path.write_bytes((folder / "train" / f"class{number % 2}" / f"{number % 64}.jpg").read_bytes())
    os.environ["HARNESS_DATA_BENCH_JPEGS"] = str(folder)
    torch.set_num_threads(1)
    processors = len(os.sched_getaffinity(0))
    found: dict[str, Any] = {"processors": processors}
    batch = max(2, min(64, count // 16))
    for decoder in ("pil", "torchvision"):
        try:
            run = pretraining("simmim/vit-b")
            timed = prepared(run, batch=batch, precision="fp32", steps=count // batch)
            data = ImageFolder.model_validate(
                {"name": "bench-jpegs"} | ({} if decoder == "pil" else {"decoder": decoder})
            )
            for workers in (0, processors):
                steps = max(2, (count // batch // 4 if workers == 0 else count // batch) - 2)
                found[f"{decoder}, {workers} workers"] = loader_rate(
                    timed.replace(data=data), torch.device("cpu"), workers=workers, steps=steps
                )
        except Exception:
            found[decoder] = traceback.format_exc()[-TAIL:]
    return found


SECTIONS: dict[str, Callable[[Machine], dict[str, Any]]] = {
    "a": machine,
    "b": tests,
    "c": speed,
    "d": quickstart,
    "e": table,
    "f": decode,
}


def shown(found: Mapping[str, Any]) -> list[str]:
    """A few lines that say how it went."""
    lines = []
    if rate := found.get("a", {}).get("matrix_rate"):
        lines.append(f"a {found['a']['device']}: " + ", ".join(f"{k} {v / 1e12:.1f} T/s" for k, v in rate.items()))
    if "output" in found.get("b", {}):
        lines += [f"b {line}" for line in found["b"]["output"].splitlines()[-3:]]
    for section in ("c", "d"):
        models = found.get(section, {}) if section == "c" else {QUICKSTART: found.get("d", {})}
        for model, measured in models.items():
            for arm, line in measured.items() if isinstance(measured, dict) else ():
                if "images_per_second" in line:
                    share = f"{line['share']:.1%} of the rate" if "share" in line else ""
                    memory = f"{line.get('peak_bytes', 0) / 1e9:.1f} GB"
                    times = line.get("times the loop", line.get("times the eager", ""))
                    lines.append(
                        f"{section} {model}, {arm}: {line['images_per_second']:,.0f}/s, {times} x, {share}, {memory}"
                    )
                elif "error" in line:
                    lines.append(f"{section} {model}, {arm}: {line['error'].strip().splitlines()[-1][:150]}")
    if "extrapolated seconds" in found.get("e", {}):
        equal = found["e"]["equal to alone"]
        lines.append(f"e {found['e']['extrapolated seconds']}, equal to alone: {equal}")
    if "found" in found.get("f", {}):
        lines.append(f"f {found['f']['found']}")
    lines += [f"{name} FAILED: {value['error'].splitlines()[-1]}" for name, value in found.items() if failed(value)]
    return lines


def failed(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("error"), str)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the JSON that is written")
    parser.add_argument("--smoke", action="store_true", help="toy size, on a CPU")
    parser.add_argument("--only", default="", help="sections, such as a,c")
    parser.add_argument("--seconds", type=float, default=480.0, help="limit of the whole")
    for hidden in ("--rates", "--arms", "--decode", "--steps"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rates:
        print(json.dumps(rates(given.rates)))
        return
    if given.arms:
        arms(given.arms, given.only.split(";"), given.out, steps=int(given.steps), smoke=given.smoke)
        return
    if given.decode:
        print(json.dumps(decoded(int(given.decode), given.out)))
        return
    if given.out is None:
        parser.error("--out says where the JSON goes")
    report = Report(given.out)
    with tempfile.TemporaryDirectory(prefix="harness-gpu-") as scratch:
        at = Machine(given.smoke, Path(scratch), time.monotonic() + (3600 if given.smoke else given.seconds))
        for name, section in SECTIONS.items():
            if given.only and name not in given.only.split(","):
                continue
            if at.left < 15:
                report.add(name, {"skipped": f"{at.left:.0f} seconds were left"})
                continue
            begun = time.monotonic()
            try:
                found = section(at)
            except Exception:
                found = {"error": traceback.format_exc()[-TAIL:]}
            report.add(name, found)
            print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    print("\n".join(shown(report.found)))


if __name__ == "__main__":
    main()
