"""What Snakemake's own log says of its jobs: one file per call, on a cluster as on a laptop."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from rmt.plan import Plan

LOGS = Path(".snakemake/log")
"""Where Snakemake keeps them."""

_COMPLAINT = re.compile(r"error: .*|(\w+\.)*\w*(Error|Exception|Failed|Interrupt)\b.*")
"""The line of a job's log that says why it failed: this project's own, or the end of a traceback."""


@dataclass
class Job:
    """A job of Snakemake's: what it does, its state (started, submitted, done, failed, again) and its logs."""

    name: str
    state: str = "started"
    slurm_log: Path | None = None
    logs: tuple[Path, ...] = ()
    message: str = ""
    failures: int = 0

    @property
    def shown_state(self) -> str:
        """What the summary counts: done, running, queued, failed."""
        if self.state == "submitted":
            # Slurm makes the log when it starts the job.
            return "running" if self.slurm_log is None or self.slurm_log.exists() else "queued"
        return {"started": "running", "again": "queued"}.get(self.state, self.state)

    def reason(self) -> str:
        """Why it failed: the last line of its own log, else what Slurm says of it."""
        for log in self.logs[:1]:
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            complaints = [line.strip() for line in lines if _COMPLAINT.fullmatch(line.strip())]
            if complaints:
                return complaints[-1]
        status = re.search(r"SLURM status is: '(\w+)'", self.message)
        if status:
            return f"ended by Slurm ({status[1]}) without a word of its own: memory, time, a lost node or scancel"
        return self.message or "no reason given"


@dataclass
class Call:
    """One call of Snakemake: when it began, how many jobs it has, and those that it has begun."""

    started: datetime
    total: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)

    def counts(self) -> Counter[str]:
        """Jobs by state: done, running, queued, failed."""
        return Counter(job.shown_state for job in self.jobs.values())


def newest_log(plan: Plan, folder: Path = LOGS) -> Path | None:
    """The log of Snakemake's last call that ran jobs of this benchmark."""
    place = f"{plan.config['results_folder']}/{plan.benchmark}/"
    for path in sorted(folder.glob("*.snakemake.log"), reverse=True):
        if place in path.read_text(errors="replace"):
            return path
    return None


def _own_lines(text: str) -> Iterator[str]:
    """Snakemake's own lines, without the logs of failed jobs that it repeats between two rulers."""
    ruler, inside, title = "=" * 80, False, False
    for line in text.splitlines():
        if line == ruler and (inside or title):
            inside = not inside
        elif not inside:
            yield line
        title = line.startswith("Logfile ") and line.endswith(":")


def read_call(path: Path) -> Call:
    """What a log of Snakemake's says of its jobs."""
    stamp = re.match(r"(\d{4}-\d\d-\d\dT\d{6})", path.name)
    started = datetime.strptime(stamp[1], "%Y-%m-%dT%H%M%S") if stamp else datetime.fromtimestamp(path.stat().st_mtime)
    call = Call(started.astimezone())
    failing = False
    groups: list[list[Job]] = []
    for line in _own_lines(path.read_text(errors="replace")):
        if found := re.fullmatch(r"total +(\d+)", line):
            call.total = call.total or int(found[1])
        elif "Group job " in line:
            groups.append([])
        elif found := re.fullmatch(r"( *)Job (\d+): (.*)", line):
            job = call.jobs.setdefault(found[2], Job(found[3]))
            job.state = "started"
            if found[1] and groups:
                groups[-1].append(job)
        elif found := re.fullmatch(r"Job (\S+) has been submitted with SLURM jobid \S+ \(log: (.*)\)\.", line):
            single = call.jobs.get(found[1])
            # A group is submitted under another id; groups are submitted in about the order of their announcement.
            for job in [single] if single else groups.pop(0) if groups else []:
                job.state, job.slurm_log = "submitted", Path(found[2])
        elif found := re.fullmatch(r" *Finished jobid: (\d+) .*", line):
            call.jobs.setdefault(found[1], Job("")).state = "done"
        elif found := re.fullmatch(r"Trying to restart job (\d+)\.", line):
            call.jobs.setdefault(found[1], Job("")).state = "again"
        elif found := re.fullmatch(r" *Error in (?:group|rule) .*", line):
            failing, message = True, ""
        elif failing and (found := re.fullmatch(r" +message: (.*)", line)):
            message = found[1]
        elif failing and (found := re.fullmatch(r" +jobid: (\d+)", line)):
            job = call.jobs.setdefault(found[1], Job(""))
            job.state, job.message, job.failures = "failed", message, job.failures + 1
        elif failing and (found := re.fullmatch(r" +log: (.*?)(?: \(check log.*)?", line)):
            job.logs, failing = tuple(Path(name) for name in found[1].split(", ")), False
    return call
