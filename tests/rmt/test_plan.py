import json
from pathlib import Path

import pytest

from rmt import plan, registry

ROOT = Path(__file__).resolve().parents[2]
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


@pytest.mark.parametrize("name", ["demo", "demo_settings", "paper"])
def test_the_shipped_configs_are_valid(name: str) -> None:
    found = plan.load(ROOT / f"workflow/config/{name}.yaml")
    assert found.benchmark == name
    assert json.loads(json.dumps(dict(found.config))) == found.config


def test_the_papers_grid() -> None:
    found = plan.load(ROOT / "workflow/config/paper.yaml")
    assert len(found.identities()) == 11 * (1 + 11 * 5 * 3)


def test_the_starter_is_short_and_lets_masks_flip() -> None:
    from rmt.schedule import planned_epochs

    found = plan.load(ROOT / "workflow/config/starter.yaml")
    assert found.config["datasets"] == ["eurosat", "dtd"] and found.config["backbones"] == ["vit_b32"]
    assert len(found.identities()) == 2 * (1 + 5 * 2)
    assert [label for label, method in found.methods.items() if method.needs == "images"] == ["r_amt"]
    settings = found.methods["r_amt"].hyperparameters("dtd", 4)
    # Steps per epoch: one of 10, 32 or 32 images, and five of 32. The README counts with these.
    assert [steps * planned_epochs(settings, steps) for steps in (1, 5)] == [49, 50]
