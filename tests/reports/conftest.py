"""Results trees that the tests of the reports share."""

import pytest

from reports import collect
from reports.compare import compare
from reports.comparisons import Comparison
from rmt.plan import Plan
from tests.reports.synthetic import GENERAL, make_plan, write_results


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Six datasets, two numbers of shots, three seeds, five methods; nothing missing. Do not write to it."""
    plan = make_plan(tmp_path_factory.mktemp("full"))
    write_results(plan)
    return plan


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Two methods only, so that six datasets suffice for a mark across them."""
    plan = make_plan(tmp_path_factory.mktemp("pair"), methods={"r_amt": {}, "coop": {}})
    write_results(plan)
    return plan


@pytest.fixture(scope="session")
def full_tests(full: Plan) -> list[Comparison]:
    return compare(full, collect.collect(full))


@pytest.fixture(scope="session")
def pair_tests(pair: Plan) -> list[Comparison]:
    return compare(pair, collect.collect(pair))


@pytest.fixture(scope="session")
def general(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """All four protocols, two sources, two stacks; nothing missing. Do not write to it."""
    plan = make_plan(tmp_path_factory.mktemp("general"), **GENERAL)
    write_results(plan)
    return plan


@pytest.fixture(scope="session")
def general_tests(general: Plan) -> list[Comparison]:
    return compare(general, collect.collect(general))
