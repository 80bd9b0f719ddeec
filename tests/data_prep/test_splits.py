import gzip
import hashlib
import json

import pytest

from data_prep import catalog, splits
from data_prep.__main__ import main
from tests.conftest import SHARED

ORACLE = SHARED / "sampling_oracle.json.gz"


def items(sizes: dict[int, int], prefix: str) -> list[splits.Item]:
    return [(f"{prefix}{label}-{n}.png", label, f"class {label}") for label, size in sizes.items() for n in range(size)]


@pytest.fixture
def split() -> splits.Split:
    """Classes appear in the order 2, 0, 1; class 1 has only three training images."""
    return {
        "train": items({2: 6, 0: 5, 1: 3}, "t"),
        "val": items({2: 5, 0: 5, 1: 5}, "v"),
        "test": items({2: 4, 0: 4, 1: 4}, "e"),
    }


def test_the_draw_is_python_random_in_order_of_first_appearance(split) -> None:
    """Written out with the standard library's generator, train first, then min(K, 4) of val."""
    import random

    drawn = splits.few_shot(split, 5, seed=1)
    generator = random.Random(1)
    expected = [f"t2-{n}.png" for n in generator.sample(range(6), 5)] + [
        f"t0-{n}.png" for n in generator.sample(range(5), 5)
    ]
    expected += ["t1-0.png", "t1-1.png", "t1-2.png"]  # too few: all, and no randomness consumed
    assert [path for path, _, _ in drawn["train"]] == expected
    val = [f"v{label}-{n}.png" for label in (2, 0, 1) for n in generator.sample(range(5), 4)]
    assert [path for path, _, _ in drawn["val"]] == val


def test_base_and_new_are_filters_of_the_sample_over_all_classes(split) -> None:
    every = splits.few_shot(split, 2, seed=3)
    base, new = (splits.few_shot(split, 2, seed=3, classes=kind) for kind in ("base", "new"))
    assert [item for item in every["train"] if item[1] < 2] == base["train"]
    assert [(path, 0, name) for path, label, name in every["train"] if label == 2] == new["train"]
    assert len(base["val"]) == 4 and len(new["val"]) == 2


@pytest.mark.skipif(not ORACLE.exists(), reason="the sampling oracle is not at hand")
@pytest.mark.parametrize("name", ["DTD", "OxfordPets", "StanfordCars", "EuroSAT"])
def test_samples_are_coops_own(name: str) -> None:
    oracle = json.loads(gzip.decompress(ORACLE.read_bytes()))["datasets"][name]
    path = SHARED / "splits" / oracle["split_file"]
    entry = next(one for one in catalog.DATASETS.values() if one.split_file == path.name)
    assert splits.sha256_of(path) == entry.split_sha256
    split = splits.read_split(path)
    assert tuple(len(split[part]) for part in splits.PARTS) == entry.split_sizes
    assert len(splits.class_names(split, path)) == entry.classes
    runs = oracle["runs"]
    assert len(runs) >= 5
    for key, kinds in runs.items():
        seed, shots = (int("".join(filter(str.isdigit, part))) for part in key.split("_"))
        for kind in ("all", "base", "new"):
            drawn = splits.few_shot(split, shots, seed, kind)
            for part in ("train", "val"):
                lines = "".join(f"{path}\t{label}\n" for path, label, _ in drawn[part])
                assert hashlib.sha256(lines.encode()).hexdigest() == kinds[kind][part]["sha256"], (key, kind, part)


def test_stratified_parts() -> None:
    labels = [0] * 80 + [1] * 200
    parts = splits.stratified(labels, 0.25, 20, 0.1, seed=777)
    assert [parts[:80].count(part) for part in splits.PARTS] == [20, 8, 52]
    assert [parts[80:].count(part) for part in splits.PARTS] == [50, 20, 130]
    assert parts == splits.stratified(labels, 0.25, 20, 0.1, seed=777)
    assert parts != splits.stratified(labels, 0.25, 20, 0.1, seed=778)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "not a split"),
        ('{"train": [["a", 0, "x"]], "val": [["b", 0, "y"]], "test": []}', "label 0 is both 'x' and 'y'"),
        ('{"train": [["a", 1, "x"]], "val": [], "test": []}', "labels are not 0..0"),
    ],
)
def test_a_bad_split_is_refused(tmp_path, capsys, content: str, words: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(content)
    assert main(["sample", "--split", str(path), "--shots", "1", "--seed", "1"]) == 2
    error = capsys.readouterr().err
    assert words in error and str(path) in error and error.count("\n") == 1


def test_the_sample_verb_prints_json(tmp_path, capsys, split) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps(split))
    assert main(["sample", "--split", str(path), "--shots", "2", "--seed", "1", "--classes", "new"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(splits.few_shot(split, 2, 1, "new")))


def test_a_published_set_that_is_not_there_says_where_to_put_it(tmp_path, capsys) -> None:
    """One page: where to get it, which file, which folder."""
    assert main(["download", "stanford_cars", "--data", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    for words in ("kaggle.com", f"{tmp_path}/stanford_cars/cars_train/00001.jpg", "512b227b30e2f0a8", "coop_data"):
        assert words in error
    assert "Traceback" not in error and not (tmp_path / "stanford_cars" / "verified.json").exists()


def test_an_altered_split_file_stops_with_the_expected_checksum(tmp_path, capsys) -> None:
    folder = tmp_path / "dtd"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.jpg").write_bytes(b"")
    (folder / "split_zhou_DescribableTextures.json").write_text(
        json.dumps({"train": [["a.jpg", 0, "banded"]], "val": [], "test": []})
    )
    for verb in (["download"], ["split", "--output", str(folder / "split.json")]):
        assert main([verb[0], "dtd", "--data", str(tmp_path), *verb[1:]]) == 2
        error = capsys.readouterr().err
        assert "expected sha256 f26ebeccd2b58e68" in error and error.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["images", "split_zhou_DescribableTextures.json"]


def test_a_generated_set_is_drawn_split_and_verified(tmp_path, capsys) -> None:
    for verb in (["download", "colors"], ["split", "colors", "--output", str(tmp_path / "split.json")]):
        assert main([*verb, "--data", str(tmp_path)]) == 0
    verified = json.loads((tmp_path / "colors" / "verified.json").read_text())
    assert verified["images"] == 960 == len(list((tmp_path / "colors" / "images").rglob("*.png")))
    split = splits.read_split(tmp_path / "split.json")
    assert [len(split[part]) for part in splits.PARTS] == [240, 96, 624]
    assert len(splits.class_names(split, tmp_path)) == catalog.DATASETS["colors"].classes == 8
    (tmp_path / "colors" / "verified.json").unlink()
    assert main(["download", "colors", "--data", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "colors" / "verified.json").read_text()) == verified
