"""What CONTRIBUTING says about adding a method, done to the letter in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("rmt", "data_prep", "reports", "tests", "workflow", "docs", "Snakefile", "pyproject.toml", "constraints.txt")
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "Makefile")


def copy_with_the_example(folder: Path) -> None:
    """A copy of the project with the example's file written and its line inserted, and nothing else changed."""
    for name in (*PARTS, *PAGES):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    example, line = re.findall(r"```python\n# (.*?)\n(.*?)```", text, re.DOTALL)
    assert line[0] == "a line of METHODS in rmt/registry.py"
    (folder / example[0]).write_text(example[1])
    registry = folder / "rmt" / "registry.py"
    start = "METHODS: dict[str, Method] = {\n"
    assert start in registry.read_text()
    registry.write_text(registry.read_text().replace(start, start + "    " + line[1]))


def test_a_method_is_one_file_and_one_line(tmp_path) -> None:
    copy_with_the_example(tmp_path)
    config = {
        "benchmark": "example",
        "datasets": ["digits"],
        "shots": [1],
        "seeds": [1],
        "device": "cpu",
        "methods": {"zero_shot": {}, "nearest_mean": {}},
    }
    (tmp_path / "example.yaml").write_text(yaml.safe_dump(config))
    here = os.environ | {"PYTHONPATH": str(tmp_path)}

    def run(*words: str) -> str:
        done = subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, env=here, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    said = run("pytest", "-k", "nearest_mean", "tests/rmt/test_contract.py")
    assert int(re.search(r"(\d+) passed", said)[1]) >= 3
    run("pytest", "tests/test_architecture.py", "-k", "method or short or cited or source or standard")
    run("snakemake", "--configfile", "example.yaml", "--cores", "1", "--quiet", "all")
    page = (tmp_path / "reports/generated/example/index.md").read_text()
    assert re.search(r"^\| Nearest class mean \|", page, re.MULTILINE)
