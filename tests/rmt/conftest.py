"""Finished runs of every registered method and stack, which the tests of their use share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rmt import registry
from tests import toy
from tests.rmt.test_contract import STACKS, short

LABELS = [*registry.METHODS, *STACKS]

RunOf = Callable[[str], Path]


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy with one sample (2 shots, seed 1) and its features. Do not write to it."""
    made = toy.make(tmp_path_factory.mktemp("used"), shots=(2,), seeds=(1,))
    assert toy.encode(made) == 0
    return made


@pytest.fixture(scope="session")
def run_of(toy_data: Path) -> RunOf:
    """The folder of a method's finished run, fitted when first asked for."""

    def folder(label: str) -> Path:
        use, _, below = label.partition("+")
        shots, seed = (2, 1) if registry.METHODS[use].few_shot else (0, 0)
        run = toy.run_folder(toy_data, label, shots, seed)
        if not (run / "record.json").exists():
            if below:
                folder(below)
            assert toy.fit(toy_data, label, **short(use)) == 0
        return run

    return folder
