"""Pages of benchmarks with protocols other than few_shot: every part is there, and every part that is not says why."""

from pathlib import Path

import pytest

from reports import collect, protocol_figures, provenance, recipes
from reports.cross_dataset import Transfer
from rmt.plan import Plan
from tests.reports.synthetic import GENERAL, make_plan, write_results
from tests.reports.test_pages import Page, whole


@pytest.fixture(scope="module")
def all_protocols(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """All four protocols, with missing runs in each, two sources and two stacks."""
    folder = tmp_path_factory.mktemp("all_protocols")
    plan = make_plan(folder, **GENERAL)
    write_results(plan, lambda run: run.method == "coop" and run.dataset == "outlines" and run.seed == 2)
    return Page(plan, folder / "page")


def test_every_table_is_whole(all_protocols: Page) -> None:
    whole(all_protocols)


def test_page_of_all_protocols(all_protocols: Page) -> None:
    page = all_protocols
    assert (
        "431 of 437 planned runs: 172 under few_shot, 148 under base_to_new, 43 under domain_shift, 74 under "
        "cross_dataset." in page.text
    )
    for heading in (
        "## Results", "## Comparisons with the control", "## Synergy", "## Base to new classes", "## Shifted test sets",
        "## From one dataset to the others", "### Base to new, 2 shots", "#### Base to new, 16 shots, each dataset",
        "### Trained on ImageNet, 2 shots", "### Forgotten and transferred, 16 shots", "#### Source by target, 2 shots",
    ):  # fmt: skip
        assert page.text.count(f"{heading}\n") == 1, heading
    # Of few_shot alone there are the long sections.
    assert page.text.count("### Mean over datasets") == 1
    assert page.text.count("Tip-Adapter has no runs here: it answers only for the classes that were trained on") == 2
    assert sorted(path.name for path in (page.folder / "figures").iterdir()) == [
        "base_to_new-tiny_clip.png", "cross_dataset-tiny_clip.png", "curves.png", "domain_shift-tiny_clip.png",
        "gains.png", "transfer-tiny_clip-16shot.png", "transfer-tiny_clip-2shot.png",
    ]  # fmt: skip
    findings = page.text.split("## Findings")[1].split("## How to read")[0]
    for words in ("few_shot, tiny CLIP", "stacks, tiny CLIP", "highest harmonic mean", "mean over the shifted sets",
                  "points from zero-shot on average"):  # fmt: skip
        assert words in findings


def test_rules_state_every_family(all_protocols: Page) -> None:
    rules = all_protocols.text.split("## Statistical rules")[1].split("## What this")[0]
    for words in (
        "base_to_new, across datasets (n = 4): every method against the control on H, one family per number of shots, "
        "6 comparisons each.",
        "domain_shift, within each test set: every method against the control, one family per dataset that was "
        "trained on, test set and number of shots, 7 comparisons each.",
        "cross_dataset, over targets (n = 4): the target is the unit",
        "within each of the 6 pairs of a source and a target one family per number of shots, 6 comparisons each.",
        "each of all stacks, 2 comparisons.",
    ):
        assert words in rules


def test_dataset_pages_of_all_protocols(all_protocols: Page) -> None:
    digits, displays, imagenet = (
        (all_protocols.folder / f"{name}.md").read_text() for name in ("digits", "displays", "imagenet")
    )
    for page in (digits, displays, imagenet):
        assert page.count("## Base to new classes\n") == page.count("## Synergy\n") == 1
        assert "| 2 shots, base classes |" in page
    assert "## From here to the other datasets, 2 shots" in digits and "Shifted test sets" not in digits
    assert "From here to the other datasets" not in displays
    assert "## Shifted test sets against R-AMT, 16 shots" in imagenet


def test_each_protocol_alone(tmp_path: Path) -> None:
    for protocol, datasets in (
        ("base_to_new", ["digits"]), ("domain_shift", ["imagenet"]), ("cross_dataset", ["digits", "outlines"])
    ):  # fmt: skip
        changes = {"protocols": [protocol], "datasets": datasets, "shots": [2], "seeds": [1]}
        changes["sources"] = ["digits"] if protocol == "cross_dataset" else None
        plan = make_plan(tmp_path / protocol, **GENERAL | changes)
        write_results(plan)
        page = Page(plan, tmp_path / protocol / "page")
        assert "## Results" not in page.text and "#results" not in page.text
        assert "few_shot" not in page.text.split("## Hyperparameters")[0].replace("as under few_shot", "")
        whole(page)
    outlines = (tmp_path / "cross_dataset" / "page" / "outlines.md").read_text()
    assert "Nothing is trained on this dataset here" in outlines


def test_nothing_at_all_of_any_protocol(tmp_path: Path) -> None:
    page = Page(make_plan(tmp_path, **GENERAL), tmp_path / "page")
    whole(page)
    assert "At 2 shots no method has all its runs, so no harmonic mean is given." in page.text


def test_hyperparameters_are_printed_once_for_protocols_that_share_them(all_protocols: Page) -> None:
    plan, rows = all_protocols.plan, all_protocols.rows
    assert recipes.alike(plan, rows, "tiny_clip") == [list(plan.config["protocols"])]
    changed = [
        row | {"hyperparameters": row["hyperparameters"] | {"level": 0.7}}
        if (row["protocol"], row["method"]) == ("base_to_new", "r_amt")
        else row
        for row in rows
    ]
    assert recipes.alike(plan, changed, "tiny_clip") == [
        ["few_shot", "domain_shift", "cross_dataset"],
        ["base_to_new"],
    ]
    titles = [one.title for one in recipes.recipes(plan, changed, ["base_to_new"], "tiny_clip")]
    assert "R-AMT" in titles and "Tip-Adapter" not in titles


def test_a_run_without_an_evaluation_set_is_told(general: Plan) -> None:
    rows = collect.collect(general)
    kept = [row for row in rows if (row["protocol"], row["eval_set"]) != ("cross_dataset", "imagenet")]
    assert provenance.warnings(general, rows) == []
    assert provenance.warnings(general, kept) == [
        "74 runs of 437 lack an evaluation set that the config asks for; its numbers are missing."
    ]


def test_heat_map_is_centred_at_zero(general: Plan) -> None:
    figure = protocol_figures.heat_map(Transfer(general, collect.collect(general), "tiny_clip"), 2)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == [
        "AMT (no gradient dropout)", "R-AMT (control)", "R-AMT on CoOp's prompts"
    ]  # fmt: skip
    norms = [image.norm for axes in panels for image in axes.images[1:]]
    assert {(norm.vmin, norm.vmax) for norm in norms} == {(-15.0, 15.0)}
    numbers = [label.get_text() for label in panels[0].texts]
    assert numbers == ["+15.0", "−15.0", "−15.0", "−15.0", "−15.0", "+15.0", "−15.0", "−15.0"]
