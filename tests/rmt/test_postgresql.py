"""MLflow's server on PostgreSQL, real and on loopback: many importers, and a server that stops in mid-import."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from rmt import plan, tracking
from tests.rmt.test_tracking import active_runs, make_plan, write_run


def program(name: str) -> str:
    """A program of PostgreSQL's; Debian keeps them beside the versions."""
    found = shutil.which(name) or next((str(path) for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed; tests/workflow/slurm/cluster.sh install does it")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Address of an empty database, of a PostgreSQL of its own that listens on loopback only."""
    control, initialise = program("pg_ctl"), program("initdb")
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    shift: list[str] = []
    if os.getuid() == 0:  # it refuses to run as root
        shutil.chown(folder, "postgres")
        shift = ["runuser", "-u", "postgres", "--"]
    port = free_port()
    (folder / "password").write_text("secret\n")
    (folder / "password").chmod(0o644)

    def run(*words: str) -> None:
        subprocess.run([*shift, *words], check=True, stdout=subprocess.DEVNULL, cwd=folder)

    run(initialise, "-D", f"{folder}/data", "-U", "rmt", "-A", "scram-sha-256", f"--pwfile={folder}/password", "-N")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    run(control, "-D", f"{folder}/data", "-o", options, "-l", f"{folder}/log", "-w", "start")
    yield f"postgresql://rmt:secret@127.0.0.1:{port}/postgres"
    run(control, "-D", f"{folder}/data", "-m", "immediate", "-w", "stop")
    shutil.rmtree(folder)


class Server:
    """`mlflow server`, which can be stopped and started again at the same address."""

    def __init__(self, database: str, folder: Path) -> None:
        self.port, self.folder = free_port(), folder
        self.uri = f"http://127.0.0.1:{self.port}"
        self.command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        self.command += ["--workers", "2", "--backend-store-uri", database, "--artifacts-destination", str(folder)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            # The port is open before the server can answer.
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"{self.uri}/health", timeout=5).ok:
                    return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(database, tmp_path_factory.mktemp("server"))
    found.start()
    yield found
    found.stop()


def importing(uri: str, plans: list[plan.Plan]) -> list[subprocess.Popen[str]]:
    """One `rmt track` per plan, all started at once."""
    return [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "rmt",
                "track",
                "--plan",
                json.dumps(dict(one.config)),
                "--output",
                output(one, index),
            ],
            env=os.environ | {"MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(Path(tracking.__file__).parents[1])},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, one in enumerate(plans)
    ]


def output(planned: plan.Plan, index: int) -> str:
    return f"{planned.config['results_folder']}/tracked{index}.json"


def finish(processes: list[subprocess.Popen[str]], plans: list[plan.Plan]) -> list[tracking.Summary]:
    for process in processes:
        _, complaint = process.communicate(timeout=400)
        assert process.returncode == 0, complaint
    return [tracking.Summary(**json.loads(Path(output(one, index)).read_text())) for index, one in enumerate(plans)]


def filled(results: Path, **changes: Any) -> plan.Plan:
    planned = make_plan(results, **changes)
    for identity in planned.identities():
        write_run(planned, identity)
    return planned


def test_eight_importers_at_once_lose_and_double_nothing(server: Server, tmp_path: Path) -> None:
    """Four of the same runs, which take turns, and four of others."""
    plans = [filled(tmp_path / "results", benchmark="same")] * 4
    plans += [filled(tmp_path / f"{number}", benchmark=f"other{number}") for number in range(4)]
    said = finish(importing(server.uri, plans), plans)
    assert sorted((one.imported, one.already_there) for one in said) == [(0, 9)] * 3 + [(9, 0)] * 5
    for one in said:
        runs = active_runs(one)
        assert Counter(run.info.status for run in runs) == {"FINISHED": 9}
        assert len({run.data.tags["run_key"] for run in runs}) == 9
    assert len({run for one in said for run in one.runs.values()}) == 9 * 5


def test_a_server_that_stops_in_mid_import_costs_nothing(server: Server, tmp_path: Path) -> None:
    planned = filled(tmp_path / "results", benchmark="cut", shots=[1, 2, 4, 8, 16], seeds=[1, 2, 3])
    files = {path: path.read_bytes() for path in (tmp_path / "results").rglob("seed*/*")}
    (process,) = importing(server.uri, [planned])
    deadline = time.monotonic() + 120
    while finished_runs(server, planned) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    server.stop()
    try:
        _, complaint = process.communicate(timeout=120)
        assert process.returncode == 2
        assert complaint.count("\n") == 1 and "no answer; the runs are safe" in complaint
        assert files == {path: path.read_bytes() for path in files}
    finally:
        server.start()
    summary = tracking.track(planned, uri=server.uri, show_progress=False)
    assert summary.imported + summary.already_there == 31 and summary.already_there >= 3
    runs = active_runs(summary)
    assert Counter(run.info.status for run in runs) == {"FINISHED": 31}
    assert len({run.data.tags["run_key"] for run in runs}) == 31


def finished_runs(server: Server, planned: plan.Plan) -> int:
    """Runs of the plan that the server holds in full."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server.uri)
    experiment = client.get_experiment_by_name(f"{planned.benchmark}/few_shot")
    if experiment is None:
        return 0
    return len(client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'"))


def test_the_password_is_not_shown(database: str) -> None:
    assert tracking._without_password(database).startswith("postgresql://127.0.0.1:")
