import json
import re
from pathlib import Path

import pytest

from rmt import plan, registry

ROOT = Path(__file__).resolve().parents[2]
PROTOCOLS = ("base_to_new", "domain_shift", "cross_dataset")
GOOD = {"benchmark": "demo", "datasets": ["digits"], "methods": {"zero_shot": {}, "r_amt": {}, "coop+r_amt": {}}}


def test_defaults_are_filled_in_and_runs_are_listed() -> None:
    found = plan.check(GOOD)
    assert found.config["shots"] == [1, 2, 4, 8, 16] and found.control == "r_amt"
    runs = found.identities()
    assert len(runs) == 1 + 2 * 5 * 3 and len(set(runs)) == len(runs)
    assert str(runs[0].folder()) == "results/demo/runs/few_shot/tiny_clip/digits/zero_shot/0shot/seed0"
    assert [run.seed for run in found.identities("r_amt") if run.shots == 4] == [1, 2, 3]
    assert found.display("coop+r_amt") == "CoOp + R-AMT"
    assert found.methods["coop+r_amt"].needs == found.methods["r_amt"].needs == "images"
    assert found.methods["zero_shot"].needs == "features"


def test_a_variant_is_a_new_label_and_a_stack_may_stand_on_it() -> None:
    methods = {"r_amt_soft": {"use": "r_amt", "level": 0.3}, "tip_adapter+r_amt_soft": {}}
    found = plan.check(GOOD | {"methods": methods})
    assert found.methods["r_amt_soft"].hyperparameters("digits", 2)["level"] == 0.3
    assert found.display("r_amt_soft") == "R-AMT (r_amt_soft)"
    assert found.display("tip_adapter+r_amt_soft") == "Tip-Adapter + R-AMT (tip_adapter+r_amt_soft)"
    assert found.methods["tip_adapter+r_amt_soft"].below == "r_amt_soft"


def test_rules_of_the_authors() -> None:
    defaults = registry.METHODS["r_amt"].defaults
    level = defaults["level"].resolve
    assert [level("dtd", shots) for shots in (1, 8, 16)] == [1.0, 1.0, 0.3]
    assert [level(name, 16) for name in ("imagenet", "sun397", "food101", "eurosat")] == [1.0, 1.0, 1.0, 0.3]
    assert defaults["learning_rate"].resolve("imagenet", 16) == 3e-5
    assert defaults["epochs"].resolve("imagenet", 16) == 10
    epochs = registry.METHODS["coop"].defaults["epochs"].resolve
    assert [epochs("dtd", shots) for shots in (1, 2, 4, 8, 16)] == [50, 100, 100, 200, 200]
    assert epochs("imagenet", 16) == 50
    assert registry.METHODS["tip_adapter"].defaults["search_scale"].resolve("oxford_flowers", 1) == (50.0, 50.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"datasets": ["digit"]}, "key 'datasets': unknown name 'digit'; did you mean 'digits'?"),
        ({"backbones": ["vit_b_16"]}, "key 'backbones': unknown name 'vit_b_16'; did you mean 'vit_b16'?"),
        ({"shot": [1]}, "unknown key 'shot'; did you mean 'shots'?"),
        ({"shots": ["two"]}, "key 'shots.0': expected integer, got str 'two'"),
        ({"shots": 2}, "key 'shots': expected array, got int 2"),
        ({"shots": [0]}, "key 'shots.0': 0 is less than the minimum of 1"),
        ({"device": "gpu"}, "key 'device': 'gpu' is not valid; valid: auto, cpu, cuda, mps"),
        ({"control": "ramt"}, "key 'control': unknown name 'ramt'; did you mean 'r_amt'?"),
        ({"methods": {"r_atm": {}}}, "key 'methods.r_atm': unknown name 'r_atm'; did you mean 'r_amt'?"),
        (
            {"methods": {"soft": {"use": "ramt"}}},
            "key 'methods.soft.use': unknown name 'ramt'; did you mean 'r_amt'?",
        ),
        (
            {"methods": {"r_amt": {"learning_rat": 1e-3}}},
            "key 'methods.r_amt.learning_rat': unknown name 'learning_rat'; did you mean 'learning_rate'?",
        ),
        (
            {"methods": {"r_amt": {"epochs": "thirty"}}},
            "key 'methods.r_amt.epochs': expected int like 30, got str 'thirty'",
        ),
        (
            {"methods": {"zero_shot": {"epochs": 1}}},
            "key 'methods.zero_shot.epochs': this method has no hyperparameters",
        ),
        (
            {"methods": {"r_amt_2": {"use": "r_amt"}, "coop+r_amt": {}}},
            "key 'methods.coop+r_amt': it stands on 'r_amt', which is not among the methods; did you mean 'r_amt_2'?",
        ),
        (
            {"methods": {"coop": {}, "tip_adapter+coop": {}}},
            "key 'methods.tip_adapter+coop': 'tip_adapter' cannot stand on 'coop', only on r_amt, r_mmt, r_pmt, amt, "
            "r_amt_released and their variants",
        ),
        (
            {"protocols": ["domain_shift"]},
            "key 'protocols': domain_shift needs a dataset with shifted test sets among `datasets`: letters, imagenet",
        ),
        (
            {"protocols": ["base_to_new"], "methods": {"tip_adapter": {}}},
            "key 'protocols': base_to_new asks for classes that were not trained on, which none of the methods can "
            "answer for",
        ),
        (
            {"protocols": ["cross_dataset"], "datasets": ["digits"]},
            "key 'protocols': cross_dataset needs at least two datasets",
        ),
        ({"sources": ["letter"]}, "key 'sources': unknown name 'letter'; valid: digits"),
        ({"methods": {"R-AMT": {}}}, "key 'methods': label 'R-AMT' must be lower_snake, or LABEL+BELOW"),
    ],
)
def test_a_mistake_is_one_line_with_the_key_and_the_closest_name(change: dict, message: str) -> None:
    with pytest.raises(plan.ConfigError) as caught:
        plan.check(GOOD | change)
    assert str(caught.value) == message


def test_a_bad_file_is_named(tmp_path) -> None:
    path = tmp_path / "my.yaml"
    for content, words in (("a: [", "my.yaml: while parsing"), ("- 1", "expected a mapping"), ("x: 1", "my.yaml: ")):
        path.write_text(content)
        with pytest.raises(plan.ConfigError) as caught:
            plan.load(path)
        assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "workflow/config").glob("*.yaml")))
def test_the_shipped_configs_are_valid(name: str) -> None:
    found = plan.load(ROOT / f"workflow/config/{name}.yaml")
    assert found.benchmark == name
    assert json.loads(json.dumps(dict(found.config))) == found.config


def test_the_papers_grid() -> None:
    found = plan.load(ROOT / "workflow/config/paper.yaml")
    assert len(found.identities()) == 11 * (1 + 19 * 5 * 3)
    masked = {label for label, method in found.methods.items() if method.entry.masks}
    assert masked == {"amt", "r_amt", "r_amt_released", "r_mmt", "r_pmt", "r_amt+coop"}


def test_the_documented_numbers_of_runs_are_those_that_are_planned() -> None:
    rows = re.findall(
        r"^\| `(\w+)\.yaml` \|.*\| ([\d,]+) runs;", (ROOT / "workflow/config/README.md").read_text(), re.M
    )
    assert {"paper", "paper_generalization", "demo_generalization", "ablation", "starter"} <= {name for name, _ in rows}
    for name, number in rows:
        found = plan.load(ROOT / f"workflow/config/{name}.yaml")
        assert f"{len(found.identities()):,}" == number, name
    paper = dict(rows)["paper"]
    assert re.search(rf"CLIP ViT-B/16, {paper}\s+runs", (ROOT / "README.md").read_text())


def test_the_papers_protocols_beyond_few_shot() -> None:
    found = plan.load(ROOT / "workflow/config/paper_generalization.yaml")
    runs = found.identities()
    trained = {protocol: {run.dataset for run in runs if run.protocol == protocol} for protocol in PROTOCOLS}
    assert trained == {
        "base_to_new": set(found.config["datasets"]),
        "domain_shift": {"imagenet"},
        "cross_dataset": {"imagenet"},
    }
    assert len(found.config["datasets"]) == 11 and {run.shots for run in runs} == {0, 16}
    shifts = ["imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r"]
    assert found.evaluation_sets("domain_shift", "imagenet") == ["test", *shifts]
    assert len(found.evaluation_sets("cross_dataset", "imagenet")) == 11
    bound = {"linear_probe", "lp_plus_plus", "taskres", "tip_adapter", "tip_adapter_f", "tip_adapter+r_amt"}
    assert {run.method for run in runs if run.protocol == "domain_shift"} == set(found.methods)
    for protocol in ("base_to_new", "cross_dataset"):
        assert {run.method for run in runs if run.protocol == protocol} == set(found.methods) - bound
    # The authors' script for base-to-new has level 1.0 where their rule for few-shot has 0.3.
    assert found.methods["r_amt"].hyperparameters("dtd", 16)["level"] == 1.0


def test_the_generalization_demo_has_the_demos_settings() -> None:
    found, demo = (plan.load(ROOT / f"workflow/config/{name}.yaml") for name in ("demo_generalization", "demo"))
    assert found.config["protocols"] == list(PROTOCOLS) and found.config["backbones"] == ["tiny_clip"]
    for label in set(found.methods) & set(demo.methods):
        assert found.methods[label].overrides == demo.methods[label].overrides, label
    for label in ("amt", "r_amt+coop"):
        assert found.methods[label].overrides == demo.methods["r_amt"].overrides, label
    assert found.targets("domain_shift", "letters") == [
        "letters_redrawn",
        "letters_sketch",
        "letters_hard",
        "letters_renditions",
    ]
    assert {run.protocol for run in found.identities("tip_adapter")} == {"domain_shift"}


def test_the_ablation_changes_one_thing_at_a_time() -> None:
    found = plan.load(ROOT / "workflow/config/ablation.yaml")
    assert found.control == "r_amt"
    shots = found.config["shots"][0]
    control = found.methods["r_amt"].hyperparameters("digits", shots)
    changed = {}
    for label, method in found.methods.items():
        settings = method.hyperparameters("digits", shots)
        assert set(settings) == set(control)
        changed[label] = {name: value for name, value in settings.items() if value != control[name]}
    released = changed.pop("r_amt_released")
    assert released == {"learning_rate": 8e-5, "batch_size": 32, "minimum_travel": 0.0}
    assert changed == {
        "r_amt": {},
        "amt": {"level": 0.0},
        "r_amt_level_03": {"level": 0.3},
        "r_amt_level_1": {},  # the authors' rule at other than 16 shots
        "r_mmt": {"targets": "mlp"},
        "r_pmt": {"targets": "all"},
        "r_amt_threshold_4": {"threshold": 0.004},
        "r_amt_threshold_6": {"threshold": 0.006},
        "r_amt_initial_9": {"initial_score": 0.009},
        "r_amt_initial_11": {"initial_score": 0.011},
        "r_amt_no_mask_loss": {"mask_loss_weight": 0.0},
        "r_amt_no_floor": {"minimum_travel": 0.0},
    }
    # Every score starts above its threshold, or tuning would not start at zero-shot, and can come down to it.
    for label, method in found.methods.items():
        settings = method.hyperparameters("digits", shots)
        distance = settings["initial_score"] - settings["threshold"]
        assert distance > 0 and (settings["minimum_travel"] == 0 or distance < settings["minimum_travel"]), label


def test_the_starter_is_short_and_lets_masks_flip() -> None:
    from rmt.schedule import planned_epochs

    found = plan.load(ROOT / "workflow/config/starter.yaml")
    assert found.config["datasets"] == ["eurosat", "dtd"] and found.config["backbones"] == ["vit_b32"]
    assert len(found.identities()) == 2 * (1 + 5 * 2)
    assert [label for label, method in found.methods.items() if method.needs == "images"] == ["r_amt"]
    settings = found.methods["r_amt"].hyperparameters("dtd", 4)
    # Steps per epoch: one of 10, 32 or 32 images, and five of 32. The README counts with these.
    assert [steps * planned_epochs(settings, steps) for steps in (1, 5)] == [49, 50]
