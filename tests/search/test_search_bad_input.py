"""Mistakes become one line that names the valid choices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_coordinator import run
from toy import DATA, SCALE, FakeJobs, cell, pretrained, space, toy

from harness.search import Rungs
from harness.search.session import coordinating, history, open_search, settings
from harness.search.storage import differing
from harness.spec import HarnessError, Knn
from harness.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def rung(scale: Any, start: Any, seed: int) -> Any:
    return Knn(start=start, data=DATA.replace(split="validation"), seed=seed)


RUNGS = Rungs(epochs={"toy": (2, 6)}, evaluation=rung)


def on_test_images(scale: Any, start: Any, seed: int) -> Any:
    return Knn(start=start, data=DATA, seed=seed)


def of_no_neighbour(scale: Any, start: Any, seed: int) -> Any:
    return Knn(start=start, data=DATA.replace(split="validation"), k=0, seed=seed)


def forgotten(scale: Any, start: Any, seed: int) -> Any:
    rung(scale, start, seed)


def judged_by(evaluation: Any) -> dict[str, Any]:
    """A search whose cells have pre-trainings, stopped by this evaluation of snapshots."""
    rungs = Rungs(epochs={"toy": (2, 6)}, evaluation=evaluation)
    return {"cell": pretrained, "reference": {"k": 1, "temperature": 0.5}, "pruner": "median", "rungs": rungs}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sampler": "bayes"}, "no sampler 'bayes'; valid: tpe, gp, cmaes, random, nsga2"),
        ({"pruner": "asha"}, "no pruner 'asha'; valid: none, halving, hyperband, median, wilcoxon"),
        ({"direction": "up"}, "no direction 'up'; valid: maximize, minimize"),
        ({"metric": ("a", "b"), "direction": ("maximize",)}, "2 metrics and 1 directions"),
        ({"seeds": 0}, "seeds should be 1 or more"),
        ({"seeds": 4, "promising_seeds": 2}, "promising_seeds 2 is less than seeds 4"),
        (
            {"promising_seeds": 3, "metric": ("validation", "gpu_hours"), "direction": ("maximize", "minimize")},
            "needs one metric to tell by",
        ),
        ({"trials": {"toy": 0}}, r"trials\['toy'\] = 0"),
        ({"trials": {"small": 5}}, "should be 1 or more for one of toy"),
        ({"pruner": "halving"}, "give rungs"),
        ({"rungs": RUNGS}, "rungs without a pruner do nothing"),
        ({"seeds": 1001}, "trials need seeds below 1,000"),
        ({"pruner": "wilcoxon", "seeds": 4}, "the wilcoxon pruner needs 5 seeds or more, not 4"),
        (
            {
                "pruner": "median",
                "rungs": RUNGS,
                "metric": ("validation", "gpu_hours"),
                "direction": ("maximize", "minimize"),
            },
            "compares one metric",
        ),
        (
            {"pruner": "median", "rungs": Rungs(epochs={"tny": (2, 6)}, evaluation=rung)},
            "no scale of rungs 'tny'; valid: toy",
        ),
        (
            {"pruner": "hyperband", "rungs": Rungs(epochs={"toy": (2, 4)}, evaluation=rung)},
            "'hyperband' compares after 2, 6 epochs or later, and rungs at scale toy are 2, 4: give each 3",
        ),
        (
            {"pruner": "median", "rungs": RUNGS, "metric": "gpu_hours", "direction": "minimize"},
            "pruner 'median' compares what rungs evaluate, which says nothing of gpu_hours: give another metric",
        ),
        ({"metric": "gpu_hours"}, 'gpu_hours is a cost: its direction should be "minimize"'),
        ({"metric": ("validation", "gpu_hours")}, "gpu_hours is a cost"),
    ],
)
def test_declarations_that_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(HarnessError, match=says):
        toy(**changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metric": "accuracy"}, "no evaluation gives 'accuracy'; valid: validation, top1, validation.top1"),
        ({"metric": "validation.f1"}, "no evaluation gives 'validation.f1'"),
        ({"metric": "top1"}, 'measured on the test images, by which nothing may be chosen: give its data split="valid'),
        ({"test": "top5"}, "test: no column 'top5'; valid: validation, top1"),
        (judged_by(on_test_images), "the evaluation of rungs, knn, is measured on the test images"),
        (judged_by(of_no_neighbour), r"test_search_bad_input.py, line \d+: the evaluation of rungs fails: .*k"),
        (judged_by(forgotten), "the evaluation of rungs should be one such as Knn.*, not None"),
        ({"sampler": "cmaes"}, "cmaes needs numbers, and temperature is a category"),
        (
            {"sampler": "cmaes", "space": lambda trial: {"k": trial.suggest_int("k", 1, 6), "temperature": 0.1}},
            "cmaes needs two parameters",
        ),
    ],
)
def test_searches_that_are_refused_before_anything_is_asked(store: Store, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(HarnessError, match=says):
        open_search(toy(**changes), store)
    assert not store.root.exists()


def test_metrics_are_those_of_the_run_and_not_of_its_kind(store: Store) -> None:
    def several(scale: Any, k: int, temperature: float, seed: int) -> Any:
        found = cell(scale, k, temperature, seed)
        return {**found, "validation": found["validation"].replace(k=(20, 10))}

    measure = open_search(toy(cell=several, metric="validation.top1_k10"), store).measure
    assert [metric.name for metric in measure.metrics] == ["top1_k10"]
    with pytest.raises(HarnessError, match=r"no evaluation gives 'validation.top1_k9'; valid: .*validation.top1_k10"):
        open_search(toy(cell=several, metric="validation.top1_k9"), store)


def test_no_such_scale_and_no_budget(store: Store) -> None:
    with pytest.raises(HarnessError, match="no scale 'paper'; this search has toy"):
        open_search(toy(), store, scale="paper")
    search = toy(trials={})
    with pytest.raises(HarnessError, match="give --trials"):
        search.budget(search.scale())
    assert search.budget(search.scale(), 7) == 7


def wider(trial: Any) -> dict[str, Any]:
    return {
        "k": trial.suggest_int("k", 1, 6),
        "temperature": trial.suggest_categorical("temperature", (0.1, 0.2, 0.3, 0.4, 0.5, 0.7)),
    }


def test_a_changed_space_is_told_and_a_new_search_begins_from_the_store(store: Store) -> None:
    jobs = FakeJobs(store)
    before = run(toy(), store, jobs, budget=10)
    with pytest.raises(HarnessError, match=r"temperature was one of 0.1, .*0.6 and is one of 0.1, .*0.7.*--new"):
        run(toy(space=wider), store, jobs)
    after = run(toy(space=wider), store, jobs, budget=3, new=True)
    kept = {(t.params["k"], t.params["temperature"]) for t in before if t.params["temperature"] != 0.6}
    assert {(t.params["k"], t.params["temperature"]) for t in after if t.imported} == kept
    assert sum(t.computed for t in after) == 3
    again, study = history(open_search(toy(space=wider), store))
    assert again == after
    assert study.study_name == "toy-toy.2"


def test_other_settings_that_changed(store: Store) -> None:
    run(toy(), store, FakeJobs(store), budget=2)
    with pytest.raises(HarnessError, match="sampler was tpe and is random; seed was 0 and is 3"):
        run(toy(sampler="random"), store, FakeJobs(store), seed=3)
    with pytest.raises(HarnessError, match=r"metric was \['validation'\] and is \['gpu_hours'\]"):
        run(toy(metric="gpu_hours", direction="minimize"), store, FakeJobs(store))
    assert len(run(toy(), store, FakeJobs(store), budget=3)) == 3


def test_values_of_another_recipe_are_not_mixed_with_new_ones(store: Store) -> None:
    longer = SCALE.replace(pretrain=SCALE.pretrain.replace(epochs=9))
    search = toy(cell=pretrained, reference={"k": 1, "temperature": 0.5})
    run(search, store, FakeJobs(store), budget=2)
    changed = replace(search, scales=(longer,))
    with pytest.raises(HarnessError, match=r"what the reference computes was \['knn-.*'\] and is \['knn-.*--new"):
        run(changed, store, FakeJobs(store), budget=3)
    assert sum(trial.computed for trial in run(changed, store, FakeJobs(store), budget=1, new=True)) == 1


def test_a_search_that_an_earlier_version_began_goes_on(store: Store) -> None:
    """Its settings lack what later ones compare."""
    opened = open_search(toy(), store)
    wanted = settings(opened, 0)
    kept = {name: value for name, value in wanted.items() if name != "what the reference computes"}
    assert differing(kept, wanted) == []
    assert differing(wanted, wanted | {"what the reference computes": []}) != []


def test_a_corrupt_storage(store: Store) -> None:
    run(toy(), store, FakeJobs(store), budget=3)
    opened = open_search(toy(), store)
    path = opened.folder.journal
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:4], "{'half", *lines[5:]]) + "\n")
    for read in (history, lambda opened: coordinating(opened, seed=None, new=False).__enter__()):
        with pytest.raises(HarnessError, match=r"journal.log is corrupt at line 5; move it away"):
            read(opened)
    path.rename(path.with_suffix(".old"))
    found = run(toy(), store, FakeJobs(store), budget=3)
    assert sum(trial.imported for trial in found) == 3
    assert sum(trial.computed for trial in found) == 3


def test_half_a_line_and_a_lock_of_a_killed_coordinator_are_mended(store: Store) -> None:
    run(toy(), store, FakeJobs(store), budget=3)
    path = open_search(toy(), store).folder.journal
    with path.open("a") as file:
        file.write('{"op_code": 4, "worker')
    Path(f"{path}.lock").symlink_to(path)
    assert len(history(open_search(toy(), store))[0]) == 3
    assert sum(trial.computed for trial in run(toy(), store, FakeJobs(store), budget=5)) == 5


def test_nothing_was_begun(store: Store) -> None:
    with pytest.raises(HarnessError, match=r"there is no search in .*toy-toy yet"):
        history(open_search(toy(), store))


def test_storages_that_do_not_answer_or_are_somebody_elses(store: Store, tmp_path: Path) -> None:
    with (
        pytest.raises(HarnessError, match="storage nonsense://x"),
        coordinating(open_search(toy(), store, url="nonsense://x"), seed=None, new=False),
    ):
        pass
    import optuna

    url = f"sqlite:///{tmp_path}/own.db"
    optuna.create_study(storage=url, study_name="toy-toy")
    with (
        pytest.raises(HarnessError, match="was not begun by this program"),
        coordinating(open_search(toy(), store, url=url), seed=None, new=False),
    ):
        pass


def test_a_sqlite_url_serves_too(store: Store, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/search.db"
    opened = open_search(toy(), store, url=url)
    with coordinating(opened, seed=None, new=False) as (study, seed, _):
        assert (len(study.get_trials()), seed) == (0, 0)
    assert not opened.folder.journal.exists()


def test_a_result_without_the_metric_fails_its_trial(store: Store) -> None:
    def custom(scale: Any, k: int, temperature: float, seed: int) -> Any:
        from harness.spec import CustomEvaluation

        start = cell(scale, k, temperature, seed)["validation"].start
        evaluation = CustomEvaluation(
            start=start,
            data=DATA.replace(split="validation", train=DATA.train + k),
            function="toy:space",
            metric="f1",
            seed=seed,
        )
        return {"validation": evaluation}

    jobs = FakeJobs(store)
    import toy as toys

    known = toys.score
    toys.score = lambda run: 1.0
    try:
        found = run(replace(toy(), cell=custom, test="", space=space), store, jobs, budget=1)
    finally:
        toys.score = known
    assert found[0].state == "failed"
    assert "has no 'f1'; it has top1" in found[0].error
