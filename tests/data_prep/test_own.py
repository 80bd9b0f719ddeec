"""A tree in CoOp's layout used in place, and own images as a dataset."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from data_prep import catalog, own, splits
from data_prep.__main__ import main
from rmt import plan
from tests.conftest import SHARED
from tests.data_prep.server import image, miniature
from tests.data_prep.test_readers import CARS, SKETCHED, divided, paths_of, prepared, run, server  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Length and time of change of everything below a folder."""
    found = {path: path.lstat() for path in sorted(folder.rglob("*"))}
    return {path.relative_to(folder).as_posix(): (one.st_size, one.st_mtime_ns) for path, one in found.items()}


@pytest.fixture
def coop(tmp_path, monkeypatch, server) -> Path:  # noqa: F811
    """$DATA with eurosat and stanford_cars; dtd is not in it, but can be downloaded."""
    folder = tmp_path / "DATA"
    for name, classes in (("eurosat", SKETCHED["eurosat"]), ("stanford_cars", CARS)):
        split = divided(classes)
        real = catalog.DATASETS[name]
        trees = {inside: {"x.jpg": b"not served"} for file in real.files for inside, _ in file.keep}
        entry = miniature(server, name, trees, split)
        monkeypatch.setitem(catalog.DATASETS, name, entry)
        base = folder / str(real.coop_folder)
        for path, content in paths_of(split).items():
            place = base / real.image_folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        (base / str(real.split_file)).write_text(json.dumps(split))
    split = divided(SKETCHED["dtd"])
    monkeypatch.setitem(catalog.DATASETS, "dtd", miniature(server, "dtd", {"dtd/images": paths_of(split)}, split))
    return folder


@pytest.mark.parametrize("name", ["eurosat", "stanford_cars"])
def test_a_coop_tree_is_used_in_place(coop, tmp_path, server, name: str) -> None:  # noqa: F811
    before, data = stamps(coop), tmp_path / "data"
    assert run("download", name, data, "--coop", str(coop)) == 0
    assert run("split", name, data) == 0
    assert server.requests == [] and stamps(coop) == before
    verified = json.loads((data / name / "verified.json").read_text())
    assert verified["in_place"] == str(coop / catalog.DATASETS[name].coop_folder)
    real = [path for path in (data / name).rglob("*") if not path.is_symlink()]
    assert sum(path.stat().st_size for path in real) < 20_000 and all(path.suffix == ".json" for path in real)
    split = splits.read_split(data / name / "split.json")
    folder = data / name / catalog.DATASETS[name].image_folder
    for path, _, _ in split["test"]:
        assert (folder / path).read_bytes() == image(path)


def test_a_dataset_that_the_tree_lacks_is_downloaded(coop, tmp_path, server) -> None:  # noqa: F811
    assert run("download", "dtd", tmp_path / "data", "--coop", str(coop)) == 0
    assert server.sent("dtd/dtd-r1.0.1.tar.gz") > 0
    assert "in_place" not in json.loads((tmp_path / "data/dtd/verified.json").read_text())


def test_a_missing_split_of_the_tree_is_fetched_and_an_altered_one_refused(coop, tmp_path, server, capsys) -> None:  # noqa: F811
    source = coop / "eurosat/split_zhou_EuroSAT.json"
    content = source.read_text()
    source.unlink()
    assert run("download", "eurosat", tmp_path / "data", "--coop", str(coop)) == 0
    assert [name for name, _, _ in server.requests][-1] == "eurosat/split_zhou_EuroSAT.json"
    assert not source.exists() and (tmp_path / "data/eurosat/split_zhou_EuroSAT.json").read_text() == content
    source.write_text(content.replace("SeaLake_1.jpg", "SeaLake_2.jpg"))  # as CoOp draws anew what it does not find
    capsys.readouterr()
    assert run("download", "eurosat", tmp_path / "other", "--coop", str(coop)) == 2
    assert f"expected {catalog.DATASETS['eurosat'].split_sha256}" in capsys.readouterr().err


def test_a_wrong_or_incomplete_tree_is_named(coop, tmp_path, capsys) -> None:
    assert run("download", "eurosat", tmp_path / "data", "--coop", str(tmp_path / "nothing")) == 2
    assert f"{tmp_path}/nothing: there is no such folder" in capsys.readouterr().err
    (coop / "eurosat/2750").rename(coop / "eurosat/2751")
    assert run("download", "eurosat", tmp_path / "data", "--coop", str(coop)) == 2
    assert f"{coop}/eurosat/2750 is missing" in capsys.readouterr().err
    (coop / "eurosat/2751").rename(coop / "eurosat/2750")
    (coop / "eurosat/2750/River").mkdir()
    (coop / "eurosat/2750/SeaLake/SeaLake_2.jpg").unlink()
    assert run("download", "eurosat", tmp_path / "data", "--coop", str(coop)) == 2
    error = capsys.readouterr().err
    assert "1 of 9 images" in error and "SeaLake_2.jpg" in error and error.count("\n") == 1


def test_a_link_to_a_tree_that_has_gone_is_replaced(coop, tmp_path) -> None:
    data = tmp_path / "data"
    assert run("download", "eurosat", data, "--coop", str(coop)) == 0
    moved = coop.rename(tmp_path / "MOVED")
    assert run("download", "eurosat", data, "--coop", str(moved)) == 0
    assert (data / "eurosat/2750").resolve() == moved / "eurosat/2750"


def tree(folder: Path, classes: dict[str, int]) -> Path:
    for name, number in classes.items():
        (folder / name).mkdir(parents=True)
        for one in range(number):
            Image.new("RGB", (8, 8), (one, 0, 0)).save(folder / name / f"{one}.png")
    return folder


def verbs(name: str, settings: dict, data: Path, verb: str) -> int:
    return run(verb, name, data, "--own", json.dumps(settings))


def test_a_folder_of_class_folders_is_a_dataset(tmp_path) -> None:
    folder = tree(tmp_path / "mine", {"tulip_w": 10, "F-16A": 20, "rose": 3})
    (folder / "rose" / "notes.txt").write_text("x")
    (folder / ".hidden").mkdir()
    settings = {"folder": str(folder), "names": {"tulip_w": "white tulip", "F-16A": "F-16A/B"}, "template": "my {}."}
    for verb in ("download", "split"):
        assert verbs("mine", settings, tmp_path / "data", verb) == 0
    split_file = tmp_path / "data/mine/split.json"
    split = splits.read_split(split_file)
    assert splits.class_names(split, split_file) == ["F-16A/B", "rose", "white tulip"]
    counts = {part: [sum(label == one for _, label, _ in split[part]) for one in range(3)] for part in splits.PARTS}
    assert counts == {"train": [10, 1, 5], "val": [4, 1, 2], "test": [6, 1, 3]}
    assert len({path for part in splits.PARTS for path, _, _ in split[part]}) == 33
    before = split_file.read_bytes()
    assert verbs("mine", settings, tmp_path / "data", "split") == 0 and split_file.read_bytes() == before
    assert (tmp_path / "data/mine/images").resolve() == folder
    sample = tmp_path / "sample.json"
    words = ["--split", str(split_file), "--shots", "4", "--seed", "1", "--dataset", "mine", "--output", str(sample)]
    assert main(["sample", *words, "--own", json.dumps(settings | {"mirror": False})]) == 0
    written = json.loads(sample.read_text())
    assert (written["template"], written["mirror"], len(written["train"])) == ("my {}.", False, 4 + 1 + 4)


def test_folders_that_come_divided_are_the_split(tmp_path) -> None:
    folder = tmp_path / "mine"
    tree(folder / "train", {"a": 3, "b": 2})
    tree(folder / "test", {"a": 1, "b": 2})
    split = own.read("mine", {"folder": str(folder)})
    assert {part: len(items) for part, items in split.items()} == {"train": 5, "val": 0, "test": 3}
    assert split["test"][0] == ("test/a/0.png", 0, "a")


PHOTOGRAPHS = SHARED / "dtd10"


@pytest.mark.skipif(not PHOTOGRAPHS.exists(), reason="the photographs are not at hand")
def test_photographs_with_a_split_file_in_coops_format(tmp_path, capsys) -> None:
    settings = {
        "folder": str(PHOTOGRAPHS / "images"),
        "split": str(PHOTOGRAPHS / "split.json"),
        "template": "{} texture.",
    }
    for verb in ("download", "split"):
        assert verbs("dtd10", settings, tmp_path, verb) == 0
    split_file = tmp_path / "dtd10/split.json"
    assert split_file.read_bytes() == (PHOTOGRAPHS / "split.json").read_bytes()
    assert json.loads((tmp_path / "dtd10/verified.json").read_text())["images"] == 1200
    words = ["--split", str(split_file), "--own", json.dumps(settings)]
    assert main(["sample", *words, "--shots", "16", "--seed", "1"]) == 0
    assert len(json.loads(capsys.readouterr().out.splitlines()[-1])["train"]) == 160
    assert verbs("dtd10", settings | {"split": "nowhere.json"}, tmp_path, "download") == 2
    assert "nowhere.json: split file is missing" in capsys.readouterr().err


def test_a_csv_is_a_dataset(tmp_path) -> None:
    tree(tmp_path / "pictures", {"x": 8})
    lines = [f'pictures/x/{number}.png,"{"C/V, van" if number % 2 else "coupé"}"' for number in range(8)]
    path = tmp_path / "mine.csv"
    path.write_text("path,label\n" + "\n".join(lines) + "\n", encoding="utf-8-sig")
    split = own.read("mine", {"csv": str(path), "fractions": [0.5, 0.0, 0.5]})
    assert {part: len(items) for part, items in split.items()} == {"train": 4, "val": 0, "test": 4}
    assert {name for _, _, name in split["train"]} == {"C/V, van", "coupé"}
    parts = ["train", "test", "val", "train", "test", "val", "train", "test"]
    divided_lines = [f"{line},{part}" for line, part in zip(lines, parts, strict=True)]
    path.write_text("path,label,split\n" + "\n".join(divided_lines) + "\n")
    split = own.read("mine", {"csv": str(path)})
    assert {part: len(items) for part, items in split.items()} == {"train": 3, "val": 2, "test": 3}
    assert verbs("mine", {"csv": str(path)}, tmp_path / "data", "download") == 0
    assert (tmp_path / "data/mine/images/pictures/x/7.png").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\na.png,x\n", "line 1: columns ['file', 'label']; expected path,label"),
        ("path,label\na.png,x\nb.png\n", "line 3: expected path,label"),
        ("path,label\na.png,x,y\n", "line 2: expected path,label; quote a value"),
        ("path,label\na.png,x\nmissing.png,y\n", "line 3: there is no image"),
        ("path,label\na.png,x\na.png,y\n", "line 3: 'a.png' is on line 2 already"),
        ("path,label\n../a.png,x\n", "line 2: '../a.png' must lie below"),
        ("path,label,split\na.png,x,tran\n", "line 2: split 'tran'; did you mean 'train'?"),
        ('path,label\na.png,"x"y\n', "line 2: not a CSV line"),
        ("path,label\n", "has no images"),
        ("path,label\na.png,x\nb.png,x\n", "mine has the class 'x' only"),
        ("path,label\na.png,x\nb.png,x\nc.png,y\n", "class 'x' has 2 images; train, val, test need 3 at least"),
        ("path,label,split\na.png,x,train\nb.png,x,test\nc.png,y,train\n", "class 'y' has no test images"),
    ],
)
def test_a_csv_line_that_cannot_be_read_is_named_by_its_number(tmp_path, capsys, text: str, words: str) -> None:
    for name in "abc":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    path = tmp_path / "mine.csv"
    path.write_text(text)
    assert verbs("mine", {"csv": str(path)}, tmp_path / "data", "download") == 2
    error = capsys.readouterr().err
    assert f"error: {path}: {words}" in error and error.count("\n") == 1
    assert not (tmp_path / "data/mine/verified.json").exists()


@pytest.mark.parametrize(
    ("classes", "settings", "words"),
    [
        ({}, {}, "there is no such folder"),
        ({"a": 5, "b": 2}, {}, "class 'b' has 2 images; train, val, test need 3 at least"),
        ({"a": 5, "b": 0}, {}, "/b: no images (.jpg"),
        ({"a": 5, "tulip": 5}, {"names": {"tulp": "t"}}, "names.tulp: there is no such class; did you mean 'tulip'?"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(tmp_path, capsys, classes: dict, settings: dict, words: str) -> None:
    tree(tmp_path / "mine", classes)
    assert verbs("mine", {"folder": str(tmp_path / "mine")} | settings, tmp_path / "data", "download") == 2
    error = capsys.readouterr().err
    assert words in error and f"{tmp_path}/mine" in error and error.count("\n") == 1


GOOD = {"benchmark": "b", "datasets": ["mine"], "methods": {"zero_shot": {}}, "own_datasets": {"mine": {"folder": "x"}}}


def test_own_data_are_planned_like_any_dataset() -> None:
    found = plan.check(GOOD)
    assert found.datasets["mine"].template == "a photo of a {}." and found.datasets["mine"].image_folder == "images"
    assert len(found.datasets) == len(catalog.DATASETS) + 1 and "mine" not in catalog.DATASETS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": ["mnie"]}, "key 'datasets': unknown name 'mnie'; did you mean 'mine'?"),
        ({"own_datasets": {"mine": {}}}, "key 'own_datasets': 'mine' needs either folder or csv"),
        (
            {"own_datasets": {"mine": {"folder": "x", "csv": "y"}}},
            "key 'own_datasets': 'mine' needs either folder or csv",
        ),
        (
            {"own_datasets": {"dtd": {"folder": "x"}}},
            "key 'own_datasets': 'dtd' is a dataset of the catalog; choose another name",
        ),
        (
            {"own_datasets": {"mine": {"folder": "x", "split": "y", "names": {"a": "b"}}}},
            "key 'own_datasets': 'mine': a split file goes with folder only; it has names and parts itself",
        ),
        ({"own_datasets": {"Mine": {"folder": "x"}}}, "key 'own_datasets': name 'Mine' must be lower_snake"),
        (
            {"own_datasets": {"mine": {"folder": "x", "templat": "a {}"}}},
            "own_datasets.mine: unknown key 'templat'; did you mean 'template'?",
        ),
        (
            {"own_datasets": {"mine": {"folder": "x", "template": "a {name}"}}},
            "key 'own_datasets': 'mine': template 'a {name}' must hold {} once, where the class name goes, and no "
            "brace else",
        ),
        (
            {"own_datasets": {"mine": {"folder": "x", "fractions": [0.5, 0.2, 0.2]}}},
            "key 'own_datasets': 'mine': fractions [0.5, 0.2, 0.2] must be the shares of train, val, test, with sum 1",
        ),
        (
            {"datasets": ["imagenet_a"]},
            "key 'datasets': 'imagenet_a' has test images only, nothing can be trained on it",
        ),
    ],
)
def test_a_mistake_in_own_datasets_is_one_line(change: dict, message: str) -> None:
    with pytest.raises(plan.ConfigError) as caught:
        plan.check(GOOD | change)
    assert str(caught.value) == message


def test_the_example_runs(tmp_path) -> None:
    """Its script draws the images; its config plans; its verbs, as the workflow calls them, make sample and pack."""
    example = ROOT / "examples" / "own_data"
    subprocess.run([sys.executable, str(example / "draw.py"), str(tmp_path / "shapes")], check=True)
    assert len(list((tmp_path / "shapes").rglob("*.png"))) == 90
    config = yaml.safe_load((example / "config.yaml").read_text())
    assert plan.check(config).config["datasets"] == ["my_shapes"]
    settings = config["own_datasets"]["my_shapes"] | {"folder": str(tmp_path / "shapes")}
    data = tmp_path / "data"
    for verb in ("download", "split"):
        assert verbs("my_shapes", settings, data, verb) == 0
    folder = data / "my_shapes"
    words = ["--split", str(folder / "split.json"), "--own", json.dumps(settings)]
    shots = ["--shots", "4", "--seed", "1", "--dataset", "my_shapes", "--output", str(tmp_path / "sample.json")]
    assert main(["sample", *words, *shots]) == 0
    assert len(json.loads((tmp_path / "sample.json").read_text())["train"]) == 12
    pixels = ["--images", str(folder / "images"), "--pixels", "32", "--output", str(tmp_path / "32px.npy")]
    assert main(["pack", "my_shapes", *words, *pixels]) == 0
    index = json.loads((tmp_path / "32px.json").read_text())
    assert index["classes"] == ["circle", "square", "star"] and index["template"] == "a photo of a {}."
    assert len(index["paths"]) == 27


def test_the_workflow_hands_own_settings_and_the_tree_to_the_verbs(tmp_path) -> None:
    """One dry run: the printed lines can be pasted, whatever the names hold."""
    for name in ("Snakefile", "workflow", "rmt", "data_prep", "reports"):
        (tmp_path / name).symlink_to(ROOT / name)
    settings = {"folder": "my images", "names": {"a b": "F-16A/B's {x}"}}
    config = GOOD | {"datasets": ["mine", "dtd"], "own_datasets": {"mine": settings}, "coop_data": "/my DATA"}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--configfile", "c.yaml", "-n", "-p", "runs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if "-m data_prep" in line]
    assert any("download dtd --data data" in line and "--coop '/my DATA'" in line for line in lines)
    mine = next(line for line in lines if "download mine" in line)
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {mine.split(' 2> ')[0]}"], capture_output=True, text=True)
    shown = words.stdout.splitlines()
    assert json.loads(shown[shown.index("--own") + 1]) == settings and "--coop" not in shown
    assert sum("--own" in line for line in lines) >= 4
