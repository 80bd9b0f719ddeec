"""What a run is asked under each protocol: the right images, labels and classes, the same whatever it reads."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from data_prep import splits
from data_prep.__main__ import main as data_prep
from data_prep.pack import pack as write_pack
from rmt import job as jobs
from rmt import methods
from rmt.__main__ import main
from rmt.data import BadData, Sample, read_pack, read_sample
from rmt.job import Images, Job, Question, prepare, same_names
from rmt.methods import Task
from rmt.records import write_json
from rmt.resume import Progress
from tests import toy

CLASSES = ("zero", "one", "two", "three", "four")
BASE = 3
"""Half of five classes, rounded up."""

SUBSET = ("one", "three")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Five digit classes with features, base samples, and `displays`: a test set of two of the classes."""
    made = toy.make(tmp_path_factory.mktemp("job"), classes=CLASSES)
    assert toy.encode(made) == 0
    for shots in (1, 2):
        words = ["sample", "--dataset", "digits", "--split", f"{made}/split.json", "--classes", "base"]
        words += ["--shots", str(shots), "--seed", "1", "--output", f"{made}/base-{shots}shot.json"]
        assert data_prep(words) == 0
    # Training images as test images of the shifted set: any others than the test images will do.
    every = splits.read_split(made / "split.json")["train"]
    shifted = [(path, SUBSET.index(name), name) for path, _, name in every if name in SUBSET]
    write_json(made / "shifted.json", {"train": [], "val": [], "test": shifted})
    pack = made / "shifted.npy"
    write_pack("displays", made / "shifted.json", made / "images", 32, pack, template="the number {}.")
    words = ["encode", "--backbone", "tiny_clip", "--pack", str(pack), "--images", f"{made}/images"]
    assert main([*words, "--output", f"{made}/shifted.safetensors"]) == 0
    return made


def sample_of(folder: Path, protocol: str, shots: int = 2) -> Sample:
    name = f"base-{shots}shot.json" if protocol == "base_to_new" else f"samples/{shots}shot-seed1.json"
    return read_sample(folder / name)


def job_of(folder: Path, method: str, protocol: str, reads: str, **overrides: Any) -> Job:
    """A job of a method under a protocol, with a shifted set where it has one, reading "features" or "images"."""
    targets = {"features": folder / "shifted.safetensors", "images": folder / "shifted.npy"}
    made = replace(toy.job(folder, method, **overrides), protocol=protocol)
    return replace(made, targets=[] if protocol == "base_to_new" else [targets[reads]])


def asked(folder: Path, method: str, protocol: str, reads: str, **overrides: Any) -> tuple[Task, dict[str, Question]]:
    """The task and the questions by name, read the way that is told and not the way that the method needs."""
    made, sample = job_of(folder, method, protocol, reads, **overrides), sample_of(folder, protocol)
    settings = made.method.hyperparameters("digits", sample.shots)
    way = {"features": jobs._on_features, "images": jobs._on_images}[reads]
    task, questions = way(made, sample, settings, Progress())
    return task, {one.asked.name: one for one in questions}


@pytest.mark.parametrize("reads", ["features", "images"])
def test_base_to_new_divides_the_test_images_and_labels_each_half_from_0(folder, reads: str) -> None:
    task, questions = asked(folder, "clip_adapter", "base_to_new", reads)
    assert list(questions) == ["base", "new", "val"]
    assert task.classes == questions["base"].asked.classes == questions["val"].asked.classes == CLASSES[:BASE]
    assert questions["new"].asked.classes == CLASSES[BASE:]
    assert task.text.shape[0] == BASE and questions["new"].asked.text.shape[0] == len(CLASSES) - BASE

    pack = read_pack(folder / "test.npy")
    truth = dict(zip(pack.paths, (pack.classes[label] for label in pack.labels), strict=True))
    found = {}
    for name in ("base", "new"):
        one = questions[name]
        assert set(one.labels.tolist()) == set(range(len(one.asked.classes)))
        named = [one.asked.classes[label] for label in one.labels.tolist()]
        found |= dict(zip(one.paths, named, strict=True))
    assert found == truth and len(found) == sum(len(questions[name].paths) for name in ("base", "new"))


@pytest.mark.parametrize("name", ["zero_shot", "r_amt"])
def test_the_half_is_the_same_with_and_without_a_sample(folder, name: str) -> None:
    """Zero-shot CLIP has no sample to count the classes of."""
    made = job_of(folder, name, "base_to_new", "features" if name == "zero_shot" else "images")
    sample = None if name == "zero_shot" else sample_of(folder, "base_to_new")
    task, questions = prepare(made, sample, made.method.hyperparameters("digits", 2), Progress())
    assert task.classes == CLASSES[:BASE]
    assert [one.asked.name for one in questions][:2] == ["base", "new"]
    assert [len(one.paths) for one in questions][:2] == [BASE * 10, (len(CLASSES) - BASE) * 10]


@pytest.mark.parametrize("shots", [1, 2])
def test_the_base_sample_is_the_part_of_the_few_shot_sample_that_shows_base_classes(folder, shots: int) -> None:
    base, every = (sample_of(folder, protocol, shots) for protocol in ("base_to_new", "few_shot"))
    assert base.classes == CLASSES[:BASE] and every.classes == CLASSES
    assert base.train == tuple(item for item in every.train if item[1] < BASE)
    assert base.val == tuple(item for item in every.val if item[1] < BASE)
    assert len(base.train) == BASE * shots


def test_a_run_of_base_to_new_trains_on_base_images_and_answers_for_both_halves(folder) -> None:
    """By the command line, to what is stored."""
    results = folder / "results"
    words = ["fit", "--benchmark", "toy", "--protocol", "base_to_new", "--backbone", "tiny_clip", "--method", "r_amt"]
    words += ["--pack", f"{folder}/test.npy", "--images", f"{folder}/images", "--results", str(results)]
    words += ["--overrides", json.dumps({"learning_rate": 1e-3, "epochs": 12}), "--device", "cpu"]
    assert main([*words, "--samples", f"{folder}/base-2shot.json"]) == 0
    run = results / "toy/runs/base_to_new/tiny_clip/digits/r_amt/2shot/seed1"
    record = json.loads((run / "record.json").read_text())
    assert record["task"]["classes"] == list(CLASSES[:BASE])
    assert record["provenance"]["sample_sha256"] == sample_of(folder, "base_to_new").sha256
    table = pd.read_parquet(run / "predictions.parquet")
    counts = table.groupby("eval_set", observed=True).label.agg(["size", "min", "max"])
    assert counts.loc["base"].tolist() == [30, 0, 2] and counts.loc["new"].tolist() == [20, 0, 1]
    assert table[table.eval_set == "new"].predicted.max() <= 1
    paths = table[table.eval_set.isin(["base", "new"])].path
    assert sorted(paths) == sorted(read_pack(folder / "test.npy").paths)
    assert {"base", "new"} <= set(record["metrics"])


@pytest.mark.parametrize(
    ("method", "protocol"),
    [
        ("zero_shot", "base_to_new"),
        ("zero_shot", "domain_shift"),
        ("zero_shot", "cross_dataset"),
        ("tip_adapter", "domain_shift"),
    ],
)
def test_features_and_images_give_the_same_answers(folder, method: str, protocol: str) -> None:
    overrides = {"search_steps": [10, 5]} if method == "tip_adapter" else {}
    found = {}
    for reads in ("features", "images"):
        task, questions = asked(folder, method, protocol, reads, **overrides)
        tuned = methods.tune(method, task)
        answer = methods.answer(method, task, tuned.adapter, tuned.chosen)
        found[reads] = {name: (one, one.logits(answer)) for name, one in questions.items()}
    assert list(found["features"]) == list(found["images"])
    for name, (by_features, logits) in found["features"].items():
        by_images, others = found["images"][name]
        assert by_features.paths == by_images.paths and torch.equal(by_features.labels, by_images.labels)
        assert by_features.asked.classes == by_images.asked.classes and by_features.columns == by_images.columns
        assert logits.shape == (len(by_features.paths), len(by_features.columns or by_features.asked.classes))
        torch.testing.assert_close(logits, others, rtol=0, atol=1e-4)


def test_a_bound_method_on_a_shifted_subset_selects_its_columns(folder) -> None:
    """Against the cache's logits over all trained classes, of which the subset's are picked by hand."""
    task, questions = asked(folder, "tip_adapter", "domain_shift", "features", search_steps=[10, 5])
    one = questions["displays"]
    assert one.columns == ((1,), (3,)) and one.asked.classes == CLASSES and one.asked.template == toy.TEMPLATE
    tuned = methods.tune("tip_adapter", task)
    answer = methods.answer("tip_adapter", task, tuned.adapter, tuned.chosen)
    features = torch.nn.functional.normalize(one.asked.features, dim=1)
    beta, alpha = tuned.chosen["beta"], tuned.chosen["alpha"]
    cache = torch.exp(-beta * (1 - features @ tuned.adapter["keys"].T))
    values = torch.nn.functional.one_hot(tuned.adapter["labels"], len(CLASSES)).float()
    every = task.logit_scale * features @ task.text.T + alpha * cache @ values
    torch.testing.assert_close(one.logits(answer), every[:, [1, 3]], rtol=1e-4, atol=1e-4)
    # A method that transfers is asked for the subset's own classes by the subset's own prompt instead.
    _, others = asked(folder, "clip_adapter", "domain_shift", "features")
    assert others["displays"].asked.classes == SUBSET and others["displays"].columns is None
    assert others["displays"].asked.template == "the number {}."


def test_subset_classes_are_found_by_name() -> None:
    assert same_names(("one", "three"), CLASSES) == ((1,), (3,))
    assert same_names(("three", "one"), CLASSES) == ((3,), (1,))
    with pytest.raises(BadData, match="class 'seven' was not trained on"):
        same_names(("one", "seven"), CLASSES)


# In ImageNet's order and at their distance: two classes are called missile, two sunglasses.
IMAGENET = ("tench", "missile", "sunglasses", "sunglasses", "missile", "toilet paper")


def test_imagenets_pairs_of_one_name() -> None:
    # ImageNetV2 and ImageNet-Sketch have all classes: position by position, the two missiles stay apart.
    assert same_names(IMAGENET, IMAGENET) == tuple((index,) for index in range(len(IMAGENET)))
    # ImageNet-A and ImageNet-R have some, and a name is all that tells them.
    assert same_names(("missile", "tench"), IMAGENET) == ((1, 4), (0,))
    assert same_names(("sunglasses",), IMAGENET) == ((2, 3),)


def test_of_several_trained_classes_of_one_name_the_largest_logit_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, len(IMAGENET), generator=generator)
    subset = ("missile", "toilet paper", "sunglasses")
    question = Question(None, (), torch.zeros(0), same_names(subset, IMAGENET))  # type: ignore[arg-type]
    found = question.logits(lambda _: logits)
    for row in range(50):
        for column, name in enumerate(subset):
            best = max(float(logits[row, index]) for index, trained in enumerate(IMAGENET) if trained == name)
            assert float(found[row, column]) == best


def test_images_of_consecutive_classes() -> None:
    labels = torch.tensor([2, 0, 1, 2, 1])
    pixels = torch.arange(5).numpy()
    every = Images(
        "toy",
        ("a", "b", "c"),
        "{}",
        tuple("vwxyz"),
        labels,
        lambda: pixels,
        lambda: labels * 10.0,
        lambda: torch.eye(3),
    )
    found = every.of_classes(range(1, 3))
    assert found.classes == ("b", "c") and found.paths == ("v", "x", "y", "z")
    assert found.labels.tolist() == [1, 0, 1, 0] and found.pixels().tolist() == [0, 2, 3, 4]
    assert found.features().tolist() == [20, 10, 20, 10] and found.text().tolist() == [[0, 1, 0], [0, 0, 1]]
