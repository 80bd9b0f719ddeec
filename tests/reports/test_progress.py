"""The state of a benchmark in mid-run, from records and from a log as Snakemake and its Slurm plugin write it."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from reports import progress, snakemake_log
from reports.__main__ import main
from rmt.plan import Plan
from tests.reports.synthetic import make_plan, plan_json, write_results

RULER = "=" * 80


def log_text(folder: Path, place: str) -> str:
    """Jobs 1 and 7 are done, 2 and 6 run, 3 is in the queue, 4 failed twice, 5 failed and is tried again."""
    submitted = "\n".join(
        f"Job {job} has been submitted with SLURM jobid 1{job} (log: {folder}/1{job}.log)." for job in (1, 2, 3, 4, 5)
    )
    failed = "\n".join(
        f"""Error in rule fit_images:
    message: SLURM-job '1{job}' failed, SLURM status is: '{status}'. Detailed failure reason unavailable
    jobid: {job}
    log: {folder}/fit-{job}.log, {folder}/1{job}.log (check log file(s) for error details)
    external_jobid: 1{job}
Logfile {folder}/fit-{job}.log:
{RULER}
Error in rule fit_images:
    jobid: 2
Finished jobid: 3 (Rule: fit_images)
{RULER}
Logfile {folder}/1{job}.log: empty file"""
        for job, status in ((4, "FAILED"), (5, "OUT_OF_MEMORY"), (4, "FAILED"))
    )
    jobs = "\n".join(f"[date]\nJob {job}: fit: r_amt on d{job}\nReason: Missing output {place}" for job in range(1, 8))
    return f"""Job stats:
job    count
-----  -----
total     20

{jobs}
{submitted}
[date]
Finished jobid: 1 (Rule: fit_images)
Finished jobid: 7 (Rule: sample)
{failed}
Trying to restart job 5.
"""


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Six of twelve runs, and a call of Snakemake's in the working folder."""
    monkeypatch.chdir(tmp_path)
    plan = make_plan(tmp_path, datasets=["digits"], shots=[2, 8], methods={"coop": {}, "r_amt": {}})
    write_results(plan)
    for identity in plan.identities("r_amt"):
        (identity.folder(Path(plan.config["results_folder"])) / "record.json").unlink()
    logs = tmp_path / ".snakemake/log"
    logs.mkdir(parents=True)
    place = f"{plan.config['results_folder']}/{plan.benchmark}/"
    (logs / "2026-03-01T100000.1.snakemake.log").write_text(log_text(tmp_path, place))
    (logs / "2026-03-02T100000.1.snakemake.log").write_text("another benchmark's")
    (tmp_path / "12.log").touch()
    (tmp_path / "fit-4.log").write_text("goes on after step 3\nerror: the loss is nan at step 4\n\n")
    return plan


def test_jobs_by_state(half: Plan) -> None:
    log = snakemake_log.newest_log(half)
    assert log is not None and log.name.startswith("2026-03-01")
    call = snakemake_log.read_call(log)
    assert call.total == 20
    assert call.counts() == {"done": 2, "running": 2, "queued": 2, "failed": 1}
    assert call.jobs["4"].failures == 2 and call.jobs["4"].reason() == "error: the loss is nan at step 4"
    assert call.jobs["5"].reason().startswith("ended by Slurm (OUT_OF_MEMORY)")


def test_groups_are_counted_by_their_members(tmp_path: Path) -> None:
    path = tmp_path / "x.snakemake.log"
    members = "\n".join(f"    [date]\n    Job {job}: fit: r_amt on d{job}" for job in (1, 2))
    submitted = f"Job 1bb5-fe13 has been submitted with SLURM jobid 2 (log: {tmp_path}/2.log)."
    path.write_text(f"[date] Group job fits (jobs in lexicogr. order):\n{members}\n{submitted}\n")
    assert snakemake_log.read_call(path).counts() == {"queued": 2}
    (tmp_path / "2.log").touch()
    assert snakemake_log.read_call(path).counts() == {"running": 2}


def test_the_summary(half: Plan, tmp_path: Path) -> None:
    text = progress.summary(half)
    assert "6 of 12 runs done (50 %)" in text and "no Snakemake is at work" in text
    assert "2 of 20 done, 2 running, 2 in the queue, 1 failed" in text
    assert "failed 2x: fit: r_amt on d4\n  error: the loss is nan at step 4" in text
    (tmp_path / ".snakemake/locks").mkdir()
    (tmp_path / ".snakemake/locks/0.input.lock").touch()
    assert "left" in progress.summary(half)


def test_time_left_follows_the_last_hours_pace(half: Plan) -> None:
    now = datetime.fromisoformat("2026-03-01T12:00:00+00:00")
    done = [
        progress.Done(identity, 600.0 if identity.shots == 8 else 300.0, now - timedelta(minutes=10))
        for identity in half.identities("coop")
    ]
    found = progress.seconds_left(half, done, now - timedelta(hours=9), now)
    assert found is not None
    left, at_a_time = found
    assert at_a_time == pytest.approx(2700 / 3600)  # three runs of 600 s and three of 300 s within an hour
    assert left == pytest.approx(6 * 450 / at_a_time)  # no run of r_amt has ended: the mean of all runs
    assert progress.seconds_left(half, done, now, now) is None


def test_the_verbs(half: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["progress", "--plan", plan_json(half)]) == 0
    assert "6 of 12 runs done" in capsys.readouterr().out
    output = tmp_path / "partial/index.md"
    assert main(["render", "--partial", "--plan", plan_json(half), "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: 6 of 12 runs\n"
    assert "CoOp" in output.read_text()


def test_nothing_to_render_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(tmp_path, datasets=["digits"], methods={"coop": {}})
    words = ["render", "--plan", json.dumps(dict(plan.config)), "--output", str(tmp_path / "index.md")]
    assert main([*words, "--partial"]) == 2
    assert capsys.readouterr().err.startswith("error: no run of")
    assert main(words) == 2
    assert capsys.readouterr().err == "error: --records is missing; or render what there is with --partial\n"
