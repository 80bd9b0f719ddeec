"""Real photographs through every stage: ten classes of DTD with CoOp's split, from a folder to the report.

What is proven is that every stage runs on real files; accuracies here mean nothing. The photographs (research use) are
no part of this repository: without them beside the checkout these tests are skipped.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import rmt.torchvision_import  # noqa: F401

import open_clip  # isort: skip

from data_prep import splits
from data_prep.__main__ import main as data_prep
from reports.__main__ import main as reports
from rmt import masks, plan, records, registry
from rmt.__main__ import main as run_rmt
from rmt.data import read_pack
from tests.conftest import SHARED
from tests.toy import short

PHOTOGRAPHS = SHARED / "dtd10"
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

pytestmark = pytest.mark.skipif(not (PHOTOGRAPHS / "split.json").is_file(), reason="the photographs are not at hand")


def renamed(split: dict, labels: range) -> dict:
    """The split of some labels, classes renamed to words of the tiny CLIP's world.

    It was trained on 82 word pieces and refuses "banded" and "cobwebbed" for good reason: it would read rows of its
    token table that were never trained.
    """
    return {
        part: [[path, label, WORDS[label]] for path, label, _ in items if label in labels]
        for part, items in split.items()
    }


class Bench:
    """The photographs as a user's own dataset, `dtd10`, with a split file in CoOp's format; and a benchmark on it."""

    def __init__(self, root: Path, labels: range, tests_per_class: int | None = None) -> None:
        self.root, self.data = root, root / "data"
        content = renamed(json.loads((PHOTOGRAPHS / "split.json").read_text()), labels)
        if tests_per_class:
            content["test"] = [
                item for label in labels for item in [x for x in content["test"] if x[1] == label][:tests_per_class]
            ]
        given = root / "given.json"
        given.write_text(json.dumps(content))
        self.sha256 = splits.sha256_of(given)
        self.settings = {"folder": str(PHOTOGRAPHS / "images"), "split": str(given), "template": "{} texture."}
        self.split, self.images = self.data / "dtd10/split.json", self.data / "dtd10/images"

    def data_prep(self, verb: str, *options: str) -> None:
        assert data_prep([verb, *options, "--own", json.dumps(self.settings)]) == 0

    def prepare(self, pixels: int) -> Path:
        """Download (the images are used in place), split, pack; returns the pack."""
        pack = self.data / "dtd10/pack" / f"{pixels}px.npy"
        self.data_prep("download", "dtd10", "--data", str(self.data))
        self.data_prep("split", "dtd10", "--data", str(self.data), "--output", str(self.split))
        where = ["--split", str(self.split), "--images", str(self.images), "--output", str(pack)]
        self.data_prep("pack", "dtd10", "--pixels", str(pixels), *where)
        assert data_prep(["verify", str(pack)]) == 0
        return pack

    def sample(self, shots: int, seed: int) -> str:
        output = self.root / f"results/photographs/samples/dtd10/{shots}shot-seed{seed}.json"
        axes = ["--shots", str(shots), "--seed", str(seed), "--dataset", "dtd10"]
        self.data_prep("sample", "--split", str(self.split), *axes, "--output", str(output))
        return str(output)

    def rmt(self, verb: str, backbone: str, *options: str) -> None:
        images = ["--images", str(self.images), "--views", "2", "--device", "cpu", "--threads", "2"]
        assert run_rmt([verb, "--backbone", backbone, *images, *options]) == 0

    def fit(self, backbone: str, method: str, overrides: dict, *options: str) -> None:
        common = ["--benchmark", "photographs", "--method", method, "--results", str(self.root / "results")]
        self.rmt("fit", backbone, *common, "--overrides", json.dumps(overrides), *options)


@pytest.fixture
def two_threads() -> Iterator[None]:
    yield
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(False)


def test_photographs_through_every_stage_and_every_method(tmp_path, two_threads, capsys) -> None:
    bench = Bench(tmp_path, range(10))
    pack = bench.prepare(32)
    assert read_pack(pack).pixels.shape == (360, 32, 32, 3)
    assert np.unique(np.asarray(read_pack(pack).pixels).reshape(360, -1), axis=0).shape[0] > 350, "photographs differ"
    drawn = [bench.sample(shots, 1) for shots in (1, 2)]
    assert [len(json.loads(Path(path).read_text())["train"]) for path in drawn] == [10, 20]

    features = str(tmp_path / "features.safetensors")
    bench.rmt("encode", "tiny_clip", "--pack", str(pack), "--samples", *drawn, "--output", features)
    methods = {name: short(name.split("+")[0]) for name in [*registry.METHODS, "coop+r_amt", "tip_adapter+r_amt"]}
    for settings in methods.values():
        if "initial_context" in settings:
            settings["initial_context"] = "a photo of a"  # no word stands before the class in this dataset's prompt
    # A tower before what stands on it.
    for method in sorted(methods, key=lambda name: ("+" in name, name)):
        samples = ["--samples", *drawn] if registry.METHODS[method.split("+")[0]].few_shot else []
        bench.fit("tiny_clip", method, methods[method], "--features", features, "--pack", str(pack), *samples)

    config = {
        "benchmark": "photographs",
        "datasets": ["dtd10"],
        "own_datasets": {"dtd10": bench.settings},
        "shots": [1, 2],
        "seeds": [1],
        "methods": methods,
        "resamples": 500,
        "results_folder": str(tmp_path / "results"),
        "reports_folder": str(tmp_path / "report"),
    }
    planned = plan.check(config)
    for identity in planned.identities():
        record = records.read(identity.folder(tmp_path / "results"))
        assert record["metrics"]["test"]["images"] == 360 and 0 < record["metrics"]["test"]["accuracy"] < 100
        assert record["provenance"]["split_sha256"] == bench.sha256
    tuned = planned.identities("r_amt")[0].folder(tmp_path / "results")
    assert records.read(tuned)["tuning"]["masks_flipped"] > 0

    said = ["--plan", json.dumps(dict(planned.config))]
    table, tests = str(tmp_path / "records.csv"), str(tmp_path / "comparisons.csv")
    page, drawings = tmp_path / "report/index.md", str(tmp_path / "report/figures")
    assert reports(["collect", *said, "--output", table]) == 0
    assert reports(["compare", *said, "--records", table, "--output", tests]) == 0
    both = ["--records", table, "--comparisons", tests]
    assert reports(["figures", *said, *both, "--output", drawings]) == 0
    assert reports(["render", *said, *both, "--figures", drawings, "--output", str(page)]) == 0
    text = page.read_text()
    assert "dtd10" in text and f"{len(planned.identities())} of {len(planned.identities())} planned runs" in text
    for name in methods:
        assert planned.display(name) in text
    assert "360" in (tmp_path / "report/dtd10.md").read_text()
    capsys.readouterr()


def test_two_steps_of_mask_tuning_on_a_random_vit_b16_at_224_pixels(tmp_path, monkeypatch, two_threads) -> None:
    """The path of a real CLIP: full vocabulary, 224 pixels, 28,901,376 masks; with DTD's own class names."""
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-16-quickgelu", load_weights=False)
    checkpoint = tmp_path / "random.pt"
    torch.save({name: tensor.half() for name, tensor in model.state_dict().items()}, checkpoint)
    del model
    own = {"architecture": "ViT-B-16-quickgelu", "checkpoint": str(checkpoint)}
    monkeypatch.setattr(registry, "BACKBONES", dict(registry.BACKBONES))
    monkeypatch.setattr("tests.test_photographs.WORDS", ("banded", "blotchy"))
    bench = Bench(tmp_path, range(2), tests_per_class=2)
    pack = bench.prepare(224)
    sample = bench.sample(1, 1)
    assert json.loads(Path(sample).read_text())["classes"] == ["banded", "blotchy"]
    options = ["--own-backbone", json.dumps(own), "--pack", str(pack), "--samples", sample]
    # One image per class is one batch: one step an epoch. Two steps of this size cannot flip a mask, and must not.
    bench.fit("random_vit_b16", "r_amt", {"epochs": 2, "minimum_travel": 0.0}, *options)
    run = tmp_path / "results/photographs/runs/few_shot/random_vit_b16/dtd10/r_amt/1shot/seed1"
    record = records.read(run)
    assert record["tuning"]["optimisation_steps"] == 2
    assert record["tuning"]["masks_total"] == 28_901_376 and record["tuning"]["masks_flipped"] == 0
    assert record["metrics"]["test"]["images"] == 4 and record["metrics"]["val"]["images"] == 2
    assert masks.count(masks.unpack(load_file(run / "adapter.safetensors"))) == (28_901_376, 0)
    checkpoint.unlink()
