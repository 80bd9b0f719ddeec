"""A finished run answers again from its folder alone; what is not whole is refused by one line."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from rmt import records
from rmt.__main__ import main
from rmt.backbones import ROOT
from rmt.data import read_pack
from rmt.packed import parts, read
from rmt.predict import expanded
from tests.rmt.conftest import LABELS, RunOf


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def one_line(capsys, *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1, printed.err
    return printed.err


@pytest.mark.parametrize("label", LABELS)
def test_the_answers_are_those_of_predictions_parquet(toy_data: Path, run_of: RunOf, label: str, capsys) -> None:
    run = run_of(label)
    table = pd.read_parquet(run / "predictions.parquet")
    table = table[table.eval_set == "test"]
    assert table.path.tolist() == list(read_pack(toy_data / "test.npy").paths)
    images = [str(toy_data / "images" / path) for path in table.path]
    capsys.readouterr()
    assert main(["predict", str(run), *images, "--json", "--device", "cpu"]) == 0
    found = lines(capsys)
    assert [one["image"] for one in found] == images
    assert [one["top"][0]["label"] for one in found] == table.predicted.tolist()
    for one, confidence, own, target in zip(found, table.confidence, table.probability, table.label, strict=True):
        chances = {answer["label"]: answer["probability"] for answer in one["top"]}
        assert one["top"][0]["probability"] == pytest.approx(confidence, abs=1e-5)
        assert chances[target] == pytest.approx(own, abs=1e-5)
        assert sum(chances.values()) == pytest.approx(1)  # four classes, five asked for


def test_folders_the_table_and_what_cannot_be_read(toy_data: Path, run_of: RunOf, tmp_path: Path, capsys) -> None:
    run = run_of("zero_shot")
    inside = expanded([toy_data / "images"])
    assert len(inside) == 4 * 22 and inside == sorted(inside)
    broken = tmp_path / "broken.png"
    broken.write_bytes((inside[0]).read_bytes()[:60])
    arguments = ["predict", str(run), str(inside[0]), str(broken), str(tmp_path / "none.png"), "--top", "2"]
    capsys.readouterr()
    assert main(arguments) == 2
    printed = capsys.readouterr()
    first, second = printed.err.splitlines()
    assert first.startswith(f"error: {broken}: image cannot be decoded")
    assert second == f"error: {tmp_path / 'none.png'}: no such image"
    assert "Zero-shot CLIP on digits, tiny CLIP" in printed.out and printed.out.count(" %") == 2
    (tmp_path / "empty").mkdir()
    assert "no image in this folder" in one_line(capsys, "predict", str(run), str(tmp_path / "empty"))
    assert "--top 0" in one_line(capsys, "predict", str(run), str(inside[0]), "--top", "0")


def copied(run: Path, folder: Path) -> Path:
    """A run and what lies beside its method, in another place."""
    shutil.copytree(run.parents[2], folder / "moved")
    return folder / "moved" / run.parents[1].name / run.parent.name / run.name


def test_what_is_not_whole_is_refused_by_one_line(toy_data: Path, run_of: RunOf, tmp_path: Path, capsys) -> None:
    image = str(toy_data / "images/zero/00.png")
    run_of("tip_adapter+r_amt")
    stack = copied(run_of("tip_adapter+r_amt"), tmp_path)
    plain = stack.parents[2] / "r_amt/2shot/seed1"
    for verb in (["predict", str(stack), image], ["export", str(stack), "--output", str(tmp_path / "x.safetensors")]):
        assert main(verb) == 0  # a run may be moved, with what it stands on
    for wrong, words in (
        (tmp_path / "nowhere", "no such folder"),
        (toy_data / "images", "has no record.json; a finished run has one"),
        (plain.parents[1], "did you mean "),
    ):
        for verb in ("predict", "inspect"):
            assert words in one_line(capsys, verb, str(wrong), *([image] if verb == "predict" else []))

    masks = plain / "adapter.safetensors"
    kept = masks.read_bytes()
    shutil.copy(run_of("amt") / "adapter.safetensors", masks)
    assert "it was fitted on another adapter" in one_line(capsys, "predict", str(stack), image)
    masks.write_bytes(kept[:100])
    assert "damaged" in one_line(capsys, "predict", str(plain), image)
    masks.unlink()
    assert "adapter.safetensors: missing" in one_line(capsys, "predict", str(plain), image)
    shutil.rmtree(plain)
    assert "it stands on the run of r_amt" in one_line(capsys, "predict", str(stack), image)

    record = records.read(stack)
    for change, words in (
        ({"schema": 1}, "written by another version"),
        ({"method": record["method"] | {"use": "unheard_of"}}, "'unheard_of' is not registered"),
    ):
        records.write_json(stack / "record.json", record | change)
        assert words in one_line(capsys, "predict", str(stack), image)
    (stack / "record.json").write_text("{")
    assert "not JSON" in one_line(capsys, "inspect", str(stack))


def test_other_weights_are_refused(toy_data: Path, run_of: RunOf, tmp_path: Path, capsys, monkeypatch) -> None:
    run = copied(run_of("zero_shot"), tmp_path)
    record = records.read(run)
    record["provenance"]["weights_sha256"] = "0" * 64
    records.write_json(run / "record.json", record)
    image = str(toy_data / "images/zero/00.png")
    error = one_line(capsys, "predict", str(run), image)
    assert "fitted on other weights of tiny_clip" in error and "sha256 000000000000" in error
    assert "--checkpoint: tiny_clip is a registered backbone" in one_line(
        capsys, "predict", str(run), image, "--checkpoint", "x.pt"
    )
    record["identity"]["backbone"] = "mine"
    record["backbone"] |= {"architecture": "ViT-B-32", "pretrained": None, "checkpoint": "~/gone.pt", "pixels": 224}
    records.write_json(run / "record.json", record)
    assert "gone.pt does not exist" in one_line(capsys, "predict", str(run), image)
    assert "here.pt does not exist" in one_line(
        capsys, "predict", str(run), image, "--checkpoint", str(tmp_path / "here.pt")
    )


@pytest.mark.parametrize("label", LABELS)
def test_inspecting(run_of: RunOf, label: str, tmp_path: Path, capsys) -> None:
    run = run_of(label)
    record = records.read(run)
    capsys.readouterr()
    assert main(["inspect", str(run)]) == 0
    printed = capsys.readouterr().out
    assert record["method"]["label"] in printed
    assert f"\n  {record['provenance']['command']}\n" in printed  # one line that can be pasted
    assert "all are here" in printed
    if record["tuning"]["masks_total"] is not None:
        found = parts(read(run / "adapter.safetensors"))
        assert sum(part.scores for part in found) == record["tuning"]["masks_total"]
        assert sum(part.off for part in found) == record["tuning"]["masks_flipped"]
        assert f"{record['tuning']['masks_total']:,}" in printed
        assert ("No mask is off" in printed) == (record["tuning"]["masks_flipped"] == 0)
        picture = tmp_path / "masks.png"
        assert main(["inspect", str(run), "--figure", str(picture)]) == 0
        assert picture.read_bytes().startswith(b"\x89PNG")
    else:
        words = "Nothing was learnt" if label == "zero_shot" else "What was learnt"
        assert words in printed
        assert "no masks to draw" in one_line(capsys, "inspect", str(run), "--figure", str(tmp_path / "x.png"))


def test_inspecting_reads_neither_torch_nor_weights(run_of: RunOf) -> None:
    import subprocess
    import sys

    code = "import sys; from rmt.__main__ import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "inspect", str(run_of("r_amt"))], cwd=ROOT, check=False)
    assert done.returncode == 0
