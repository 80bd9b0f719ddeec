"""The one opening to the test labels: who has it, under which names, and what it is worth."""

import pytest
import torch
from torch.nn import functional

from rmt import fit, plan, registry, train
from rmt.__main__ import main
from rmt.data import read_sample
from rmt.job import prepare
from rmt.methods import Oracle, Task, tip_adapter, tip_adapter_f, tip_adapter_f_test_oracle
from rmt.methods.zero_shot import classify
from rmt.resume import Interrupted, Progress
from tests import toy

ORACLES = [name for name, method in registry.METHODS.items() if method.oracle]

QUICK = {"epochs": 30, "learning_rate": 0.01, "initial_alpha": 10.0, "search_steps": [20, 5]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = toy.make(tmp_path_factory.mktemp("toy"))
    assert toy.encode(made) == 0
    return made


def test_the_name_of_a_method_says_whether_it_sees_the_test_labels() -> None:
    assert ORACLES == ["tip_adapter_f_test_oracle"]
    for name, method in registry.METHODS.items():
        assert method.oracle == name.endswith("_test_oracle"), name
        assert not (method.oracle and method.transfers), "new classes would have other labels"


@pytest.mark.parametrize("method", registry.METHODS)
def test_no_other_task_holds_test_labels(folder, method: str) -> None:
    sample = read_sample(toy.sample_file(folder, 2, 1)) if registry.METHODS[method].few_shot else None
    job = toy.job(folder, method)
    task, questions = prepare(job, sample, job.method.hyperparameters("digits", 2), Progress())
    if method not in ORACLES:
        assert task.oracle is None
        return
    assert questions[0].asked.name == "test"
    assert torch.equal(task.oracle.labels, questions[0].labels) and len(task.oracle.labels) == 40
    assert torch.equal(task.oracle.features, questions[0].asked.features)


def test_no_config_can_hide_the_recipe_behind_another_label_nor_lend_its_name() -> None:
    def check(methods: dict) -> plan.Plan:
        return plan.check({"benchmark": "demo", "datasets": ["digits"], "methods": methods})

    variant = {"tip_20_test_oracle": {"use": ORACLES[0], "epochs": 20}, f"{ORACLES[0]}+r_amt": {}, "r_amt": {}}
    assert list(check(variant).methods) == list(variant)
    with pytest.raises(plan.ConfigError, match="'tip_adapter_f_test_oracle' selects on the test set, so its label"):
        check({"tip_best": {"use": ORACLES[0]}})
    with pytest.raises(plan.ConfigError, match="must end in '_test_oracle'"):
        check({"r_amt": {}, "tip_best+r_amt": {"use": ORACLES[0]}})
    with pytest.raises(plan.ConfigError, match="'tip_adapter_f' does not select on the test set, so its label may not"):
        check({"honest_test_oracle": {"use": "tip_adapter_f"}})


def test_neither_can_the_command_line(folder, capsys) -> None:
    arguments = ["fit", "--benchmark", "toy", "--backbone", "tiny_clip", "--method", "tip_best", "--use", ORACLES[0]]
    assert main([*arguments, "--features", f"{folder}/features.safetensors", "--samples", *toy.samples(folder)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "must end in '_test_oracle'" in error


def test_it_takes_no_part_where_classes_are_new() -> None:
    config = {
        "benchmark": "demo",
        "protocols": ["few_shot", "base_to_new", "cross_dataset"],
        "datasets": ["digits", "letters"],
        "shots": [1],
        "seeds": [1],
        "methods": {"r_amt": {}, ORACLES[0]: {}},
    }
    runs = plan.check(config).identities(ORACLES[0])
    assert {run.protocol for run in runs} == {"few_shot"}


@pytest.mark.parametrize("search_on", ["val", "test"])
def test_it_is_never_below_the_same_recipe_that_does_not_look(folder, search_on: str) -> None:
    """On every cell of the toy; the record says how it came to be."""
    settings = {"search_steps": [40, 10], "epochs": 20}
    gains = []
    for shots in (1, 2):
        for seed in (1, 2):
            sample = read_sample(toy.sample_file(folder, shots, seed))
            blind = fit.run(toy.job(folder, "tip_adapter_f", **settings), sample).record
            found = fit.run(toy.job(folder, ORACLES[0], search_on=search_on, **settings), sample).record
            assert found["selection"]["rule"] == "test_oracle" and found["selection"]["checkpoint"] == "best"
            assert found["selection"]["candidates"] == 20 + 400
            assert set(found["selection"]["chosen"]) == {"epoch", "beta", "alpha"}
            gains.append(found["metrics"]["test"]["correct"] - blind["metrics"]["test"]["correct"])
    assert min(gains) >= 0 and sum(gains) > 0, gains


def test_it_trains_like_the_blind_recipe_and_keeps_its_best_epoch_on_test() -> None:
    task = toy.task(ORACLES[0], classes=10, spread=0.8, batch_size=15, **QUICK)
    task.oracle = Oracle(lambda: task.features.test, task.features.test_labels)
    tuned = tip_adapter_f_test_oracle.tune(task)
    blind = tip_adapter_f.KeyTuner(**tip_adapter_f.of(task))
    keys, correct = [], []
    for _, raw, labels in train.view_batches(blind.views, blind.labels, blind.order)(0):
        blind.step(raw, labels)
        if blind.steps % 3 == 0:  # 40 images in batches of 15
            keys.append(blind.keys.detach().clone())
            answers = blind.logits(task.features.test, 1.0, 10.0).argmax(1)
            correct.append(int((answers == task.features.test_labels).sum()))
    assert tuned.curve == tip_adapter_f.tune(task).curve and len(keys) == 30
    assert 10 < tuned.chosen["epoch"] == 1 + correct.index(max(correct)) < 30
    assert torch.equal(tuned.adapter["keys"], keys[tuned.chosen["epoch"] - 1])


def test_an_interrupted_run_remembers_its_best_epoch(tmp_path) -> None:
    def task(progress: Progress) -> Task:
        made = toy.task(ORACLES[0], classes=10, spread=0.8, batch_size=15, **QUICK)
        made.oracle = Oracle(lambda: made.features.test, made.features.test_labels)
        made.progress = progress
        return made

    whole = tip_adapter_f_test_oracle.tune(task(Progress()))
    with pytest.raises(Interrupted):
        tip_adapter_f_test_oracle.tune(task(toy.StoppedAt(tmp_path, 3 * whole.chosen["epoch"] + 2)))
    rest = tip_adapter_f_test_oracle.tune(task(Progress(tmp_path, 1e9)))
    assert rest.chosen == whole.chosen and torch.equal(rest.adapter["keys"], whole.adapter["keys"])


def test_a_search_in_parts_counts_what_it_counts_at_once(monkeypatch) -> None:
    """The test images of a large dataset do not fit in memory at all alphas."""
    task = toy.task(ORACLES[0], classes=5, shots=8, spread=0.5)
    raw, keys = task.features.test, tip_adapter.cache_keys(task.features.views)
    arguments = (functional.normalize(raw, dim=-1), task.features.test_labels, classify(raw, task.text, 10.0), keys)
    values = tip_adapter.one_hot(task.train_labels, 5)
    whole = tip_adapter.search(*arguments, values, (20.0, 20.0), (20, 5))
    monkeypatch.setattr(tip_adapter, "PART", 7)
    parts = tip_adapter.search(*arguments, values, (20.0, 20.0), (20, 5))
    assert parts[:2] == whole[:2] and torch.equal(parts[2], whole[2]) and len(whole[2].unique()) > 3
