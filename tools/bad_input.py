"""Bad study files and command lines: does any of them end in a traceback, or not at all?

Every case is a small project with one mistake in its study file, its profile or its command line. What `harness plan`
lets through is audited and reported too. Run from the root of the project: python tools/bad_input.py [number] [seed]
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

LIMIT = 300
"""Seconds of a command after which it counts as endless."""

STUDY = Path(__file__).parents[1] / "tests" / "cli" / "ratios.py.txt"
SETTINGS = """\
    seeds=2,
    claims=(),
    factors={},
    paper=None,
    looks=(),
    margin_share=0.2,
    name="",
"""
FILE = STUDY.read_text().replace("    seeds=2,\n", SETTINGS)
"""The study of the tests of the command line, with every setting of a study written out."""

PLACES = (
    "seeds=2", "claims=()", "factors={}", "paper=None", "looks=()", "margin_share=0.2", 'name=""', "cell=cell",
    'scales=(sized("small"), sized("large", DATA.replace(train=48)))', 'reference={"mask": "random", "ratio": 0.5}',
    "ratio=(0.5, 0.75, 0.9)", "size=4", "ratio=ratio",
    "epochs=1", "batch_size=16", "lr=1e-3", "lr_batch=None", "crop_scale=(0.67, 1.0)", "patch_size=4", "image_size=16",
    "train=32", "test=16", "name=name", "data=DATA", "backbone=VIT", "pretrain=RECIPE", "start=start", "seed=seed",
    'name="vit_tiny_patch16_224"', 'args={"embed_dim": 16, "depth": 1, "num_heads": 2}',
)  # fmt: skip
"""Arguments that are given another value, each `name=value` at its first place."""

VALUES = (
    "None", "True", "-1", "0", "1.5", "float('nan')", "float('inf')", "10**20", "10**400", "10**5000", "''", "'x'",
    "'\\x1b[31m=1+1'", "'x' * 300", "()", "('x',)", "(1, '1')", "[]", "[1, 2]", "{}", "{'x': 1}", "{1: 2}", "object()",
    "lambda *a, **b: None", "b'x'", "range(10**9)", "iter(int, 1)", "...", "print", "type",
)  # fmt: skip
EDITS = (
    ('{"top1": F', "{1: F"), ('{"top1": F', "{None: F"), ('{"top1": F', "{(1, 2): F"), ('{"top1": F', "{'': F"),
    ('return {"top1"', 'return None and {"top1"'), ('return {"top1"', 'return [1] or {"top1"'),
    ('Skip("0.9 is too much")', "Skip(None)"), ('Skip("0.9 is too much")', "Skip"), ('"0.9 is too much"', "''"),
    ('raise Skip("0.9 is too much")', "raise BaseException('x')"), ('raise Skip("0.9 is too much")', "return 1 / 0"),
    ('raise Skip("0.9 is too much")', "__import__('sys').exit(0)"), ('raise Skip("0.9 is too much")', "cell()"),
    ('raise Skip("0.9 is too much")', "return cell(scale, mask, ratio, seed)"),
    ('"num_heads": 2', '"num_heads": 0'), ('"embed_dim": 16', '"embed_dim": -16'), ('"depth": 1', '"depth": 10**9'),
    ('"num_heads": 2', '"num_heads": 3'), ('"num_heads": 2', '"num_heads": 2, "heads": 2'),
    ('"depth": 1', '"depth": 0'),
    ('"depth": 1', '"depth": "1"'), ('"depth": 1', '"mlp_ratio": -1'), ("vit_tiny_patch16_224", "xcit_nano_12_p16_224"),
    ("crop_scale=(0.67, 1.0)", "rand_augment='rand-x9'"), ("crop_scale=(0.67, 1.0)", "rand_augment='nonsense'"),
    ("crop_scale=(0.67, 1.0)", "rand_augment='rand-mx'"), ("crop_scale=(0.67, 1.0)", "mixup=10**400"),
    ("ratio=(0.5, 0.75, 0.9)", "ratio=(0.5,), self=1"), ("(scale, mask, ratio, seed)", "(self, mask, ratio, seed)"),
    ("ratio=(0.5, 0.75, 0.9)", "ratio=tuple(i / 200_000 for i in range(1, 180_000))"),
    ("ratio=(0.5, 0.75, 0.9)", "ratio=range(1000), more=range(1000), most=range(1000)"),
    ("seeds=2,", "seeds=2, seedz=3,"), ("def cell(scale, mask, ratio, seed)", "def cell(scale, mask, seed)"),
)  # fmt: skip
TEXTS = (
    b"", b"x = 1", b"STUDY = 3", b"STUDY = None", b"def f(:", b"\x00", b"\xff\xfe", b"# -*- coding: nope -*-\n",
    b"raise SystemExit", b"raise BaseException('now')", b"import sys; sys.exit('bye')",
    b"class E(BaseException): ...\nraise E",
    b"raise KeyboardInterrupt", b"raise GeneratorExit", b"import nowhere", b"1 / 0", b"def f(): f()\nf()",
    b"(" * 5000, b"x = " + b"[" * 150 + b"]" * 150, b"raise Exception('a\\nb\\x1b[2J')", b"assert False",
    b"from harness import nothing_such", b"import harness; STUDY = harness.Study", b"raise MemoryError",
    b"import os; os.chdir('/')", b"del __builtins__\nprint()",
    b"raise type('E', (Exception,), {'__str__': lambda s: 1 / 0})()",
)  # fmt: skip
PROFILES = (
    b"[data",
    b"\xff",
    b"dta = 1",
    b"store = 1",
    b"[data]\nx = 1",
    b"[slurm]\npartion = 'x'",
    b"[slurm]\nminutes = 'x'",
    b"slurm = 1",
    b"[slurm]\npretrain = 1",
    b"store = '\\u0000'",
    b"a = " + b"[" * 2000,
)
COMMANDS: tuple[tuple[str, ...], ...] = (
    (), ("nothing",), ("plan",), ("plan", "nowhere.py"), ("plan", "."), ("plan", "\x00"), ("plan", "STUDY", "--nope"),
    ("plan", "STUDY", "--scale", "x"), ("plan", "STUDY", "--scale", ""), ("plan", "STUDY", "--seeds", "0"),
    ("plan", "STUDY", "--seeds", "1.5"), ("plan", "STUDY", "--seeds", "9" * 30),
    ("plan", "STUDY", "--seeds", "9" * 5000),
    ("plan", "STUDY", "-w", "ratio"), ("plan", "STUDY", "-w", "=1"), ("plan", "STUDY", "-w", "ratio=0.3"),
    ("plan", "STUDY", "-w", "x=1"), ("plan", "STUDY", "-w", "ratio="), ("plan", "STUDY", "--store", "/dev/null"),
    ("plan", "STUDY", "--store", "\x00"), ("plan", "STUDY", "--on", "moon"), ("plan", "STUDY", "-w", "ratio=\x1b[31m"),
    ("run", "STUDY", "--slots", "0"), ("run", "STUDY", "--processes", "-1"), ("run", "STUDY", "--device", "tpu"),
    ("run", "STUDY", "-w", "ratio=0.9"), ("run", "STUDY", "--until-decided"), ("run", "STUDY", "--store", "/proc/x"),
    ("run", "STUDY", "--on", "slurm", "--slots", "2"), ("retry", "STUDY", "--store", "/dev/null"),
    ("logs", "STUDY", "-w", "ratio=x"), ("status", "nowhere.py"), ("report", "STUDY", "--scale", "x"),
    ("compare", "a", "b"), ("compare", "STUDY", "STUDY"), ("compare",), ("metrics", "x"), ("metrics", "STUDY"),
    ("models", "x"), ("clean", "STUDY", "--store", "/dev/null"), ("cancel", "nowhere.py"), ("doctor", "nowhere"),
    ("search", "STUDY"), ("search", "nowhere.py"), ("analyse", "x"), ("avgdist", "nowhere"), ("predict", "x", "y"),
    ("reconstruct", "x", "y"), ("export", "x", "y"), ("export",), ("new", "studies"), ("new", "/dev/null/x"),
    ("new", "\x00"), ("audit", "nowhere.py"), ("audit", "STUDY", "-w", "ratio=0.9"), ("audit", "STUDY", "--scale", "x"),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One mistake: a study file, a profile, and a command line in which STUDY stands for the file."""

    words: str
    text: bytes = FILE.encode()
    profile: bytes = b""
    command: tuple[str, ...] = ("plan", "STUDY")


@dataclass
class Tally:
    """What became of the cases."""

    refused: int = 0
    accepted: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    endless: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)


LISTS = ("accepted", "tracebacks", "endless", "unclear")


def edited(old: str, new: str) -> bytes:
    """The study with another text at one place."""
    assert old in FILE, old  # or the case would be no mistake
    return FILE.replace(old, new, 1).encode()


def cases(number: int, seed: int) -> list[Case]:
    """A choice of that many, in which single edits, whole files, profiles and command lines come first."""
    fixed = [Case(f"{old} -> {new}", edited(old, new)) for old, new in EDITS]
    fixed += [Case(repr(text[:40]), text) for text in TEXTS]
    fixed += [Case(f"profile {text[:40]!r}", profile=text) for text in PROFILES]
    fixed += [Case(" ".join(command)[:60] or "no command", command=command) for command in COMMANDS]
    values = [
        Case(f"{place} -> {value}", edited(place, f"{place.partition('=')[0]}={value}"))
        for place in PLACES
        for value in VALUES
    ]
    drawn = random.Random(seed)
    drawn.shuffle(fixed)
    drawn.shuffle(values)
    count = min(len(fixed), number * 2 // 3)
    return fixed[:count] + values[: number - count]


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[list[bool]]:
    """Interrupt what takes longer; the list is then no longer empty."""
    late: list[bool] = []

    def ring(number: int, frame: FrameType | None) -> None:
        late.append(True)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield late
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def call(arguments: Sequence[str], tally: Tally, words: str) -> int:
    """Call the command line in this process, and count what is wrong about how it ends; its exit code."""
    from harness.cli import main

    kept = list(sys.argv), list(sys.path), os.environ.copy(), Path.cwd(), signal.getsignal(signal.SIGTERM)
    told, code = io.StringIO(), 0
    name = f"{' '.join(arguments)[:40]!r}: {words}"
    with limited(LIMIT) as late, contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        sys.argv = ["harness", *arguments]
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        except BaseException as error:
            code = 1
            tally.tracebacks.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
    sys.argv, sys.path[:] = kept[0], kept[1]
    os.environ.clear()
    os.environ.update(kept[2])
    os.chdir(kept[3])
    signal.signal(signal.SIGTERM, kept[4])
    if late:
        tally.endless.append(name)
    lines = told.getvalue().splitlines()
    if "Traceback" in told.getvalue():
        tally.tracebacks.append(f"{name}: printed")
    elif code not in (0, 1, 130) and len(lines) != 1 and arguments:
        tally.unclear.append(f"{name}: {len(lines)} lines: {lines[:2]}")
    return code


def try_case(case: Case, folder: Path, tally: Tally) -> None:
    """Write the project of a case and call its command; what `plan` lets through is audited and reported too."""
    path = folder / "studies" / "bad.py"
    path.parent.mkdir(parents=True)
    path.write_bytes(case.text)
    (folder / "harness.toml").write_bytes(case.profile)
    arguments = [str(path) if word == "STUDY" else word for word in case.command]
    os.chdir(folder)
    if call(arguments, tally, case.words):
        tally.refused += 1
        return
    tally.accepted.append(case.words)
    if case.command == ("plan", "STUDY"):
        for command in ("status", "report", "audit"):
            call([command, str(path)], tally, case.words)


def tried(chosen: Sequence[Case], tell: bool = False) -> Tally:
    """What becomes of these cases."""
    tally, here = Tally(), Path.cwd()
    for number, case in enumerate(chosen, start=1):
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try_case(case, Path(folder), tally)
            os.chdir(here)
        if tell:
            print(f"{number} {time.monotonic() - begun:.1f} s {case.words[:70]!r}", flush=True)
    return tally


if __name__ == "__main__":
    sys.set_int_max_str_digits(4300)
    chosen = cases(*(int(word) for word in (*sys.argv[1:], *("200", "0")[len(sys.argv) - 1 :])))
    found = tried(chosen, tell=True)
    counts = ", ".join(f"{len(getattr(found, title))} {title}" for title in LISTS)
    print(f"{len(chosen)} cases: {found.refused} refused, {counts}")
    for title in LISTS:
        for line in getattr(found, title):
            print(f"  {title:<10} {line}")
    sys.exit(1 if found.tracebacks or found.endless else 0)
