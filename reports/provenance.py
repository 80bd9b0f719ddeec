"""Which images, which split, which weights, which commit made these numbers, and what does not fit together."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import yaml

from reports import text
from reports.cells import dataset_name, level_name, shot_levels
from reports.collect import identity_of, missing_runs
from reports.rows import Row
from rmt import plan as plans
from rmt import registry
from rmt.plan import Plan
from rmt.records import Identity

_ROOT = Path(__file__).resolve().parent.parent


def _one_per_run(rows: Iterable[Row]) -> dict[Identity, Row]:
    found: dict[Identity, Row] = {}
    for row in rows:
        found.setdefault(identity_of(row), row)
    return found


def short(digest: str | None) -> str:
    """First 12 characters of a hash or a commit."""
    return text.code(digest[:12]) if digest else text.NOTHING


def period(rows: Sequence[Row]) -> str:
    """`2026-11-20 10:00 and 2026-11-20 10:09 UTC`: from the runs' own start and end, so that rendering repeats."""
    if not rows:
        return text.NOTHING
    started = min(datetime.fromisoformat(row["cost.started"]) for row in rows)
    ended = max(datetime.fromisoformat(row["cost.ended"]) for row in rows)
    utc = [moment.astimezone(UTC) if moment.tzinfo else moment for moment in (started, ended)]
    return " and ".join(f"{moment:%Y-%m-%d %H:%M}" for moment in utc) + " UTC"


def missing_lines(plan: Plan, rows: Sequence[Row]) -> list[str]:
    """Runs without a record, one line per method, dataset and shots."""
    grouped: dict[tuple[str, ...], list[str]] = {}
    for run in missing_runs(plan, rows):
        shots = level_name(run.shots) if run.shots else "no shots"
        where = (run.protocol, run.backbone, dataset_name(run.dataset), text.escaped(plan.display(run.method)), shots)
        grouped.setdefault(where, []).append(str(run.seed))
    return [f"{', '.join(where)}: seed {', '.join(seeds)}" for where, seeds in grouped.items()]


def warnings(plan: Plan, rows: Sequence[Row]) -> list[str]:
    """Everything that a reader should know before trusting a number, one sentence each."""
    runs = _one_per_run(rows)
    found = []
    missing = missing_runs(plan, rows)
    if missing:
        found.append(
            f"{len(missing):,} of {len(plan.identities()):,} planned runs are missing; they are listed at the end and "
            "nothing stands in for them."
        )
    asked = {(run, name) for run in runs for name in plan.evaluation_sets(run.protocol, run.dataset)}
    lacking = {run for run, _ in asked - {(identity_of(row), row["eval_set"]) for row in rows}}
    if lacking:
        found.append(
            f"{text.count(len(lacking), 'run')} of {len(runs):,} lack an evaluation set that the config asks for; its "
            "numbers are missing."
        )
    commits = Counter(row["provenance.commit"] for row in runs.values())
    if len(commits) > 1:
        parts = [f"{short(commit) if commit else 'unknown'} ({text.count(n, 'run')})" for commit, n in commits.items()]
        found.append(f"The runs were made by different commits: {text.listed(parts)}.")
    elif None in commits:
        found.append("The commit that made the runs is unknown: they were made outside a git checkout.")
    dirty = sum(row["provenance.dirty"] is True for row in runs.values())
    if dirty:
        found.append(
            f"{text.count(dirty, 'run')} of {len(runs):,} had uncommitted changes in the checkout: "
            "the commit alone does not reproduce them."
        )
    found += _mixed(runs)
    changed = [
        run
        for run, row in runs.items()
        if any(
            row["hyperparameters"].get(name, value) != value
            for name, value in plan.methods[run.method].hyperparameters(run.dataset, run.shots).items()
        )
    ]
    if changed:
        labels = list(dict.fromkeys(text.escaped(plan.display(run.method)) for run in changed))
        found.append(
            f"{text.count(len(changed), 'run')} of {text.listed(labels)} had other hyperparameters than the config "
            "asks for now; the tables of hyperparameters show what the runs had."
        )
    oracles = dict.fromkeys(run.method for run, row in runs.items() if row["selection.rule"] == "test_oracle")
    if oracles:
        labels = [text.escaped(plan.display(label)) for label in oracles]
        verb = "was" if len(labels) == 1 else "were"
        found.append(f"{text.listed(labels)} {verb} tuned on the test set; no number of theirs is in bold.")
    return found


def _mixed(runs: dict[Identity, Row]) -> list[str]:
    """What should be one and the same in all runs and is not."""
    found = []
    weights: dict[str, set[str]] = {}
    splits: dict[str, set[str]] = {}
    samples: dict[tuple[str, str, int, int], set[str]] = {}
    for run, row in runs.items():
        weights.setdefault(run.backbone, set()).add(row["provenance.weights_sha256"])
        splits.setdefault(run.dataset, set()).add(row["provenance.split_sha256"])
        if row["provenance.sample_sha256"] is not None:
            cell = (run.protocol, run.dataset, run.shots, run.seed)
            samples.setdefault(cell, set()).add(row["provenance.sample_sha256"])
    for backbone, digests in weights.items():
        if len(digests) > 1:
            found.append(f"The runs on {registry.BACKBONES[backbone].label} started from different weights.")
    changed = [dataset_name(dataset) for dataset, digests in splits.items() if len(digests) > 1]
    if changed:
        found.append(f"The runs on {text.listed(changed)} used different splits.")
    unlike = sum(len(digests) > 1 for digests in samples.values())
    if unlike:
        found.append(
            f"In {text.count(unlike, 'cell')} (dataset, shots, seed) the methods did not see the same training images."
        )
    versions: dict[str, set[str]] = {}
    for row in runs.values():
        for package, version in {"python": row["provenance.python"], **row["provenance.packages"]}.items():
            versions.setdefault(package, set()).add(version)
    several = [f"{package} ({', '.join(sorted(found))})" for package, found in versions.items() if len(found) > 1]
    if several:
        found.append(f"The runs were made with different versions of {text.listed(several)}.")
    devices = {row["provenance.device"] for row in runs.values()}
    if len(devices) > 1:
        found.append(f"The runs were made on {len(devices)} different devices, so their seconds do not compare.")
    return found


def dataset_table(plan: Plan, rows: Sequence[Row]) -> str:
    """Datasets, those that are evaluated only too: classes, test images, origin, licence, hash of the split."""
    trained = {name for protocol in plan.config["protocols"] for name in plan.trained_on(protocol)}
    body = []
    for name in plan.evaluated:
        entry = plan.datasets[name]
        splits = sorted({row["provenance.split_sha256"] for row in rows if row["dataset"] == name})
        # The split of a dataset that is evaluated only is in no record.
        unknown = text.MISSING if name in trained else text.NOTHING
        body.append(
            [
                f"[{entry.label}]({name}.md)" if name in plan.config["datasets"] else entry.label,
                text.escaped(entry.licence),
                ", ".join(map(short, splits)) or unknown,
                str(entry.classes or "as in its split"),
                test_images(rows, name),
            ]
        )
    return text.table(["Dataset", "licence", "split (sha256)", "classes", "test images"], body, left=3)


def test_images(rows: Iterable[Row], dataset: str) -> str:
    """Number of test images: as counted on all of them, or on those of base and new classes."""
    halves: dict[Identity, int] = {}
    whole = set()
    for row in rows:
        if row["eval_set"] == dataset or (row["dataset"], row["eval_set"]) == (dataset, "test"):
            whole.add(row["images"])
        elif row["dataset"] == dataset and row["eval_set"] in ("base", "new"):
            halves[identity_of(row)] = halves.get(identity_of(row), 0) + row["images"]
    found = whole or set(halves.values())
    return text.spread(found) if found else text.MISSING


def origin_table(rows: Sequence[Row]) -> str:
    """Commits, weights, devices and package versions, each with its number of runs."""
    runs = _one_per_run(rows).values()
    body = []

    def add(name: str, values: Iterable[str]) -> None:
        counted = sorted(Counter(values).items(), key=lambda item: (-item[1], item[0]))
        body.append([name, "; ".join(f"{value} ({text.count(n, 'run')})" for value, n in counted) or text.NOTHING])

    states = {True: " with uncommitted changes", False: "", None: ""}
    add(
        "commit",
        (f"{short(row['provenance.commit'])}{states[row['provenance.dirty']]}" for row in runs),
    )
    backbones = dict.fromkeys(row["backbone"] for row in runs)
    for backbone in backbones:
        mine = [row for row in runs if row["backbone"] == backbone]
        add(
            f"weights of {registry.BACKBONES[backbone].label} (sha256)",
            (short(row["provenance.weights_sha256"]) for row in mine),
        )
    add("device", (text.escaped(row["provenance.device"]) for row in runs))
    add("threads", (str(row["provenance.threads"]) for row in runs))
    add("python", (row["provenance.python"] for row in runs))
    packages = dict.fromkeys(package for row in runs for package in row["provenance.packages"])
    for package in sorted(packages):
        versions = (row["provenance.packages"].get(package, "not recorded") for row in runs)
        add(text.escaped(package), versions)
    return text.table(["", "runs"], body, left=2)


def sample_table(plan: Plan, rows: Sequence[Row], dataset: str) -> str:
    """Hash of the few-shot sample of one dataset by shots and seed; every method saw the same."""
    digests: dict[tuple[bool, int, int], set[str]] = {}
    for row in rows:
        if row["dataset"] == dataset and row["provenance.sample_sha256"] is not None:
            cell = (row["protocol"] == "base_to_new", row["shots"], row["seed"])
            digests.setdefault(cell, set()).add(row["provenance.sample_sha256"])
    seeds = plan.config["seeds"]
    protocols = [name for name in plan.config["protocols"] if dataset in plan.trained_on(name)]
    body = [
        [
            level_name(shots) + (", base classes" if base else ""),
            *(", ".join(map(short, sorted(digests.get((base, shots, seed), ())))) or text.MISSING for seed in seeds),
        ]
        for base in sorted({name == "base_to_new" for name in protocols})
        for shots in shot_levels(plan)
    ]
    return text.table(["", *(f"seed {seed}" for seed in seeds)], body, left=1 + len(seeds))


def config_yaml(plan: Plan) -> str:
    """The whole config, defaults included."""
    ordered = {name: plan.config[name] for name in ("benchmark", *plans.schema()["properties"]) if name in plan.config}
    # Through JSON: a workflow engine's config holds its own kinds of mapping and list.
    return yaml.safe_dump(json.loads(json.dumps(ordered)), sort_keys=False, allow_unicode=True)


def command(plan: Plan, rows: Sequence[Row]) -> list[str]:
    """Shell lines that make this report again from a clone."""
    lines = []
    commits = {row["provenance.commit"] for row in rows}
    if len(commits) == 1 and None not in commits:
        lines.append(f"git checkout {commits.pop()}")
    path = Path("workflow") / "config" / f"{plan.benchmark}.yaml"
    named = f"{plan.benchmark}.yaml"
    if (_ROOT / path).is_file():
        with contextlib.suppress(plans.ConfigError):
            named = path.as_posix() if plans.load(_ROOT / path).config == plan.config else named
    if named != path.as_posix():
        lines.append(f"# save the config below as {named}")
    lines.append(f"snakemake --cores 2 --configfile {named}")
    return lines
