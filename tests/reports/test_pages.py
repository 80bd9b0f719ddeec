"""Tables, findings, figures and pages: the cells, the marks and the words that a reader sees."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import yaml

from reports import collect, figures, findings, provenance, recipes, tables, text
from reports.cells import Scores, Setting, figure_name
from reports.compare import compare
from reports.comparisons import Comparison, Comparisons
from reports.render import MissingFigure, render
from rmt import plan as plans
from rmt.plan import Plan
from tests.reports.synthetic import make_plan, right, write_results, write_run

SETTING = Setting("few_shot", "tiny_clip", "test")


class Page:
    """A rendered benchmark and what it was rendered from."""

    def __init__(self, plan: Plan, folder: Path, found: list[Comparison] | None = None):
        self.plan = plan
        self.rows = collect.collect(plan, partial=True)
        self.found = compare(plan, self.rows) if found is None else found
        self.folder = folder
        figures.draw(plan, self.rows, folder / "figures")
        render(plan, self.rows, self.found, folder / "figures", folder / "index.md")
        self.text = (folder / "index.md").read_text()

    @property
    def scores(self) -> Scores:
        return Scores(self.plan, self.rows, SETTING)

    @property
    def tests(self) -> Comparisons:
        return Comparisons(self.found, SETTING)


@pytest.fixture(scope="module")
def page(full: Plan, full_tests: list[Comparison], tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(full, tmp_path_factory.mktemp("page"), full_tests)


@pytest.fixture(scope="module")
def holes(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A benchmark with missing runs, runs that flipped no mask, a stack and mixed provenance."""
    folder = tmp_path_factory.mktemp("holes")
    methods = {"zero_shot": {}, "r_amt": {"learning_rate": 3e-4}, "coop": {}, "coop+r_amt": {}, "tip_adapter": {}}
    plan = make_plan(folder, methods=methods, datasets=["digits", "letters"], shots=[16, 1])
    for run in plan.identities():
        if run.method == "tip_adapter" and run.dataset == "letters":
            continue
        if (run.method, run.dataset, run.shots, run.seed) == ("coop", "digits", 16, 2):
            continue
        changes = {}
        if (run.method, run.dataset, run.shots, run.seed) == ("r_amt", "digits", 1, 3):
            changes = {"tuning__masks_flipped": 0, "tuning__masked_fraction": 0.0}
        if run.method == "coop":
            changes = {"provenance__commit": "f" * 40, "provenance__dirty": True}
        write_run(plan, run, changes=changes)
    return Page(plan, folder / "page")


def cells(table: str) -> dict[str, list[str]]:
    """Rows of a Markdown table by their first cell."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    assert len({len(line) for line in lines}) == 1, table
    return {line[0].strip("| "): [cell.strip("| ") for cell in line[1:]] for line in lines}


def tables_of(page: str) -> Iterator[str]:
    """All Markdown tables of a page."""
    for block in re.split(r"\n\s*\n", page):
        if block.startswith("|"):
            yield block


def test_summary(page: Page) -> None:
    found = cells(tables.summary(page.scores, page.tests).table)
    assert found["Method"] == ["2 shots", "16 shots", "average"]
    # Levels 16, 20, 21, 22 and 22, 30, 26, 27, 28 of 40 images, half an image more on average over datasets.
    assert found["Zero-shot CLIP"] == ["41.2", "41.2", "41.2"]
    assert found["Linear probe"] == ["51.2 (+10.0)", "**76.2** (+35.0)", "**63.8** (+22.5)"]
    assert found["Tip-Adapter"] == ["53.8 (+12.5)", "66.2 (+25.0)", "60.0 (+18.8)"]
    assert found["AMT (no gradient dropout)"] == ["**56.2** (+15.0)", "68.8 (+27.5)", "62.5 (+21.2)"]
    assert found["R-AMT (control)"] == ["**56.2** (+15.0)", "71.2 (+30.0)", "**63.8** (+22.5)"]


def test_summary_notes_state_n_test_and_family(page: Page) -> None:
    notes = tables.summary(page.scores, page.tests).notes
    assert notes[0] == (
        "Test accuracy in percent: mean over n = 6 datasets of the mean over 3 seeds; in brackets the gain over "
        "zero-shot in points."
    )
    assert notes[1] == (
        "2 shots, 16 shots, average: Wilcoxon signed-rank test against R-AMT, n = 6 datasets, Holm within a family of "
        "4 comparisons per column. **n too small**: with n = 6 datasets p cannot go below 0.031, and 4 comparisons "
        "corrected together need n ≥ 8 for any mark at all."
    )
    assert len(notes) == 2


def test_summary_marks(pair: Plan, pair_tests: list[Comparison]) -> None:
    scores, tests = Scores(pair, collect.collect(pair), SETTING), Comparisons(pair_tests, SETTING)
    found = cells(tables.summary(scores, tests).table)
    assert found["CoOp"] == ["31.2‡", "36.2‡", "33.8‡"]  # no zero-shot, so no gain
    assert found["R-AMT (control)"] == ["**56.2**", "**71.2**", "**63.8**"]
    better = Comparisons([replace(one, verdict="better") for one in pair_tests], SETTING)
    assert cells(tables.summary(scores, better).table)["CoOp"] == ["31.2†", "36.2†", "33.8†"]


def test_dataset_table(page: Page) -> None:
    table = tables.dataset_table(page.scores, page.tests, "digits")
    found = cells(table.table)
    assert found["Zero-shot CLIP"] == ["35.0", "35.0‡"]
    assert found["Linear probe"] == ["45.0 ± 2.0", "**70.0 ± 2.0**"]
    assert found["R-AMT (control)"] == ["**50.0 ± 2.0**", "65.0 ± 2.0"]
    assert "n = 40 test images (2,000 resamples)" in table.notes[1]
    assert "family of 4 comparisons" in table.notes[1]


def test_across_table(page: Page) -> None:
    table = tables.across_table(page.scores, page.tests, 16)
    assert cells(table.table)["Zero-shot CLIP"] == [
        "−30.0", "–", "−30.0", "0 / 0 / 6", "−1.00", "0.031", "0.125", "n too small"
    ]  # fmt: skip
    assert "over 5 methods, n = 6 datasets: F = ∞, p < 0.001." in table.notes[-1]


def test_within_tables(page: Page) -> None:
    matrix = tables.within_matrix(page.scores, page.tests, 16, "{dataset}.md")
    assert "[Digits](digits.md)" in matrix.table
    cell = cells(matrix.table)["Zero-shot CLIP"][0]
    assert re.fullmatch(r"−30\.0‡<br><sub>\[−4\d\.\d, −1\d\.\d\]</sub><br><sub>p 0\.00\d</sub>", cell)
    row = cells(tables.within_table(page.scores, page.tests, "digits", 16).table)["Zero-shot CLIP"]
    assert row[0] == "−30.0‡"
    assert row[2] == "0 / 27 / 13"
    assert row[5:] == ["worse", "<0.001, <0.001, <0.001"]


def test_seeds_table(page: Page) -> None:
    body = tables.seeds_table(page.scores, page.rows, "digits").table
    assert "| R-AMT (control) | 16 | 62.50 | 65.00 | 67.50 | 65.00 | 65.00 | 1.50 | 4.00 |" in body
    assert "| Zero-shot CLIP | none | 35.00 | – | – | 35.00 |" in body


def test_missing_cells(holes: Page) -> None:
    summary = tables.summary(holes.scores, holes.tests)
    found = cells(summary.table)
    assert found["Tip-Adapter"] == ["missing (1/2)", "missing (1/2)", "missing (1/2)"]
    assert found["CoOp"] == ["26.2 (−10.0)", "missing (1/2)", "missing (1/2)"]
    assert "missing (a/b): only a of b datasets have all their runs" in " ".join(summary.notes)
    assert cells(tables.dataset_table(holes.scores, holes.tests, "letters").table)["Tip-Adapter"] == ["missing"] * 2
    # Seeds 1 and 3 of level 14 - 2: 11 and 13 of 40. Within the dataset they are compared all the same.
    digits = cells(tables.dataset_table(holes.scores, holes.tests, "digits").table)
    assert digits["CoOp"][1] == "30.0 ± 2.5‡ (2/3 seeds)"
    assert cells(tables.across_table(holes.scores, holes.tests, 16).table)["Tip-Adapter"][-1] == "n too small"


def test_an_incomplete_cell_is_never_best(full: Plan) -> None:
    rows = [
        row
        for row in collect.collect(full)
        if (row["method"], row["dataset"], row["shots"], row["seed"]) != ("linear_probe", "digits", 16, 1)
    ]
    scores = Scores(full, rows, SETTING)
    found = cells(tables.dataset_table(scores, Comparisons([], SETTING), "digits").table)
    assert found["Linear probe"][1] == "71.2 ± 1.2 (2/3 seeds)"
    assert found["R-AMT (control)"][1] == "**65.0 ± 2.0**"


def test_no_flip_mark(holes: Page) -> None:
    summary = tables.summary(holes.scores, holes.tests)
    found = cells(summary.table)
    assert found["R-AMT (control)"] == ["**51.2**∅ (+15.0)", "**66.2** (+30.0)", "**58.8**∅ (+22.5)"]
    # A stack on a tower in which nothing flipped is marked too.
    assert found["CoOp + R-AMT"] == ["26.2∅ (−10.0)", "31.2 (−5.0)", "28.8∅ (−7.5)"]
    assert any(note.startswith("∅ In 2 runs behind the marked numbers no mask flipped") for note in summary.notes)
    assert cells(tables.dataset_table(holes.scores, holes.tests, "letters").table)["R-AMT (control)"][0][-1] != "∅"
    sentences = findings.findings(holes.scores, holes.tests)
    assert sentences[-1] == (
        "Mask tuning flipped no mask, and so changed nothing, in R-AMT (1 run) and CoOp + R-AMT (1 run)."
    )


def test_oracle_is_never_best(full: Plan) -> None:
    rows = collect.collect(full)
    for row in rows:
        if row["method"] == "linear_probe":
            row["selection.rule"] = "test_oracle"
    scores = Scores(full, rows, SETTING)
    found = cells(tables.summary(scores, Comparisons([], SETTING)).table)
    assert found["Linear probe°"][1] == "76.2 (+35.0)"
    assert found["R-AMT (control)"][1] == "**71.2** (+30.0)"
    assert "Linear probe was tuned on the test set; no number of theirs is in bold." in provenance.warnings(full, rows)
    assert "Linear probe" not in findings.findings(scores, Comparisons([], SETTING))[1].split(";")[0]


def test_findings_when_the_control_loses(page: Page) -> None:
    found = findings.findings(page.scores, page.tests)
    assert found[0] == (
        "At 2 shots **AMT (no gradient dropout) and R-AMT** share the highest mean accuracy, 56.2 % (+15.0 points over "
        "zero-shot); one of them is the control; next is Tip-Adapter with 53.8 %."
    )
    assert found[1] == (
        "At 16 shots **Linear probe** has the highest mean accuracy, 76.2 % (+35.0 points over zero-shot); the control "
        "R-AMT is 2nd of 5 with 71.2 %, 5.0 points behind."
    )
    assert found[2] == "R-AMT is above zero-shot on 6 of 6 datasets at 2 shots and 6 of 6 datasets at 16 shots."
    assert found[3] == (
        "Across datasets nothing can be called significant, in either direction: with n = 6 the smallest possible p is "
        "0.031, and 4 comparisons with the control need at least 8 datasets."
    )
    worse = {
        shots: sum(one.verdict == "worse" for one in page.found if one.scope == "within" and one.shots == shots)
        for shots in (2, 16)
    }
    assert worse[16] == 6  # zero-shot on every dataset
    assert found[4] == (
        f"Within single datasets, R-AMT against each other method in 48 comparisons: {worse[2]} won, 0 lost, "
        f"{24 - worse[2]} undecided at 2 shots; 6 won, 0 lost, 18 undecided at 16 shots."
    )
    assert len(found) == 5


def test_findings_when_the_control_is_last(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, control="coop", methods={"coop": {}, "zero_shot": {}, "r_amt": {}})
    write_results(plan)
    rows = collect.collect(plan)
    found = findings.findings(Scores(plan, rows, SETTING), Comparisons(compare(plan, rows), SETTING))
    assert "the control CoOp is 3rd of 3 with 31.2 %, 25.0 points behind." in found[0]
    assert found[2] == "CoOp is above zero-shot on 0 of 6 datasets at 2 shots and 0 of 6 datasets at 16 shots."
    assert found[4].endswith("It loses most often to R-AMT: 12 of 12.")
    assert "0 won" in found[4]


def test_findings_across(pair: Plan, pair_tests: list[Comparison]) -> None:
    scores = Scores(pair, collect.collect(pair), SETTING)
    found = findings.findings(scores, Comparisons(pair_tests, SETTING))
    assert found[0].endswith("it is the control; next is CoOp with 31.2 %.")
    assert found[2] == (
        "Across datasets, against the control: at 2 shots CoOp is significantly worse; at 16 shots CoOp is "
        "significantly worse; on average over shots CoOp is significantly worse; nothing else is decided."
    )


def test_findings_with_missing_control(full: Plan) -> None:
    rows = [row for row in collect.collect(full) if row["method"] != "r_amt"]
    found = findings.findings(Scores(full, rows, SETTING), Comparisons(compare(full, rows), SETTING))
    assert found[0].endswith("; the control R-AMT has missing runs.")


def test_cost_table(page: Page) -> None:
    table = recipes.cost_table(page.plan, page.rows, "few_shot", "tiny_clip")
    found = cells(table.table)
    # Seconds are 0.25 shots + 0.1 seed; the median seed is 2.
    assert found["R-AMT"] == ["0.70", "4.2", "120", "196,608", "24.6 kB", "2.40"]
    assert found["Zero-shot CLIP"] == ["<0.01", "<0.01", "0", "1,290", "5.2 kB", "–"]
    assert "n = 6 datasets × 3 seeds" in table.notes[0]
    assert "cpu: a test, 1 thread (150 runs)" in table.notes[-1]


def test_selection_table(page: Page) -> None:
    found = cells(recipes.selection_table(page.plan, page.rows, "few_shot", "tiny_clip").table)
    assert found["Linear probe"] == [
        "few-shot validation images", "no steps", "`C`: 0.01 × 12, 1 × 12, 100 × 12", "7", "8"
    ]  # fmt: skip
    assert found["R-AMT"][0] == "fixed beforehand"


def test_recipes(holes: Page) -> None:
    found = {one.title: one for one in recipes.recipes(holes.plan, holes.rows, ["few_shot"], "tiny_clip")}
    assert (found["R-AMT"].number, found["R-AMT"].differing) == ("10 hyperparameters", 1)
    rows = cells(found["R-AMT"].table)
    assert rows["`learning_rate`"][:2] == ["**0.0003**", "8e-05"]
    assert rows["`learning_rate`"][2].startswith("this benchmark's config; default: released code, wuw2019/R-AMT")
    assert rows["`level`"][:2] == ["1 (1 shot), 0.3 (16 shots)", "same"]
    assert cells(found["CoOp"].table)["`epochs`"][:2] == ["50 (1 shot), 200 (16 shots)", "same"]


def test_values_by_cell() -> None:
    two = [("digits", 1), ("digits", 2), ("letters", 1), ("letters", 2)]
    assert recipes.by_cell(dict.fromkeys(two, 3e-4)) == "0.0003"
    assert recipes.by_cell({cell: cell[1] for cell in two}) == "1 (1 shot), 2 (2 shots)"
    assert recipes.by_cell({cell: cell[0] == "digits" for cell in two}) == "true (false on Letters)"
    assert recipes.by_cell(dict(zip(two, "abcd", strict=True))) == "a, b, c, d (by dataset and shots)"
    assert recipes.by_cell({}) == "–"


def test_warnings(holes: Page, page: Page) -> None:
    assert provenance.warnings(page.plan, page.rows) == []
    found = "\n".join(provenance.warnings(holes.plan, holes.rows))
    # 1 + 4 * 6 runs on each of two datasets, less 6 and 1.
    assert "7 of 50 planned runs are missing" in found
    assert "different commits: `0123456789ab` (32 runs) and `ffffffffffff` (11 runs)" in found
    assert "11 runs of 43 had uncommitted changes" in found


@pytest.mark.parametrize(
    ("field", "value", "warning"),
    [
        ("provenance.weights_sha256", "0" * 64, "The runs on tiny CLIP started from different weights."),
        ("provenance.split_sha256", "0" * 64, "The runs on Digits used different splits."),
        ("provenance.sample_sha256", "0" * 64, "the methods did not see the same training images."),
        ("provenance.device", "cuda", "made on 2 different devices, so their seconds do not compare."),
        ("provenance.python", "3.12.0", "different versions of python (3.11.7, 3.12.0)."),
        ("provenance.packages", {"torch": "2.14.0"}, "different versions of torch (2.13.0, 2.14.0)."),
        ("hyperparameters", {"level": 0.7}, "of R-AMT had other hyperparameters than the config asks for now"),
    ],
)
def test_each_warning(full: Plan, field: str, value: object, warning: str) -> None:
    rows = collect.collect(full)
    target = next(row for row in rows if (row["method"], row["dataset"]) == ("r_amt", "digits"))
    for row in rows:
        if collect.identity_of(row) == collect.identity_of(target):
            row[field] = value
    found = provenance.warnings(full, rows)
    assert len(found) == 1
    assert found[0].endswith(warning) or warning in found[0]


def test_page(page: Page) -> None:
    for heading in (
        "# Benchmark `synthetic`", "## Findings", "## How to read this page", "## Results", "### Mean over datasets",
        "### Each dataset", "## Comparisons with the control", "### Across datasets", "### Within datasets", "## Cost",
        "## How settings were selected", "## Hyperparameters", "## Statistical rules",
        "## What this benchmark cannot show", "## Provenance", "## Reproduce",
    ):  # fmt: skip
        assert page.text.count(f"{heading}\n") == 1, heading
    assert "150 of 150 planned runs: 5 methods × 6 datasets" in page.text
    assert "Made between 2026-11-20 10:00 and 2026-11-20 11:16 UTC." in page.text
    assert "[!WARNING]" not in page.text
    assert "No run is missing." in page.text
    assert "snakemake --cores 2 --configfile synthetic.yaml" in page.text
    assert "git checkout 0123456789abcdef" in page.text
    assert "4 comparisons need n ≥ 8" in page.text


def test_validation_accuracy_never_shows(page: Page) -> None:
    """The synthetic runs have 99.9 % on the validation sample, and nothing else comes near."""
    for path in page.folder.glob("*.md"):
        assert "99.9" not in path.read_text()
    assert all(one.eval_set == "test" for one in page.found)


def test_notes_of_the_config_stand_above_the_selection_table(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, notes=["Rates were chosen\non other seeds."], methods={"r_amt": {}, "coop": {}})
    write_results(plan)
    text = Page(plan, tmp_path / "page").text
    selection = text.split("## How settings were selected")[1].split("## Hyperparameters")[0]
    assert selection.index("Rates were chosen on other seeds.") < selection.index("| R-AMT |")


def test_limits(page: Page, holes: Page, tmp_path: Path) -> None:
    assert "**not a ranking of methods on real CLIP**" in page.text
    assert "gradient dropout **cannot be seen at this size**" in page.text
    assert "CoOp suffers" not in page.text
    assert "CoOp suffers from the tiny text tower, which knows 82 words" in holes.text
    plan = make_plan(tmp_path, backbones=["vit_b16"], datasets=["digits"], shots=[2])
    write_results(plan)
    real = Page(plan, tmp_path / "page").text
    assert "not a ranking" not in real
    assert "82 words" not in real


def test_page_with_holes(holes: Page) -> None:
    assert "> [!WARNING]" in holes.text
    assert "43 of 50 planned runs" in holes.text
    assert "<summary>7 missing runs</summary>" in holes.text
    assert "- few_shot, tiny_clip, Letters, Tip-Adapter, 16 shots: seed 1, 2, 3" in holes.text
    assert "- few_shot, tiny_clip, Digits, CoOp, 16 shots: seed 2" in holes.text
    assert "git checkout" not in holes.text


def whole(one: Page) -> None:
    """Every table of every page is whole, every link leads somewhere, headings differ."""
    for path in one.folder.glob("*.md"):
        content = path.read_text()
        for table in tables_of(content):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(widths) == 1, table
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", content):
            assert (one.folder / link).is_file(), link
        headings = [line for line in content.splitlines() if re.match("#+ ", line)]
        assert len(set(headings)) == len(headings)
        anchors = {re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in headings}
        assert set(re.findall(r"\]\(#([^)]+)\)", content)) <= anchors
        assert not re.search(r"\bnan\b|\bNone\b|\n\n\n", content)
        assert content.count("<details>") == content.count("</details>")
        assert content.endswith("\n")


def test_every_table_is_whole_and_every_link_leads_somewhere(page: Page, holes: Page) -> None:
    for one in (page, holes):
        whole(one)


def test_rendering_repeats_to_the_byte(page: Page, tmp_path: Path) -> None:
    again = Page(page.plan, tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == sorted(
        path.name for path in page.folder.rglob("*") if path.is_file()
    )
    for path in page.folder.rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(page.folder)).read_bytes() == path.read_bytes(), path
    assert again.text == page.text


def test_figures(page: Page, pair: Plan, tmp_path: Path) -> None:
    assert sorted(path.name for path in (page.folder / "figures").iterdir()) == ["curves.png", "gains.png"]
    picture = matplotlib.image.imread(page.folder / "figures" / "curves.png")
    assert picture.shape[1] > 1200
    assert picture.std() > 0.05
    # Without zero-shot there is nothing to gain over.
    drawn = figures.draw(pair, collect.collect(pair), tmp_path)
    assert [path.name for path in drawn] == ["curves.png"]
    with pytest.raises(MissingFigure, match=r"curves\.png: no such figure"):
        render(page.plan, page.rows, page.found, tmp_path / "nowhere", tmp_path / "index.md")


def test_one_style_per_method(full: Plan, tmp_path: Path) -> None:
    look = figures.styles(full)
    few_shot = [style for label, style in look.items() if label != "zero_shot"]
    assert len({(style.colour, style.marker) for style in few_shot}) == len(few_shot)
    assert look["zero_shot"].dashes == "--"
    assert look["r_amt"].width == max(style.width for style in look.values())
    # The style follows from the config alone: other shots and datasets change nothing, nor does a stack added.
    methods = dict(full.config["methods"]) | {"linear_probe+r_amt": {}}
    more = figures.styles(make_plan(tmp_path, datasets=["colors"], shots=[1], methods=methods))
    assert {label: more[label] for label in look} == look
    assert more["linear_probe+r_amt"].colour == look["linear_probe"].colour
    assert more["linear_probe+r_amt"].face == "white"


@pytest.mark.parametrize("shots", [[4], [1, 2, 4, 8, 16]])
def test_other_numbers_of_shots(shots: list[int], tmp_path: Path) -> None:
    plan = make_plan(tmp_path, shots=shots, datasets=["digits"], methods={"zero_shot": {}, "r_amt": {}})
    write_results(plan)
    content = Page(plan, tmp_path / "page").text
    assert content.count("#### Average\n") == (len(shots) > 1)
    figure = figures.curves(Scores(plan, collect.collect(plan), SETTING))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(number) for number in shots]
    assert axes.get_xscale() == "log"


def test_one_method(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, datasets=["digits"], methods={"r_amt": {}})
    write_results(plan)
    content = Page(plan, tmp_path / "page").text
    assert "There is only one method, so nothing is compared." in content


def test_nothing_at_all(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, datasets=["digits"])
    content = Page(plan, tmp_path / "page").text
    assert "0 of 25 planned runs" in content
    assert "At 2 shots no method has all its runs, so no mean is given." in content


def test_two_backbones_never_mix(tmp_path: Path) -> None:
    plan = make_plan(
        tmp_path, backbones=["tiny_clip", "vit_b16"], datasets=["digits"], methods={"zero_shot": {}, "r_amt": {}}
    )
    for run in plan.identities():
        better = right(run) | (np.arange(40) >= 38) if run.backbone == "vit_b16" else right(run)
        write_run(plan, run, better)
    page = Page(plan, tmp_path / "page")
    assert "### Mean over datasets (few_shot, tiny CLIP, evaluation set test)" in page.text
    assert "### Mean over datasets (few_shot, CLIP ViT-B/16, evaluation set test)" in page.text
    assert "| Zero-shot CLIP | 35.0 | 35.0 | 35.0 |" in page.text
    assert "| Zero-shot CLIP | 40.0 | 40.0 | 40.0 |" in page.text
    both = [SETTING, replace(SETTING, backbone="vit_b16")]
    assert (page.folder / "figures" / figure_name("curves", both[1], both)).is_file()
    families = {one.family for one in page.found if one.scope == "within"}
    assert len(families) == 4


def test_command_names_a_config_of_the_repository(tmp_path: Path) -> None:
    path = Path(provenance.__file__).parents[1] / "workflow" / "config" / "demo.yaml"
    demo = plans.load(path)
    assert provenance.command(demo, []) == ["snakemake --cores 2 --configfile workflow/config/demo.yaml"]
    changed = plans.check(dict(demo.config) | {"seeds": [1]})
    assert provenance.command(changed, [])[-1] == "snakemake --cores 2 --configfile demo.yaml"
    assert plans.check(yaml.safe_load(provenance.config_yaml(changed))) == changed


def test_text() -> None:
    assert [text.points(value) for value in (3.25, -0.44, 0.04, -0.04, float("nan"))] == [
        "+3.2", "−0.4", "0.0", "0.0", "–"
    ]  # fmt: skip
    assert [text.p_value(p) for p in (0.0312, 0.0009, 1.0, float("nan"))] == ["0.031", "<0.001", "1.000", "–"]
    assert [text.ordinal(n) for n in (1, 2, 3, 4, 11, 12, 21, 112)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "21st", "112th"
    ]  # fmt: skip
    assert [text.seconds(value) for value in (0.001, 0.02, 1.49, 13.4)] == ["<0.01", "0.02", "1.5", "13"]
    assert [text.size(value) for value in (12, 24_600, 1_514_322)] == ["12 B", "24.6 kB", "1.5 MB"]
    assert text.escaped("a|b *c* _d_ vit_b16") == r"a\|b \*c\* \_d\_ vit_b16"
