"""`snakemake --profile slurm` on a real Slurm of one node with two fake GPUs (slurm/cluster.sh): to the report, and to
the same numbers when jobs are cancelled, requeued, out of time or memory, or lose their node."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "tests/workflow/slurm/cluster.sh"
PARTS = ("Snakefile", "workflow", "rmt", "data_prep", "reports", "slurm")
BLOWS = ("cancelled", "requeued", "out of time", "without its node")
"""What happens to the fits of seeds 1, 2, ...; methods on cached features run out of memory besides."""
CONFIG = {
    "benchmark": "small",
    "datasets": ["colors"],
    "shots": [1],
    "seeds": list(range(1, 1 + len(BLOWS))),
    "views": 2,
    "resamples": 100,
    "reports_folder": "pages",
    "methods": {
        "zero_shot": {},
        "clip_adapter": {"epochs": 4},
        "r_amt": {"learning_rate": 1e-4, "epochs": 120},
    },
}


def command(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, timeout=60).stdout


@dataclass(frozen=True)
class Fit:
    """A process that fits by images inside a job of the cluster."""

    seed: int
    slurm_job: str
    device: str
    process: int


def processes() -> Iterator[tuple[Path, list[str], dict[str, str]]]:
    """Folder in /proc, command line and environment of every process on the node that belongs to Slurm."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
            pairs = (entry.partition("=") for entry in (folder / "environ").read_text().split("\0"))
        except OSError:  # it has just ended
            continue
        variables = {name: value for name, _, value in pairs}
        if "SLURM_JOB_ID" in variables or words[0].startswith(("slurmstepd", "slurmd", "/usr/sbin/slurmd")):
            yield folder, words, variables


def fits() -> list[Fit]:
    """Those that run now, with the GPU that Slurm gave each."""
    found = []
    for folder, words, variables in processes():
        if words[1:4] != ["-m", "rmt", "fit"] or "--pack" not in words:
            continue
        sample = words[words.index("--samples") + 1]
        seed = int(sample.rsplit("seed", 1)[1].removesuffix(".json"))
        found.append(Fit(seed, variables["SLURM_JOB_ID"], variables["CUDA_VISIBLE_DEVICES"], int(folder.name)))
    return found


@dataclass
class Benchmark:
    """A run of the whole workflow on the cluster, in a folder of its own."""

    folder: Path
    options: tuple[str, ...] = ()
    seen: set[Fit] = field(default_factory=set)
    together: set[frozenset[str]] = field(default_factory=set)
    output: str = ""
    status: int | None = None

    def __post_init__(self) -> None:
        for name in PARTS:
            (self.folder / name).symlink_to(ROOT / name)
        (self.folder / "my.yaml").write_text(yaml.safe_dump(CONFIG))

    def runs(self, method: str) -> list[Path]:
        return sorted((self.folder / "results/small/runs").rglob(f"{method}/*/seed*"))

    def log(self, seed: int) -> str:
        return (self.folder / f"results/small/logs/fit-few_shot-tiny_clip-colors-r_amt-1-{seed}.log").read_text()

    def under_way(self) -> bool:
        """Whether every fit that has begun and not ended has put its state on disk."""
        begun = {fit.seed for fit in self.seen}
        ended = {
            int(path.parent.name[4:]) for path in self.folder.glob("results/small/runs/*/*/*/r_amt/*/*/record.json")
        }
        kept = list((self.folder / "results/small/unfinished").glob("*/*.progress"))
        return len(kept) == len(begun - ended)

    def run(self, blow=lambda benchmark, running: None) -> "Benchmark":  # type: ignore[no-untyped-def]
        """Run to the end, watching the fits; `blow` may disturb them."""
        words = ["--profile", "slurm", "--configfile", "my.yaml", "--slurm-init-seconds-before-status-checks", "2"]
        variables = {
            "RMT_SLURM_STATUS": "squeue",
            "RMT_SLURM_PARTITION": "gpu",
            "RMT_SLURM_MAX_MEM_MB": "2000",
            "RMT_CHECKPOINT_SECONDS": "0.5",
        }
        with (self.folder / "output").open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "snakemake", *words, *self.options],
                cwd=self.folder,
                env=os.environ | variables | {"PYTHONPATH": ""},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            deadline = time.monotonic() + 600
            try:
                while process.poll() is None and time.monotonic() < deadline:
                    running = fits()
                    self.seen.update(running)
                    self.together.add(frozenset(fit.device for fit in running))
                    blow(self, running)
                    time.sleep(0.2)
            finally:
                process.kill()
        self.status = process.wait()
        self.output = (self.folder / "output").read_text()
        return self


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    done = subprocess.run([CLUSTER, "start"], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    yield
    if not done.stdout.startswith("already"):
        subprocess.run([CLUSTER, "stop"], check=True)


@pytest.fixture(scope="module")
def clean(cluster, tmp_path_factory) -> Benchmark:
    """The reduced benchmark, undisturbed."""
    return Benchmark(tmp_path_factory.mktemp("clean")).run()


def test_the_profile_runs_the_benchmark_to_its_report(clean) -> None:
    assert clean.status == 0, clean.output
    page = (clean.folder / "pages/small/index.md").read_text()
    assert "Zero-shot CLIP" in page and "R-AMT" in page
    assert len(json.loads((clean.folder / "results/small/tracked.json").read_text())["runs"]) == 1 + 2 * len(BLOWS)


def test_two_fits_at_a_time_have_a_gpu_each(clean) -> None:
    assert {fit.device for fit in clean.seen} == {"0", "1"}
    assert frozenset({"0", "1"}) in clean.together and max(map(len, clean.together)) == 2


def test_only_towers_and_fits_are_jobs_of_the_cluster(clean) -> None:
    comments = command("squeue", "--states=all", "--noheader", "--format=%k").split()
    assert {comment.split("_wildcards_")[0] for comment in comments} == {
        "rule_encode",
        "rule_fit_once",
        "rule_fit_features",
        "rule_fit_images",
    }


def signal_waits(process: int) -> bool:
    """Whether SIGTERM has been sent to a process that is held."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
    masks = [line.split()[1] for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
    return any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks)


class Blows:
    """Disturbs every seed's fit once, as soon as its state is on disk."""

    def __init__(self) -> None:
        self.left = dict(zip(CONFIG["seeds"], BLOWS, strict=True))  # type: ignore[call-overload]
        self.held: set[int] = set()

    def __call__(self, benchmark: Benchmark, running: list[Fit]) -> None:
        for fit in running:
            if fit.process in self.held and signal_waits(fit.process):
                os.kill(fit.process, signal.SIGCONT)
        if not benchmark.under_way():
            return
        for fit in running:
            if self.left.get(fit.seed) == "without its node" and command("squeue", "--noheader", "--states=COMPLETING"):
                continue  # Slurm would take minutes to find that what it was ending has gone
            blow = self.left.pop(fit.seed, None)
            if blow == "cancelled":
                command("scancel", fit.slurm_job)
            elif blow == "requeued":
                command("scontrol", "requeue", fit.slurm_job)
            elif blow == "out of time":
                # One minute left is less than the profile's two minutes of warning. Slurm looks at times twice a
                # minute, in which a fit as short as this would end: it is held until the signal has come.
                os.kill(fit.process, signal.SIGSTOP)
                self.held.add(fit.process)
                command("scontrol", "update", f"jobid={fit.slurm_job}", "timelimit=1")
            elif blow == "without its node":
                self._break_node()
            if blow is not None:
                return

    @staticmethod
    def _break_node() -> None:
        """All that Slurm started on the node dies at once, its daemon too; then the node comes back."""
        for folder, _, _ in processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(folder.name), signal.SIGKILL)
        subprocess.run([CLUSTER, "slurmd"], check=True)


@pytest.fixture(scope="module")
def disturbed(clean, tmp_path_factory) -> Benchmark:
    """The same benchmark, with a blow to every fit, and too little memory for methods on cached features at first."""
    options = (
        "--set-resources",
        "fit_features:mem_mb=450*attempt",
        "fit_images:slurm_extra='--signal=TERM@120'",
    )
    benchmark = Benchmark(tmp_path_factory.mktemp("disturbed"), options)
    shutil.copytree(clean.folder / "data", benchmark.folder / "data")
    return benchmark.run(Blows())


def test_blows_do_not_change_a_number(clean, disturbed) -> None:
    assert disturbed.status == 0, disturbed.output
    for method in CONFIG["methods"]:
        assert len(clean.runs(method)) == len(disturbed.runs(method)) == (1 if method == "zero_shot" else len(BLOWS))
        for before, after in zip(clean.runs(method), disturbed.runs(method), strict=True):
            for name in ("predictions.parquet", "curve.csv", "adapter.safetensors"):
                assert (before / name).read_bytes() == (after / name).read_bytes(), after / name
            old, new = (json.loads((run / "record.json").read_text()) for run in (before, after))
            assert old | {"cost": None} == new | {"cost": None}
    assert (disturbed.folder / "pages/small/index.md").exists()


@pytest.mark.parametrize("seed", CONFIG["seeds"], ids=BLOWS)
def test_a_fit_goes_on_from_its_state(disturbed, seed: int) -> None:
    assert "goes on after step" in disturbed.log(seed)


def test_a_job_out_of_memory_gets_more(disturbed) -> None:
    jobs = command("squeue", "--states=all", "--noheader", "--sort=i", "--format=%k %m %T").splitlines()
    found = [line.split()[1:] for line in jobs if line.startswith("rule_fit_features")]
    memory = [one for one in found if one[0] in ("450M", "900M", "1350M")]
    assert memory[0][0] == "450M" and memory[0][1] != "COMPLETED"
    assert memory[-1][1] == "COMPLETED" and memory[-1][0] != "450M"


def test_nothing_is_left_behind(disturbed) -> None:
    assert not list((disturbed.folder / "results/small/unfinished").glob("*/*"))
