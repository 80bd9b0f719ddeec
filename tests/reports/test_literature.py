"""Ours beside the literature's numbers: which cells are shared, the difference, its interval, what the pages say."""

import csv
from pathlib import Path

import numpy as np
import pytest

from rmt import registry
from rmt.plan import Plan
from tests.conftest import SHARED
from tests.reports.synthetic import make_plan, write_run
from tests.reports.test_pages import Page, cells

from reports import literature  # isort: skip

METHODS = {
    "zero_shot": {},
    "tip_adapter": {},
    "tip_adapter_f": {},
    "tip_adapter_f_test_oracle": {},
    "r_amt": {},
    "r_amt_released": {},
    "r_amt_mine": {"use": "r_amt", "level": 0.5},
    "coop+r_amt": {},
    "linear_probe": {},
}
RIGHT = {"zero_shot": 0.5, "r_amt": 0.75, "tip_adapter_f_test_oracle": 0.9}
IMAGES = 400


def synthetic(folder: Path, **changes: object) -> Plan:
    config = {"datasets": ["eurosat", "dtd"], "backbones": ["vit_b16"], "shots": [1, 16], "methods": METHODS}
    plan = make_plan(folder, **(config | changes))
    for run in plan.identities():
        correct = np.arange(IMAGES) < IMAGES * RIGHT.get(run.method, 0.6) + 4 * (run.seed - 2) * (run.shots > 0)
        write_run(plan, run, correct)
    return plan


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Page:
    folder = tmp_path_factory.mktemp("literature")
    return Page(synthetic(folder), folder / "page")


def test_every_row_has_a_source_and_stands_beside_a_registered_method() -> None:
    found = literature.published()
    assert len(found) == 715
    keys = {(one.source, one.method, one.backbone, one.dataset, one.shots) for one in found}
    assert len(keys) == len(found)
    for one in found:
        assert "@" in one.source and 0 < one.accuracy < 100 and one.backbone in registry.BACKBONES
        for name in one.ours:
            base, _, tower = name.partition("+")
            assert base in registry.METHODS and (not tower or registry.METHODS[base].stands_on), name


def test_the_rows_are_those_of_the_reference() -> None:
    reference = SHARED.parent / "reference/published.csv"
    if not reference.is_file():
        pytest.skip("the reference table is not at hand")
    with reference.open(newline="") as file:
        theirs = {
            (*(row[name] for name in ("source", "method", "backbone", "dataset", "shots")), float(row["accuracy"]))
            for row in csv.DictReader(file)
        }
    backbones = {"vit_b16": "ViT-B/16", "rn50": "RN50"}
    for one in literature.published():
        key = (one.source, one.method, backbones[one.backbone], one.dataset, str(one.shots), one.accuracy)
        assert key in theirs, key


def test_a_cell_is_ours_less_theirs_with_the_interval_of_our_images(page: Page) -> None:
    shared = [one for one in page.found if one.scope == "published"]
    mine = {(one.dataset, one.method, one.control, one.shots): one for one in shared}
    one = mine["eurosat", "r_amt", "R-AMT", 1]
    assert one.statistic == 61.03 and one.mean_difference == pytest.approx(75 - 61.03)
    assert (one.n, one.seeds, one.verdict, one.mark) == (IMAGES, "1 2 3", "", "")
    # Three of four images right: a standard error of 2.17 points, and seeds that differ on two images only.
    assert one.high - one.low == pytest.approx(2 * 1.96 * np.sqrt(0.75 * 0.25 / IMAGES) * 100, rel=0.1)
    assert one.low < one.mean_difference < one.high
    zero = mine["eurosat", "zero_shot", "Zero-shot CLIP", 0]
    assert zero.mean_difference == pytest.approx(50 - zero.statistic) and zero.seeds == "0"
    assert ("eurosat", "coop+r_amt", "CoOp+R-AMT", 16) in mine
    assert ("eurosat", "coop+r_amt", "CoOp+R-AMT", 1) not in mine, "published at 16 shots only"
    # What cannot be told apart stands beside all that it may be.
    for method in ("r_amt", "r_amt_released", "r_amt_mine"):
        assert ("dtd", method, "R-AMT", 16) in mine
    for method in ("tip_adapter", "tip_adapter_f"):
        assert ("dtd", method, "Tip-Adapter", 16) in mine
    assert not [cell for cell in mine if cell[1] == "tip_adapter_f_test_oracle"], "published on RN50 only"
    assert len(mine) == len(shared), "one published number per cell"


def test_the_pages_show_both_numbers(page: Page) -> None:
    text = (page.folder / "eurosat.md").read_text()
    section = text.split("## Beside published numbers")[1].split("\n## ")[0]
    assert "| R-AMT (control) |" not in section and "| R-AMT | R-AMT | 1 | 75.0 | 61.0 | +14.0 | [+9." in section
    assert "R-AMT (r_amt_mine)* | R-AMT | 1 | 60.0 | 61.0 | −1.0" in section
    for words in ("not the published ones", "no mask can flip at the fewest shots", "stand beside both."):
        assert words in section, words
    assert "Sources: [1] wuw2019/R-AMT@07f8d2c" in section and "nothing here covers the spread over few-shot" in section

    index = page.text.split("## Beside published numbers")[1].split("\n## ")[0]
    table = index[index.index("|") : index.rindex("|") + 1].split("\n\n")[0]
    assert cells(table)["Zero-shot CLIP"][:4] == ["Zero-shot CLIP", "none", "2", "50.0"]
    assert "(EuroSAT)" in index or "(DTD)" in index


def test_the_recipe_that_looks_at_the_test_set_is_marked_and_never_in_bold(page: Page) -> None:
    dataset, name = (page.folder / "eurosat.md").read_text(), "Tip-Adapter-F (selected on test)"
    for text, best in ((page.text, "**75.0** (+25.0)"), (dataset, "**75.0 ± 0.8**")):
        lines = [line for line in text.splitlines() if line.startswith(f"| {name}°")]
        assert "90.0" in lines[0] and not any("**" in line for line in lines)
        assert best in next(line for line in text.splitlines() if line.startswith("| R-AMT (control)"))
    assert f"| {name} | **the test set** (oracle) | best step |" in page.text
    assert f"{name} was tuned on the test set; no number of theirs is in bold." in page.text


def test_nothing_is_printed_where_no_cell_is_shared(tmp_path) -> None:
    for number, changes in enumerate(({"backbones": ["vit_l14"]}, {"shots": [3], "methods": {"r_amt": {}}})):
        plan = synthetic(tmp_path / str(number), **changes)
        other = Page(plan, tmp_path / str(number) / "page")
        assert "published" not in {one.scope for one in other.found}
        assert "Beside published" not in other.text + (other.folder / "dtd.md").read_text()


def test_an_unfinished_cell_is_not_compared(tmp_path) -> None:
    plan = make_plan(tmp_path, datasets=["dtd"], backbones=["vit_b16"], shots=[16], methods={"r_amt": {}, "coop": {}})
    for run in plan.identities():
        if (run.method, run.seed) != ("coop", 3):
            write_run(plan, run, np.arange(IMAGES) < 200)
    found = Page(plan, tmp_path / "page").found
    assert {one.method for one in found if one.scope == "published"} == {"r_amt"}
