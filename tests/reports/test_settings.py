"""The table by which settings are chosen: validation rows only, equal weight for every dataset."""

from reports import settings
from rmt.plan import check

PLAN = check(
    {
        "benchmark": "choice",
        "datasets": ["digits", "letters"],
        "shots": [2, 8],
        "seeds": [1, 2],
        "methods": {
            "slow": {"use": "r_amt", "learning_rate": 1e-4},
            "fast": {"use": "r_amt", "learning_rate": 1e-3},
            "tip_adapter": {},
            "tip_adapter_f_test_oracle": {},
        },
    }
)


def rows(label: str, digits: float, letters: float) -> list[dict]:
    """Two seeds one point around the given accuracy; test rows that would turn the choice round."""
    return [
        {"protocol": "few_shot", "method": label, "shots": shots, "dataset": dataset, "seed": seed, "eval_set": part,
         "accuracy": value}
        for dataset, level in (("digits", digits), ("letters", letters))
        for shots in (2, 8)
        for seed, shift in ((1, -1), (2, 1))
        for part, value in (("val", level + shots + shift), ("test", 100 - level))
    ]  # fmt: skip


def test_the_best_on_validation_is_bold_and_test_rows_are_not_read() -> None:
    found = rows("slow", 40, 30) + rows("fast", 30, 42) + rows("tip_adapter", 50, 50)
    found += rows("tip_adapter_f_test_oracle", 60, 60)
    means = settings.mean_accuracies(PLAN, found)
    assert means[("slow", 2)] == 37.0 and means[("fast", 8)] == 44.0
    lines = settings.table(PLAN, found).splitlines()
    assert lines[2] == "| `slow` | learning_rate 0.0001 | 37.0 | 43.0 | 40.0 |"
    assert lines[3] == "| `fast` | learning_rate 0.001 | 38.0 | 44.0 | **41.0** |"
    assert lines[4] == "| `tip_adapter` | defaults | 52.0 | 58.0 | **55.0** |"
    assert lines[5] == "| `tip_adapter_f_test_oracle` | defaults | 62.0 | 68.0 | 65.0 |", "it selects on other images"


def test_a_label_that_lacks_a_dataset_is_missing_and_never_best() -> None:
    half = [row for row in rows("fast", 90, 90) if row["dataset"] == "digits"]
    lines = settings.table(PLAN, rows("slow", 40, 30) + half).splitlines()
    assert lines[2].endswith("| **40.0** |")
    assert lines[3] == "| `fast` | learning_rate 0.001 | missing | missing | missing |"
