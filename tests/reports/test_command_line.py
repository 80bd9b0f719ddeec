"""The four verbs as the workflow calls them, and what a user's mistakes print."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reports.__main__ import main
from rmt.plan import Plan
from tests.reports.synthetic import make_plan, plan_json, write_results

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    plan = make_plan(
        tmp_path_factory.mktemp("small"), datasets=["digits"], shots=[2], methods={"zero_shot": {}, "r_amt": {}}
    )
    write_results(plan)
    return plan


def test_all_verbs(small: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_json(small)
    records, comparisons = str(tmp_path / "records.csv"), str(tmp_path / "comparisons.csv")
    drawn, index = str(tmp_path / "report" / "figures"), str(tmp_path / "report" / "index.md")
    read = ["--records", records, "--comparisons", comparisons]
    assert main(["collect", "--plan", plan, "--output", records]) == 0
    assert main(["compare", "--plan", plan, "--records", records, "--output", comparisons]) == 0
    assert capsys.readouterr().out == "2 comparisons with the control, 1 of them significant\n"
    assert main(["figures", "--plan", plan, *read, "--output", drawn]) == 0
    assert main(["render", "--plan", plan, *read, "--figures", drawn, "--output", index]) == 0
    names = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert names == {
        "records.csv",
        "comparisons.csv",
        "report/figures/curves.png",
        "report/figures/gains.png",
        "report/index.md",
        "report/digits.md",
    }
    assert capsys.readouterr() == ("", "")


def test_config_and_plan_are_the_same(small: Plan, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(json.loads(plan_json(small)), sort_keys=False))
    assert main(["collect", "--config", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "a.csv")]) == 0
    assert main(["collect", "--plan", plan_json(small), "--output", str(tmp_path / "b.csv")]) == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def one_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err[len("error: ") : -1]


def test_mistakes_are_one_line(small: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, output = plan_json(small), str(tmp_path / "out.csv")
    config = json.loads(plan)
    assert one_line(capsys, "collect", "--plan", "{", "--output", output).startswith("--plan: not JSON")
    assert one_line(capsys, "collect", "--plan", "[]", "--output", output).startswith("--plan: expected a JSON object")
    wrong = json.dumps(config | {"datasets": ["digit"]})
    message = one_line(capsys, "collect", "--plan", wrong, "--output", output)
    assert message == "key 'datasets': unknown name 'digit'; did you mean 'digits'?"
    assert "nowhere.yaml" in one_line(capsys, "collect", "--config", str(tmp_path / "nowhere.yaml"), "--output", output)
    nowhere = str(tmp_path / "nowhere.csv")
    assert one_line(capsys, "compare", "--plan", plan, "--records", nowhere, "--output", output) == (
        f"{nowhere}: no such file"
    )
    assert not (tmp_path / "out.csv").exists()


def test_missing_runs(small: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = json.dumps(json.loads(plan_json(small)) | {"seeds": [1, 2, 3, 4]})
    folder = Path(small.config["results_folder"]) / "synthetic/runs/few_shot/tiny_clip/digits/r_amt/2shot/seed4"
    output = tmp_path / "records.csv"
    assert one_line(capsys, "collect", "--plan", more, "--output", str(output)) == (
        f"1 of 5 planned runs have no record, the first is {folder}; "
        "finish them, or collect what there is with --partial"
    )
    assert main(["collect", "--plan", more, "--partial", "--output", str(output)]) == 0
    assert len(output.read_text().splitlines()) == 1 + 2 * 4


def test_missing_predictions_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(tmp_path, datasets=["digits"], shots=[2], methods={"zero_shot": {}, "r_amt": {}})
    write_results(plan)
    records, output = str(tmp_path / "records.csv"), str(tmp_path / "comparisons.csv")
    main(["collect", "--plan", plan_json(plan), "--output", records])
    main(["compare", "--plan", plan_json(plan), "--records", records, "--output", output])
    capsys.readouterr()
    message = one_line(
        capsys, "render", "--plan", plan_json(plan), "--records", records, "--comparisons", output,
        "--figures", str(tmp_path), "--output", str(tmp_path / "index.md"),
    )  # fmt: skip
    assert message.endswith("curves.png: no such figure; draw it with `python -m reports figures`")
    path = next((tmp_path / "results").rglob("zero_shot/*/*/predictions.parquet"))
    path.unlink()
    message = one_line(capsys, "compare", "--plan", plan_json(plan), "--records", records, "--output", output)
    assert message == f"{path}: no such file"


def test_config_or_plan_but_not_both(tmp_path: Path) -> None:
    for both in ([], ["--plan", "{}", "--config", "x.yaml"]):
        with pytest.raises(SystemExit) as raised:
            main(["collect", *both, "--output", str(tmp_path / "out.csv")])
        assert raised.value.code == 2


def test_nothing_heavy_is_imported() -> None:
    """The reports run where there is neither torch nor a tracker."""
    check = (
        "import sys, reports.__main__; from reports import collect, compare, figures, render; "
        "heavy = {'torch', 'mlflow', 'snakemake'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_collect_imports_little() -> None:
    check = (
        "import sys; from reports.__main__ import main; from reports import collect; "
        "heavy = {'pandas', 'scipy', 'matplotlib'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
