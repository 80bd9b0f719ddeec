"""The design's promises about the code itself."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rmt import plan, registry

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [path for package in ("rmt", "data_prep", "reports") for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_only_tracking_imports_mlflow_and_nothing_imports_snakemake() -> None:
    users = {path.relative_to(ROOT).as_posix() for path in SOURCES if "mlflow" in imported(path)}
    assert users == {"rmt/tracking.py"}
    assert not [path for path in SOURCES if "snakemake" in imported(path)]
    assert not [path for path in SOURCES if path.is_relative_to(ROOT / "reports") and "torch" in imported(path)]


@pytest.mark.parametrize("module", ["data_prep.catalog", "rmt.registry"])
def test_catalog_and_registry_need_the_standard_library_only(module: str) -> None:
    """They are read again in every cluster job."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    others = {name.split(".")[0] for name in loaded.split()} - set(sys.stdlib_module_names)
    assert others <= {"rmt", "data_prep", "__main__"} | {name for name in others if name.startswith("_")}


def test_every_config_key_is_documented_with_its_default() -> None:
    readme = (ROOT / "workflow/config/README.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE))
    assert documented == set(plan.schema()["properties"])
    for name, spec in plan.schema()["properties"].items():
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}` |"))
        if spec.get("default") is not None:
            default = spec["default"]
            shown = f"[{', '.join(map(str, default))}]" if isinstance(default, list) else str(default)
            assert f"`{shown}`" in row, name
        assert spec["description"]


def test_every_default_hyperparameter_has_a_source() -> None:
    for name, method in registry.METHODS.items():
        assert (ROOT / f"{method.module.replace('.', '/')}.py").exists(), name
        assert method.citation
        for key, default in method.defaults.items():
            assert len(default.source) > 10, (name, key)


def test_every_method_file_opens_with_its_citation() -> None:
    for module in {method.module for method in registry.METHODS.values()}:
        docstring = ast.get_docstring(ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text()))
        assert docstring and re.search(r"(et al\.|\w+ and [\w ]+), .*20\d\d", docstring), module


def test_rules_are_single_command_lines() -> None:
    for path in sorted((ROOT / "workflow").rglob("*.smk")):
        text = path.read_text()
        assert not re.search(r"^\s+(run|script|notebook|wrapper):", text, re.MULTILINE), path
        for rule in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]:
            if "shell:" in rule:
                assert re.search(r'"python -m \w+ \w+|\{FIT\}', rule), rule.splitlines()[0]
                assert "log:" in rule, rule.splitlines()[0]


def test_files_are_short_enough_to_hold_in_the_head() -> None:
    long = {str(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert not {name: lines for name, lines in long.items() if lines > 400}


def test_dependencies_are_pinned() -> None:
    pinned = {
        re.split("==", line)[0].lower().replace("_", "-"): line.split("==")[1]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    import tomllib

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in [*wanted["dependencies"], *wanted["optional-dependencies"]["dev"]]:
        name = re.split(r"[=<>~ ]", requirement)[0].lower().replace("_", "-")
        assert name in pinned, requirement
    assert (pinned["torch"], pinned["torchvision"], pinned["open-clip-torch"]) == ("2.13.0", "0.28.0", "3.3.0")


def test_the_shipped_checkpoint_is_small_and_its_config_is_open_clips() -> None:
    weights = ROOT / registry.BACKBONES["tiny_clip"].pretrained
    assert weights.stat().st_size < 5_000_000
    config = yaml.safe_load((ROOT / "rmt/weights/tiny_clip.json").read_text())
    assert {"embed_dim", "vision_cfg", "text_cfg"} <= set(config)


def test_the_conda_environment_has_the_constraints_versions() -> None:
    environment = yaml.safe_load((ROOT / "workflow/envs/rmt-bench.yaml").read_text())
    pinned = {line.lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    listed = [requirement.lower() for requirement in environment["dependencies"][-1]["pip"]]
    assert len(listed) > 20 and set(listed) <= set(pinned)


def test_the_readmes_tables_were_printed_by_the_commands_it_names() -> None:
    """The result table is that of the committed report, row by row; the report's page is whole."""
    readme = (ROOT / "README.md").read_text()
    report = (ROOT / "docs/demo/index.md").read_text()
    table = readme.split("<!-- results -->")[1].split("<!-- end of results -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")]
    assert len(rows) >= 10 and all(row in report for row in rows)
    for link in re.findall(r"\]\((docs/[^)#]+|workflow/[^)#]+|[A-Z]+\.md)", readme):
        assert (ROOT / link).exists(), link
    for link in re.findall(r"\]\(([^)#:]+)\)", report):
        assert (ROOT / "docs/demo" / link).exists(), link
