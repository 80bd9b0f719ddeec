"""What was masked: counts by matrix, overlaps beside chance, the page's section."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from reports import collect, figures, masks, masks_page
from reports.__main__ import main
from reports.compare import compare
from reports.render import MissingFigure, render
from rmt import packed
from rmt.plan import Plan
from rmt.records import Identity
from tests.reports.synthetic import make_plan, plan_json, write_results
from tests.reports.test_pages import cells, tables_of

SHAPES = {
    "conv1.weight": (4, 3, 2, 2),
    **{
        f"transformer.resblocks.{block}.{name}": shape
        for block in range(6)
        for name, shape in (("attn.in_proj_weight", (24, 8)), ("attn.out_proj.weight", (8, 8)))
    },
}
SCORES = 48 + 6 * 256
Write = Callable[[Identity], dict[str, np.ndarray]]


def nothing_off() -> dict[str, np.ndarray]:
    return {name: np.ones(shape, bool) for name, shape in SHAPES.items()}


def by_hand(run: Identity) -> dict[str, np.ndarray]:
    """R-AMT, off: in block 0's output two rows by dataset, neighbours share one; in block 5's value one row by seed."""
    found = nothing_off()
    if run.method == "amt":
        return found
    first = ["digits", "letters", "displays"].index(run.dataset)
    found["transformer.resblocks.0.attn.out_proj.weight"][first : first + 2] = False
    found["transformer.resblocks.5.attn.in_proj_weight"][16 + run.seed] = False
    return found


def finished(folder: Path, write: Write = by_hand, **changes: object) -> Plan:
    methods = {"zero_shot": {}, "r_amt": {}, "amt": {}}
    settings = {"datasets": ["digits", "letters", "displays"], "shots": [2], "seeds": [1, 2], "methods": methods}
    plan = make_plan(folder, **(settings | changes))
    write_results(plan)
    for run in masks.mask_runs(plan):
        path = run.folder(Path(plan.config["results_folder"])) / "adapter.safetensors"
        save_file(packed.pack(write(run)), path)
    return plan


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return finished(tmp_path_factory.mktemp("masked"))


def of(rows: list, **wanted: object) -> list:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def test_counts_by_run_layer_and_matrix(plan: Plan) -> None:
    found, _ = masks.measure(plan)
    assert len(found) == 2 * 3 * 2 * (1 + 6 * 4)
    run = of(found, method="r_amt", dataset="letters", seed=2)
    assert sum(row["scores"] for row in run) == SCORES
    off = {(row["layer"], row["matrix"]): row["off"] for row in run if row["off"]}
    assert off == {("block 0", "output"): 16, ("block 5", "value"): 8}
    assert of(run, layer="block 0", matrix="output")[0]["fraction"] == 0.25
    assert not any(row["off"] for row in of(found, method="amt"))


def test_overlaps(plan: Plan) -> None:
    _, found = masks.measure(plan)
    assert len(of(found, between="seeds")) == 2 * 3 and len(of(found, between="datasets")) == 2 * 3 * 2
    seeds = of(found, method="r_amt", between="seeds", dataset="digits")[0]
    assert (seeds["seed"], seeds["other_seed"], seeds["other_dataset"]) == (1, 2, "digits")
    assert (seeds["scores"], seeds["off"], seeds["other_off"], seeds["both"]) == (SCORES, 24, 24, 16)
    assert seeds["iou"] == 16 / 32 and seeds["of_smaller"] == 16 / 24
    assert seeds["chance_both"] == pytest.approx(24 * 24 / SCORES)
    assert seeds["chance_both_by_matrix"] == pytest.approx(16 * 16 / 64 + 8 * 8 / 64)
    neighbours = of(found, method="r_amt", dataset="digits", other_dataset="letters", seed=2)[0]
    assert (neighbours["both"], neighbours["other_seed"]) == (8 + 8, 2)  # a row of the output, and the seed's value
    far = of(found, method="r_amt", dataset="digits", other_dataset="displays", seed=2)[0]
    assert far["both"] == 8
    idle = of(found, method="amt")
    assert all(row["both"] == 0 and row["iou"] is None and row["chance_iou"] is None for row in idle)


@pytest.mark.parametrize(("scores", "one", "other"), [(8, 3, 4), (6, 6, 2), (7, 1, 1), (6, 5, 5), (5, 5, 5)])
def test_chance_is_the_mean_over_all_pairs_of_sets(scores: int, one: int, other: int) -> None:
    fixed = set(range(one))
    every = [set(chosen) for chosen in itertools.combinations(range(scores), other)]
    expected = np.mean([len(fixed & chosen) / len(fixed | chosen) for chosen in every])
    assert masks.expected_iou(scores, one, other) == pytest.approx(expected)


def test_chance_of_large_sets() -> None:
    """At the size of ViT-B/16's masks the intersection is its mean, to four digits."""
    scores, one, other = 28_901_376, 740_000, 310_000
    mean = one * other / scores
    assert masks.expected_iou(scores, one, other) == pytest.approx(mean / (one + other - mean), rel=1e-4)
    assert masks.expected_iou(scores, 0, other) == 0.0


def test_random_masks_agree_as_by_chance(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    plan = finished(
        tmp_path,
        lambda run: {name: generator.random(shape) > 0.2 for name, shape in SHAPES.items()},
        seeds=[1, 2, 3],
        methods={"r_amt": {}},
    )
    _, found = masks.measure(plan)
    times = sum(row["both"] for row in found) / sum(row["chance_both"] for row in found)
    assert times == pytest.approx(1, abs=0.1)
    assert np.mean([row["iou"] - row["chance_iou"] for row in found]) == pytest.approx(0, abs=0.01)


def test_tables_read_back_exactly_and_runs_may_be_missing(plan: Plan, tmp_path: Path, capsys) -> None:
    found, overlaps = masks.measure(plan)
    masks.write(tmp_path / "masks.csv", found, overlaps)
    assert masks.read(tmp_path / "masks.csv", plan) == (found, overlaps)
    # The longest plan's files serve a shorter one.
    fewer = make_plan(Path(plan.config["results_folder"]).parent, **{
        name: plan.config[name] for name in ("shots", "seeds", "methods")
    }, datasets=["digits", "letters"])  # fmt: skip
    parts, pairs = masks.read(tmp_path / "masks.csv", fewer)
    assert {row["dataset"] for row in parts} == {row["other_dataset"] for row in pairs} == {"digits", "letters"}
    more = plan_json(make_plan(tmp_path, **dict(plan.config) | {"seeds": [1, 2, 3]}))
    arguments = ["masks", "--plan", more, "--output", str(tmp_path / "more.csv")]
    assert main(arguments) == 2
    assert "6 of 18 planned runs with masks have no record" in capsys.readouterr().err
    assert main([*arguments, "--partial"]) == 0


class Page:
    def __init__(self, plan: Plan, folder: Path):
        rows, tables = collect.collect(plan), masks.measure(plan)
        figures.draw(plan, rows, folder / "figures")
        self.drawn = masks_page.draw(plan, tables[0], folder / "figures")
        render(plan, rows, compare(plan, rows), folder / "figures", folder / "index.md", tables)
        self.text = (folder / "index.md").read_text()
        self.section = self.text.split("## What was masked\n")[1].split("\n## Cost")[0]


@pytest.fixture(scope="module")
def page(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(plan, tmp_path_factory.mktemp("page"))


def test_the_section(page: Page) -> None:
    assert "[What was masked](#what-was-masked)" in page.text
    assert (
        "R-AMT masked 1.5 % of its 1,584 scores; two seeds of a dataset agree on 50 % (IoU), where chance"
        in page.section
    )
    assert "AMT (no gradient dropout) masked nothing in any run (∅)." in page.section
    by_matrix, by_dataset, agreement, matrix = tables_of(page.section)
    rows = [line.split(" | ") for line in by_matrix.splitlines()]
    assert [cell.strip("| ") for cell in rows[0]] == [
        "Method", "layers", "embedding", "query", "key", "value", "output", "all",
    ]  # fmt: skip
    assert [row[1] for row in rows[2:]] == ["patches", "blocks 0–1", "blocks 2–3", "blocks 4–5", "all"] * 2
    assert [cell.strip("| ") for cell in rows[3]] == ["", "blocks 0–1", "", "0", "0", "0", "12", "3.1"]
    found = cells(by_dataset)
    assert found["Method"] == ["shots", "Digits", "Letters", "Displays", "mean"]
    assert found["R-AMT"] == ["2", "1.5", "1.5", "1.5", "1.5"]
    assert found["AMT (no gradient dropout)"] == ["2", "0∅", "0∅", "0∅", "0"]
    lines = [[cell.strip("| ") for cell in line.split(" | ")] for line in agreement.splitlines()]
    assert lines[2][:4] == ["R-AMT", "2", "seeds", "3"] and lines[2][4] == "50"
    assert lines[2][6] == f"{16 / (24 * 24 / SCORES):.1f}" and lines[2][7] == f"{16 / 5:.1f}"
    assert lines[3][2:4] == ["datasets", "6"]
    assert lines[4][:5] == ["AMT (no gradient dropout)", "2", "seeds", "∅", "–"]
    found = cells(matrix)
    assert found["**Digits**"][0].startswith("50 (") and found["**Digits**"][1].startswith("50 (")
    assert found["**Digits**"][2].startswith("20 (") and found["**Displays**"][0] == found["**Digits**"][2]
    assert "cross_dataset" not in page.section


def test_the_figure(page: Page, plan: Plan, tmp_path: Path) -> None:
    assert [path.name for path in page.drawn] == ["masks.png"]
    assert "](figures/masks.png)" in page.section
    rows, tables = collect.collect(plan), masks.measure(plan)
    figures.draw(plan, rows, tmp_path)
    with pytest.raises(MissingFigure, match=r"masks\.png"):
        render(plan, rows, compare(plan, rows), tmp_path, tmp_path / "index.md", tables)


def test_two_backbones_never_mix_and_nothing_may_be_masked(tmp_path: Path) -> None:
    plan = finished(tmp_path, lambda run: nothing_off(), backbones=["tiny_clip", "vit_b16"], seeds=[1])
    page = Page(plan, tmp_path / "page")
    assert page.drawn == [] and ".png" not in page.section
    assert "### Masks, few_shot, CLIP ViT-B/16" in page.section and "### Masks, few_shot, tiny CLIP" in page.section
    assert page.section.count("masked nothing in any run (∅)") == 4


def test_no_section_without_mask_methods(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, methods={"zero_shot": {}, "coop": {}}, datasets=["digits"])
    write_results(plan)
    assert masks.mask_runs(plan) == [] and masks.measure(plan) == ([], [])
    rows = collect.collect(plan)
    figures.draw(plan, rows, tmp_path / "figures")
    render(plan, rows, compare(plan, rows), tmp_path / "figures", tmp_path / "index.md")
    assert "What was masked" not in (tmp_path / "index.md").read_text()


def test_cross_dataset_is_referred_to(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, protocols=["few_shot", "cross_dataset"], datasets=["digits", "letters"])
    assert "cross_dataset" in plan.config["protocols"]
    template = (Path(masks.__file__).parent / "templates/_masks.md.jinja").read_text()
    assert "protocol `cross_dataset`" in template


def test_the_verbs(plan: Plan, tmp_path: Path, capsys) -> None:
    settings = ["--plan", plan_json(plan)]
    names = {name: str(tmp_path / name) for name in ("records.csv", "comparisons.csv", "masks.csv", "figures", "x.md")}
    read = ["--records", names["records.csv"], "--comparisons", names["comparisons.csv"], "--masks", names["masks.csv"]]
    for words in (
        ["collect", *settings, "--output", names["records.csv"]],
        ["compare", *settings, *read[:2], "--output", names["comparisons.csv"]],
        ["masks", *settings, "--output", names["masks.csv"]],
        ["figures", *settings, *read, "--output", names["figures"]],
        ["render", *settings, *read, "--figures", names["figures"], "--output", names["x.md"]],
    ):
        assert main(words) == 0, capsys.readouterr().err
    assert (tmp_path / "figures/masks.png").exists() and (tmp_path / "mask_overlaps.csv").exists()
    assert "## What was masked" in (tmp_path / "x.md").read_text()
