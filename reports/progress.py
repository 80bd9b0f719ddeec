"""How far a benchmark is: runs done by their records, jobs by Snakemake's own log, the time that is left.

Nothing keeps a state of its own: a record is written last and whole, and Snakemake writes one log per call, which says
what was submitted, finished, failed and tried again.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import mean

from reports.snakemake_log import LOGS, newest_log, read_call
from rmt.plan import Plan
from rmt.records import Identity

WINDOW = timedelta(hours=1)
"""The time left supposes that as many runs go on at a time as in the last hour."""

LAST_FAILED = 20
"""Failed jobs that are printed with their reason; the others are counted."""


@dataclass(frozen=True)
class Done:
    """A finished run: its wall seconds, and when it ended."""

    identity: Identity
    seconds: float
    ended: datetime


def done_runs(plan: Plan) -> list[Done]:
    """The planned runs that have a record. Records are not checked here: it would take longer than a glance may."""
    found = []
    for identity in plan.identities():
        path = identity.folder(Path(plan.config["results_folder"])) / "record.json"
        try:
            cost = json.loads(path.read_text())["cost"]
        except (OSError, ValueError, KeyError):
            continue
        found.append(Done(identity, sum(cost["seconds"].values()), datetime.fromisoformat(cost["ended"])))
    return found


def _expected_seconds(done: Iterable[Done]) -> Callable[[Identity], float]:
    """Seconds that a run should take: the mean of the runs most like it."""
    likeness: tuple[Callable[[Identity], tuple[object, ...]], ...] = (
        lambda one: (one.backbone, one.dataset, one.method, one.shots),
        lambda one: (one.backbone, one.method, one.shots),
        lambda one: (one.backbone, one.method),
        lambda one: (),
    )
    groups: list[dict[tuple[object, ...], list[float]]] = [{} for _ in likeness]
    for run in done:
        for key, group in zip(likeness, groups, strict=True):
            group.setdefault(key(run.identity), []).append(run.seconds)

    def expected(identity: Identity) -> float:
        return next(
            mean(group[key(identity)]) for key, group in zip(likeness, groups, strict=True) if key(identity) in group
        )

    return expected


def seconds_left(plan: Plan, done: list[Done], since: datetime, now: datetime) -> tuple[float, float] | None:
    """(seconds left, runs at a time), at the pace since `since` or of the last hour; None before a run has ended."""
    since = max(since, now - WINDOW)
    recent = sum(run.seconds for run in done if run.ended >= since)
    if not recent or now <= since:
        return None
    at_a_time = recent / (now - since).total_seconds()
    expected, ended = _expected_seconds(done), {run.identity for run in done}
    return sum(expected(one) for one in plan.identities() if one not in ended) / at_a_time, at_a_time


def duration(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def summary(plan: Plan, logs: Path = LOGS, now: datetime | None = None) -> str:
    """The state of a benchmark as text: one line, a table by method, the failed jobs with their reasons."""
    now = now or datetime.now().astimezone()
    done, planned = done_runs(plan), plan.identities()
    head = f"{plan.benchmark}: {len(done)} of {len(planned)} runs done ({100 * len(done) // len(planned)} %)"
    log = newest_log(plan, logs)
    call = read_call(log) if log else None
    parts = [head]
    if call:
        counts = call.counts()
        parts.append(
            f"jobs of the last call: {counts['done']} of {call.total} done, {counts['running']} running, "
            f"{counts['queued']} in the queue, {counts['failed']} failed"
        )
    if not any((logs.parent / "locks").glob("*")):
        parts.append("no Snakemake is at work")
    elif len(done) < len(planned):
        left = seconds_left(plan, done, call.started, now) if call else None
        parts.append(f"about {duration(left[0])} left at {left[1]:.1f} runs at a time" if left else "time left unknown")
    text = "; ".join(parts) + "\n" + _by_method(planned, done)
    failed = [job for job in call.jobs.values() if job.state == "failed"] if call else []
    for job in failed[:LAST_FAILED]:
        text += f"\nfailed {job.failures}x: {job.name}\n  {job.reason()}\n  {' '.join(map(str, job.logs))}"
    if len(failed) > LAST_FAILED:
        text += f"\nand {len(failed) - LAST_FAILED} more in {log}"
    return text


def _by_method(planned: Iterable[Identity], done: Iterable[Done]) -> str:
    """A line per method: runs done and planned, and how long one took."""
    seconds: dict[str, list[float]] = {one.method: [] for one in planned}
    for run in done:
        seconds[run.identity.method].append(run.seconds)
    of_method, width = Counter(one.method for one in planned), max(map(len, seconds))
    return "\n".join(
        f"  {label:{width}}  {len(found):5} of {of_method[label]:5}"
        + (f"  {duration(mean(found))} each" if found else "")
        for label, found in seconds.items()
    )
