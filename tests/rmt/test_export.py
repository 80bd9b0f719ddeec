"""An exported run, read as a stranger would: by open_clip, torch and the description beside it, in a fresh process."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from rmt import methods
from rmt.__main__ import main
from rmt.data import read_pack
from rmt.restore import restore
from tests import toy
from tests.rmt.conftest import LABELS, RunOf

ROOT = Path(__file__).resolve().parents[2]

STRANGER = """
import json, runpy, sys
from pathlib import Path
import torch
try:
    import open_clip
except RuntimeError:  # torchvision built for another torch: only there, and only for this import
    runpy.run_path(sys.argv[3] + "/rmt/torchvision_import.py")
    import open_clip
import numpy as np
from PIL import Image
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
description = json.loads(Path(sys.argv[1]).with_suffix(".json").read_text())
scope = {}
exec(description["load"], scope)
model, preprocess = scope["model"], scope["preprocess"]
facts = json.loads(sys.stdin.read())
with torch.no_grad():
    images = torch.stack([preprocess(Image.open(path)) for path in facts["images"]])
    found = model.encode_image(images)
    tokens = open_clip.get_tokenizer(description["architecture"])
    prompts = [description["template"].format(name.replace("_", " ")) for name in description["classes"]]
    text = model.encode_text(tokens(prompts))
save_file({"features": found, "text": text}, sys.argv[2])
assert not [name for name in sys.modules if name.split(".")[0] == "rmt"], "it needs this repository"
"""


def n(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def read_by_equation(about: dict, head: dict[str, torch.Tensor], f: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Logits as `logits` of the description says, its equation run as Python."""
    equation = about["logits"].removeprefix("logits = ")
    names = {"f": f, "n": n, "text": text, "exp": torch.exp, "relu": torch.relu, "logit_scale": about["logit_scale"]}
    names |= about["hyperparameters"] | head | about["chosen"]
    names["one_hot"] = lambda labels: torch.nn.functional.one_hot(labels, len(about["classes"])).float()
    main_part, _, where = equation.partition(", where ")
    if where.startswith("g = "):
        names["g"] = eval(where.removeprefix("g = "), names)
    return eval(main_part, names)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory, toy_data: Path, run_of: RunOf):
    """Exports a run, and what a fresh process reads of it: description, head, features and text of the test images."""
    known: dict[str, tuple] = {}
    paths = [str(toy_data / "images" / path) for path in read_pack(toy_data / "test.npy").paths]

    def read(label: str) -> tuple[dict, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        if label not in known:
            folder = tmp_path_factory.mktemp("export")
            output = folder / "model.safetensors"
            assert main(["export", str(run_of(label)), "--output", str(output)]) == 0
            done = subprocess.run(
                [sys.executable, "-c", STRANGER, str(output), str(folder / "found.safetensors"), str(ROOT)],
                input=json.dumps({"images": paths}),
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            about = json.loads((folder / "model.json").read_text())
            head = load_file(folder / "model.head.safetensors") if about["head"] else {}
            known[label] = about, head, load_file(folder / "found.safetensors")
        return known[label]

    return read


@pytest.mark.parametrize("label", ["zero_shot", "r_amt", "clip_lora", "coop", "clip_adapter+r_amt", "r_amt+coop"])
def test_a_fresh_process_repeats_the_runs_features_to_the_bit(stranger, toy_data, run_of, label: str) -> None:
    """From the image files on: decoding, the test transform, the tower."""
    about, head, found = stranger(label)
    restored = restore(run_of(label))
    clip = restored.folded or restored.base.clip
    assert torch.equal(found["features"], clip.encode_images(read_pack(toy_data / "test.npy").pixels))
    assert found["features"].dtype == torch.float32
    own_prompts = n(found["text"])
    if not head:
        assert torch.equal(own_prompts, restored.text)
    else:
        assert torch.equal(head["text"], restored.text)
        assert torch.equal(own_prompts, head["text"]) == ("coop" not in label)
    assert about["source"]["identity"]["method"] == label


@pytest.mark.parametrize(
    "label",
    [
        "zero_shot",
        "r_amt",
        "coop",
        "clip_adapter+r_amt",
        "r_amt+coop",
        "tip_adapter_f+r_amt",
        "linear_probe+r_amt",
        "clip_lora",
        "taskres",
        "lp_plus_plus",
    ],
)
def test_the_equation_gives_the_runs_predictions(stranger, run_of, label: str) -> None:
    about, head, found = stranger(label)
    text = head.get("text", n(found["text"]))
    logits = read_by_equation(about, head, found["features"], text).double()
    table = pd.read_parquet(run_of(label) / "predictions.parquet")
    table = table[table.eval_set == "test"]
    assert logits.argmax(1).tolist() == table.predicted.tolist()
    labels = torch.tensor(table.label.tolist())
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    margins = (logits.gather(1, labels[:, None]).squeeze(1) - others).float().numpy()
    if label in ("zero_shot", "r_amt"):  # the same operations in the same order
        assert (margins == table.margin.to_numpy()).all()
    np.testing.assert_allclose(margins, table.margin.to_numpy(), atol=2e-5)


@pytest.mark.parametrize("label", LABELS)
def test_every_method_exports_a_model_that_open_clip_loads(tmp_path: Path, run_of: RunOf, label: str) -> None:
    """Weights equal to the bit; a head where the method answers by more than CLIP's own logits."""
    output = tmp_path / "model.safetensors"
    assert main(["export", str(run_of(label) / "record.json"), "--output", str(output)]) == 0
    open_clip.add_model_config(ROOT / "rmt/weights/tiny_clip.json")
    model = open_clip.create_model("tiny_clip", pretrained=str(output))
    restored = restore(run_of(label))
    state = (restored.folded or restored.base.clip).model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    frozen = restored.clip.model.visual.conv1.weight
    masked = "r_amt" in label.split("+") or label in ("amt", "r_pmt")  # r_mmt leaves the patches, r_amt_released all
    assert torch.equal(frozen, model.visual.conv1.weight) != masked
    about = json.loads(output.with_suffix(".json").read_text())
    plain = (restored.folded is not None or label == "zero_shot") and not label.endswith("+coop")
    assert (about["head"] is None) == plain == (not (tmp_path / "model.head.safetensors").exists())
    assert "logits" in about["logits"]
    assert about["classes"] == list(toy.CLASSES) and about["template"] == toy.TEMPLATE


def test_nothing_is_replaced_without_force(tmp_path: Path, run_of: RunOf, capsys) -> None:
    output = tmp_path / "model.safetensors"
    assert main(["export", str(run_of("coop")), "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "model.head.safetensors: the head: text [4 x 128], raw_text [4 x 128], context [5 x 64]" in printed
    assert "open_clip.create_model_and_transforms('tiny_clip', pretrained=" in printed
    before = output.read_bytes()
    assert main(["export", str(run_of("r_amt")), "--output", str(output)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "there already" in error and output.read_bytes() == before
    assert main(["export", str(run_of("r_amt")), "--output", str(output), "--force"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "model.json"}  # no stale head
    assert main(["export", str(run_of("r_amt")), "--output", str(tmp_path / "model.pt")]) == 2
    assert "end it with .safetensors" in capsys.readouterr().err


def test_the_line_that_loads_another_kind_of_transform(monkeypatch, run_of: RunOf) -> None:
    """Mean, deviation and resizing that are not CLIP's own are named, because open_clip takes CLIP's for a file."""
    from rmt.export import load_line

    restored = restore(run_of("zero_shot"))
    assert "image_" not in load_line(restored, Path("model.safetensors"))
    half = torch.full((1, 3, 1, 1), 0.5)
    for name, value in (("mean", half), ("std", half), ("resize", "squash")):
        monkeypatch.setattr(restored.clip, name, value)
    assert load_line(restored, Path("model.safetensors")).endswith(
        "pretrained='model.safetensors', image_mean=(0.5, 0.5, 0.5), image_std=(0.5, 0.5, 0.5), "
        "image_resize_mode='squash'); model.eval()"
    )


def test_a_method_with_a_prompt_of_its_own_says_so() -> None:
    own = {"template": "an image of {}."}
    assert methods.prompt("clip_lora", toy.TEMPLATE, own) == own["template"]
    assert methods.prompt("r_amt", toy.TEMPLATE, own) == toy.TEMPLATE
