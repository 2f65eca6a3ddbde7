"""Change bits of a store's files, one at a time, and see what becomes of them. Nothing may be taken for the truth.

    python tools/bit_flips.py            # every bit of the records, 1,000 random bits of each other file: some minutes
    python tools/bit_flips.py --share 0.01

Each damaged file is read in the ways the harness reads it, and each reading ends as one of
    refused     one clear line (HarnessError)
    healed      it counts as absent: the run is computed again, the checkpoint before is taken, the cache filled anew
    unchanged   what is read is what was written
    accepted    something else is read: this must not happen, but to records of schema 1, which have no digest
    traceback   any other exception: this must not happen at all
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
OLD = ROOT / "tests" / "store" / "files" / "schema1"
HEALED = ("healed",)
"""What a reading returns for a file that counts as absent."""
SHAPES: tuple[bytes, ...] = (b"", b"{}", b"[]", b"null", b'"', b"[" * 100_000, b'{"a":' * 100_000, b"\0" * 500)
STUDY = """
from harness import Backbone, FineTune, RandomMask, Recipe, Scale, Shapes, Study, axes, simmim

RECIPE = Recipe(epochs=1, batch_size=16, lr=1e-3, lr_batch=None)
VIT = Backbone(name="vit_tiny_patch16_224", args={"embed_dim": 8, "depth": 1, "num_heads": 2}, patch_size=4)
SMALL = Scale(name="small", data=Shapes(image_size=16, train=32, test=16), image_size=16, backbone=VIT, pretrain=RECIPE,
              finetune=RECIPE)


def cell(scale, ratio, seed):
    start = simmim(scale, mask=RandomMask(size=4, ratio=ratio), seed=seed)
    return {"top1": FineTune(start=start, data=scale.data, recipe=scale.finetune, seed=seed)}


STUDY = Study(cell=cell, grid=axes(ratio=(0.5, 0.75)), scales=(SMALL,), reference={"ratio": 0.5}, seeds=1)
"""


@dataclass(frozen=True)
class Target:
    """A file and how it is read. bits: how many of its bits to change, None for all."""

    name: str
    path: Path
    read: Callable[[], Any]
    bits: int | None = None


def damaged(data: bytes, bits: int | None, share: float, draw: random.Random) -> Iterator[bytes]:
    """The data with single bits changed, cut off, and in other shapes."""
    places = list(range(8 * len(data)))
    if bits is not None:
        places = [draw.randrange(8 * len(data)) for _ in range(bits)]
    lengths = list(range(len(data))) if bits is None else [draw.randrange(len(data)) for _ in range(bits // 10)]
    if share < 1:
        places = draw.sample(places, max(1, int(len(places) * share)))
        lengths = draw.sample(lengths, max(1, int(len(lengths) * share)))
    for place in places:
        yield data[: place // 8] + bytes([data[place // 8] ^ 1 << place % 8]) + data[place // 8 + 1 :]
    for length in lengths:
        yield data[:length]
    yield from SHAPES


def outcome(read: Callable[[], Any], whole: Any) -> tuple[str, str]:
    """How a reading of a damaged file ends, and what a traceback says."""
    from harness.spec import HarnessError

    try:
        found = read()
    except HarnessError as error:
        return ("refused" if "\n" not in str(error) else "traceback"), str(error)
    except Exception:
        return "traceback", traceback.format_exc()
    if found == HEALED:
        return "healed", ""
    return ("unchanged" if found == whole else "accepted"), repr(found)[:300]


def campaign(targets: list[Target], share: float, draw: random.Random) -> tuple[dict[str, Counter[str]], list[str]]:
    """The outcomes for each target, and what went wrong in words."""
    counts: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    for target in targets:
        data, whole = target.path.read_bytes(), target.read()
        found = counts.setdefault(target.name, Counter())
        for changed in damaged(data, target.bits, share, draw):
            target.path.write_bytes(changed)
            word, text = outcome(target.read, whole)
            found[word] += 1
            if word in ("accepted", "traceback"):
                wrong.append(f"{target.name}: {word}: {text}")
        target.path.write_bytes(data)
    return counts, wrong


def record_targets(root: Path, run: Any, journal: Path) -> list[Target]:
    """Result, spec, owner, submission and journal of a store that holds a finished run."""
    from harness.spec import key
    from harness.store import Store
    from harness.store.lease import UNKNOWN, read_owner
    from harness.store.submissions import Submissions

    store, log, name = Store(root), Submissions(root), key(run)
    folder = store.folder(name)
    owner, lines = folder.attempt(1).owner, journal.read_bytes().count(b"\n")

    def result() -> Any:
        found = store.state(name)
        return HEALED if found.result is None else found.result

    def registered() -> Any:
        data = folder.spec.read_bytes()
        try:
            store.register(run)
            return HEALED if folder.spec.read_bytes() != data else store.spec(name)
        finally:
            folder.spec.write_bytes(data)

    return [
        Target("result", folder.result, result),
        Target("spec", folder.spec, lambda: store.spec(name)),
        Target("spec, registered again", folder.spec, registered, 1000),
        Target("owner", owner, lambda: HEALED if (found := read_owner(owner)) == UNKNOWN else found),
        Target("submission entry", log.folder(1).entry, log.entries),
        Target("what sbatch said", log.folder(1).answer(0), lambda: log.answer(1, 0) or HEALED),
        Target("journal of a search", journal, lambda: trials(journal, lines)),
    ]


def trials(journal: Path, lines: int) -> Any:
    """The trials of a journal. One that lacks lines at its end is that of an earlier time, and the search goes on."""
    import optuna

    from harness.search.storage import open_storage
    from harness.search.trials import plain
    from harness.store.layout import SearchFolder

    shorter = journal.read_bytes().count(b"\n") < lines
    storage = open_storage(SearchFolder(journal.parent), None, writing=False)
    names = [study.study_name for study in storage.get_all_studies()]
    if shorter or not names:
        return HEALED
    study = optuna.load_study(storage=storage, study_name=names[-1])
    return [study.user_attrs, *(plain(trial) for trial in study.get_trials(deepcopy=False))]


def other_targets(root: Path, run: Any, evaluation: Any, project: Path, bits: int) -> list[Target]:
    """Metrics, weights, checkpoints and caches."""
    from harness.core.weights.finished_run import opened
    from harness.launch.cost import ModelCost, read_model_cost, write_model_cost
    from harness.spec import key
    from harness.spec.data.external_content import cached_file_sha256
    from harness.spec.model.described import costed_model
    from harness.store import Attempt, Store
    from harness.store.features import keep_features, kept_features
    from harness.store.layout import FeaturesFolder

    store, name = Store(root), key(run)
    attempt = store.folder(name).attempt(1)
    model = costed_model(run)
    write_model_cost(root, model, ModelCost(1000, 20000, 300, 4000))
    stored = root / ".descriptions" / f"{model.digest}.json"
    data_file = project / "data.bin"
    data_file.write_bytes(b"data")
    cached_file_sha256(data_file)
    (cache,) = (project / "cache").rglob("file-*.json")
    waiting = store.acquire(evaluation.replace(seed=77))
    assert isinstance(waiting, Attempt)
    waiting.release()
    going = store.acquire(run.replace(seed=78))
    assert isinstance(going, Attempt)
    for step in (1, 2):

        def write(file: IO[bytes], byte: bytes = bytes([step])) -> None:
            file.write(byte * 500)

        going.write_checkpoint(step, write)
    going.write_snapshot(1, b"weights of an epoch" * 20)
    latest = next(going.checkpoints()).path
    (snapshot,) = going.files.snapshots(1)
    going.release()

    features = FeaturesFolder(root, "0" * 64)
    keep_features(features, memoryview(bytes(range(256)) * 4))
    (kept,) = features.files()

    def kept_again() -> Any:
        with kept_features(features) as found:
            return HEALED if found is None else bytes(found)

    def checkpoint() -> Any:
        found = next(going.checkpoints()).step
        return HEALED if found == 1 else found

    from harness.store.snapshots import whole_snapshot

    return [
        Target("metrics", attempt.metrics, lambda: store.metrics(name), bits),
        Target("environment", attempt.environment, lambda: store.environment(name), bits),
        Target("weights, to evaluate", attempt.weights, lambda: store.upstream_weights(name), bits),
        Target("weights, to use", attempt.weights, lambda: opened(name, store).name, bits),
        Target("checkpoint", latest, checkpoint, bits),
        Target("snapshot", snapshot, lambda: whole_snapshot(store, going.key, 1), bits),
        Target("kept features", kept, kept_again, bits),
        Target("cache of descriptions", stored, lambda: read_model_cost(root, model) or HEALED, bits),
        Target("cache of digests", cache, lambda: cached_file_sha256(data_file), bits),
    ]


def build(folder: Path) -> tuple[Path, Any, Any, Path]:
    """A small store of the present schema: its folder, a pre-training and a fine-tuning, and a journal of 20 lines."""
    sys.path[:0] = [str(ROOT / "tests" / "launch")]
    import optuna
    from tiny_runs import compute, finetuning, pretraining

    from harness.search.storage import begin, open_storage
    from harness.spec import key
    from harness.store import Store
    from harness.store.layout import search_folder
    from harness.store.submissions import Array, Submissions

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    root = folder / "runs"
    run = pretraining(epochs=2)
    tuned = finetuning(run, epochs=2)
    assert [event.kind for event in compute(Store(root), run, tuned)] == ["done", "done"]
    log, names = Submissions(root), (key(run), key(tuned))
    stage = {"resources": {"device": "cpu"}, "slots": 2, "attempts": 20, "program": "harness.launch.job"}
    arrays = (Array("mim-0-0", "pretrain", (names[:1],)), Array("mim-0-1", "evaluation", (names[1:],), 0))
    log.publish(1, "submission", "s/small", names, arrays, {"pretrain": stage, "evaluation": stage})
    log.record(1, 0, {"id": "4711"})
    place = search_folder(root, "tiny-small")
    storage = open_storage(place, None, writing=True)
    study = begin(storage, "tiny-small", ("maximize",), {"space": {}, "seed": 0}, optuna.pruners.NopPruner())
    while place.journal.read_bytes().count(b"\n") < 20:
        trial = study.ask({"ratio": optuna.distributions.FloatDistribution(0.1, 0.9)})
        trial.set_user_attr("cell", {"ratio": trial.params["ratio"]})
        trial.set_user_attr("run", names[1])
        study.tell(trial, 50.0 + trial.number)
    return root, run, tuned, place.journal


def command(*arguments: str) -> tuple[str, str]:
    """How a command ends in this process, and what it says where it refuses."""
    from harness.cli import main as entry

    err, kept = io.StringIO(), sys.argv
    sys.argv = ["harness", *arguments]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            entry()
    except SystemExit as ended:
        said = err.getvalue()
        if ended.code == 2:
            return ("refused" if said.count("\n") == 1 and "Traceback" not in said else "traceback"), said
        return ("done" if "Traceback" not in said else "traceback"), said
    except BaseException:
        return "traceback", traceback.format_exc()
    finally:
        sys.argv = kept
    return "done", ""


def commands(folder: Path, rounds: int, draw: random.Random) -> tuple[Counter[str], list[str]]:
    """How commands end on a study of four runs, one random bit of one random file of its store changed."""
    study, runs, whole = folder / "studies" / "tiny.py", folder / "runs", folder / "whole"
    study.parent.mkdir(parents=True)
    (folder / "harness.toml").touch()
    study.write_text(STUDY)
    ended = command("run", str(study), "--on", "inline", "--device", "cpu")
    assert ended[0] == "done", ended
    shutil.copytree(runs, whole)
    files = sorted(path for path in whole.rglob("*") if path.is_file() and path.stat().st_size)
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    for number in range(rounds):
        path = runs / draw.choice(files).relative_to(whole)
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        asked = ("status", "logs", "plan", "report", "clean")[number % 5]
        word, text = command(asked, str(study), *(["--yes"] if asked == "clean" else []))
        counts[f"{asked} {word}"] += 1
        if word == "traceback":
            wrong.append(f"{asked} with {path.relative_to(folder)}: {text}")
        shutil.rmtree(runs)
        shutil.copytree(whole, runs)
    return counts, wrong


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign and print a table; 1 if anything was accepted or ended in a traceback."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="share of the changes that are tried")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    draw = random.Random(chosen.seed)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"XDG_CACHE_HOME": f"{name}/cache", "XDG_CONFIG_HOME": f"{name}/config", "HARNESS_PROJECT": ""}
        root, run, tuned, journal = build(folder)
        old, first = folder / "old", "pretrain-273defd5d1792c1bc354"
        shutil.copytree(OLD, old)
        from harness.store import Store

        present = [*record_targets(root, run, journal), *other_targets(root, run, tuned, folder, 1000)]
        before = record_targets(old, Store(old).spec(first), old / ".searches" / "tiny-small" / "journal.log")
        for title, targets in (("present", present), ("schema 1", before)):
            counts, found = campaign(targets, chosen.share, draw)
            wrong += [text for text in found if title == "present" or ": traceback: " in text]
            for target, words in counts.items():
                print(f"{title:<9} {target:<24} {words.total():>7}   {dict(words)}", flush=True)
        counts_of_commands, found = commands(folder / "project", max(5, int(500 * chosen.share)), draw)
        print(f"{'commands':<34} {counts_of_commands.total():>7}   {dict(counts_of_commands)}", flush=True)
        wrong += found
    for text in wrong[:20]:
        print(text, file=sys.stderr)
    print(f"{len(wrong)} went wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
