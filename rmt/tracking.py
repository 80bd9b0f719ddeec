"""Imports finished runs into MLflow, one after the other and after the fact.

MLflow is a viewer here: everything in it is a copy of a run's files and can be imported again at any time.
Importing afterwards keeps MLflow out of every job, where its store is slow to start, cannot be created by
several processes at once, and may be out of reach. This is the only module that imports mlflow.
"""

import csv
import hashlib
import json
import logging
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from rmt import records
from rmt.errors import UserError
from rmt.locks import exclusive
from rmt.plan import Plan
from rmt.records import Identity

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    Known = dict[tuple[str, ...], list[Run]]

ARTIFACTS = ("record.json", "curve.csv", "adapter.safetensors")
"""Files of a run that are copied; predictions stay where they are, MLflow has no view for them."""

CURVE_POINTS = 100
"""Points per curve; a longer column is thinned evenly. Curves have a row per step, and a benchmark has thousands of
runs: 300 points per curve cost twice the time and 180 kB per run. The whole curve is in the artifact curve.csv."""

SCORES = ("accuracy", "class_accuracy", "cross_entropy", "calibration_error")
"""Figures per evaluation set that become metrics like `test/accuracy`; units as in rmt/record.schema.json."""

LAYOUT = 1
"""Count it up when the same record is to look different in MLflow: the next import replaces every run."""

_VIEW = "mlflow.sharedViewState."  # MLflow keeps the saved views of its run list in tags of the experiment
_VIEW_DATE = 1767225600000  # milliseconds; the same at every import
_PAGE_QUERY = "workflowType=machine_learning&viewStateShareKey=scores"  # its first page is about chat traces
_BATCH = 900  # MLflow takes 1000 entries per call, among them at most 100 parameters
_PAGE = 1000
_REMOTE = ("http://", "https://", "databricks")
_PROTOCOLS = {"few_shot": "trained on a few images per class, evaluated on the test images of all classes"}

Point = tuple[str, float, int]
"""One value of a metric: name, value, step."""


class TrackingError(UserError):
    """MLflow could not be filled; one line that names the store and the remedy. The runs' files are safe."""


@dataclass
class Summary:
    """What one import did: the store, how to look at it, counts, and run folder to MLflow run id, in the plan's order.

    `viewer` is the command that shows a store behind which no server stands, else None; `experiments` maps names to
    ids and `pages` to addresses. `imported` counts new runs, `already_there` unchanged ones, `replaced` those whose
    record has changed, and `without_record` planned runs that have not finished.
    """

    uri: str
    viewer: str | None = None
    experiments: dict[str, str] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    imported: int = 0
    already_there: int = 0
    replaced: int = 0
    without_record: int = 0
    runs: dict[str, str] = field(default_factory=dict)

    def look(self) -> str:
        """How to look at the runs, in one line."""
        pages = " ".join(self.pages.values())
        return f"look at them with `{self.viewer}` at {pages}" if self.viewer else f"look at them at {pages}"

    def line(self) -> str:
        """The import in one line."""
        missing = f", {self.without_record} planned without a record" if self.without_record else ""
        return (
            f"{self.uri} holds {len(self.runs)} runs in {', '.join(self.experiments)}: "
            f"{self.imported} imported, {self.replaced} replaced, {self.already_there} already there{missing}"
        )


def write_summary(summary: Summary, path: Path) -> None:
    """Write the summary as JSON."""
    records.write_json(path, asdict(summary))


def track(plan: Plan, uri: str | None = None, show_progress: bool = True) -> Summary:
    """Bring MLflow up to date with a plan's finished runs: an experiment per protocol, an MLflow run per run.

    A run whose record has not changed is left alone, one whose record has is replaced, one whose import was
    interrupted is imported again, and one without a record is only counted. Runs that are no longer planned
    stay. Importers of one results folder take turns: at once they would import the same runs.

    Args:
        plan: the checked config.
        uri: MLflow's tracking URI; by default MLFLOW_TRACKING_URI, else SQLite in the results folder.
        show_progress: draw a progress bar if stderr is a terminal, and print the summary on stdout.

    Raises:
        TrackingError: MLflow cannot be reached or refuses, or a run's files contradict each other.
        rmt.records.BadRecord: a record breaks its contract.
    """
    results = Path(plan.config["results_folder"])
    uri, artifacts = _store(uri, results)
    with exclusive(results / ".importing", f"importing runs of {results}/"), _explained(uri, results):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=uri)
        shown = _without_password(uri)
        host = "http://127.0.0.1:5000" if artifacts else shown.rstrip("/")
        summary = Summary(shown, f"mlflow ui --backend-store-uri {shlex.quote(shown)}" if artifacts else None)
        known: Known = {}
        for protocol in plan.config["protocols"]:
            name = f"{plan.benchmark}/{protocol}"
            location = (artifacts / name).as_uri() if artifacts else None
            summary.experiments[name] = _experiment(client, plan, protocol, name, location, uri)
            summary.pages[name] = f"{host}/#/experiments/{summary.experiments[name]}/runs?{_PAGE_QUERY}"
            known |= _known_runs(client, summary.experiments[name])
        hidden = None if show_progress else True  # None: a bar on a terminal, none in a log file
        for identity in tqdm(plan.identities(), "MLflow", unit="run", disable=hidden):
            _bring_up_to_date(client, plan, identity, known, summary)
    if show_progress:
        print(summary.line(), summary.look(), sep="\n")
    return summary


def run_key(record: Mapping[str, Any]) -> str:
    """SHA-256 over all of a record but `cost`: a run that gave the same when computed again is unchanged."""
    content = json.dumps([LAYOUT, records.without_times(record)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def run_name(identity: Identity, plan: Plan) -> str:
    """Name in MLflow's list, like `r_amt digits 16-shot seed 1`; parts that tell no runs apart are left out."""
    cell = f" {identity.shots}-shot seed {identity.seed}" if identity.shots else ""
    backbone = f" {identity.backbone}" if len(plan.config["backbones"]) > 1 else ""
    return f"{identity.method} {identity.dataset}{cell}{backbone}"


def tags(record: Mapping[str, Any], label: str) -> dict[str, str]:
    """What to filter and group by, the method's display name (`label`) in it, and the key to import a run once."""
    method, provenance = record["method"], record["provenance"]
    found = {name: str(value) for name, value in record["identity"].items()} | {
        "method_label": label,
        "selection": record["selection"]["rule"],
        "run_key": run_key(record),
        "mlflow.source.name": "rmt",
        "mlflow.source.type": "LOCAL",
    }
    if provenance["commit"]:
        # MLflow's own tag fills its Version column; ours is easier to filter by.
        found |= {"commit": provenance["commit"], "mlflow.source.git.commit": provenance["commit"]}
    if provenance["dirty"]:
        found["dirty"] = "true"
    if method["below"] is not None:
        found["below"] = method["below"]
    if record["tuning"]["masks_flipped"] == 0:
        found["no_mask_flipped"] = "true"
    return found


def params(record: Mapping[str, Any]) -> dict[str, str]:
    """Parameters: effective hyperparameters, those that the selection rule chose as `chosen/NAME`, the cell."""
    values = dict(record["hyperparameters"])
    values |= {f"chosen/{name}": value for name, value in record["selection"]["chosen"].items()}
    values |= {name: record["identity"][name] for name in ("dataset", "method", "backbone", "shots", "seed")}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """Metrics of one number each, named alike for all methods; units are those of rmt/record.schema.json."""
    cost = record["cost"]
    values = {f"{part}/{name}": scores[name] for part, scores in record["metrics"].items() for name in SCORES}
    values |= record["tuning"]
    values |= {f"seconds_{phase}": seconds for phase, seconds in cost["seconds"].items()}
    values |= {name: cost[name] for name in ("images_per_second", "peak_memory_bytes")}
    return {name: float(value) for name, value in values.items() if value is not None}


def curve(path: Path) -> list[Point]:
    """Points of curve.csv as `curve/COLUMN` over the optimisation step, thinned to `CURVE_POINTS` per column."""
    columns: dict[str, list[Point]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            step = int(row.pop("step"))
            for column, cell in row.items():
                if cell:
                    columns.setdefault(column, []).append((f"curve/{column}", float(cell), step))
    return [point for points in columns.values() for point in _thinned(points)]


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    if len(points) <= CURVE_POINTS:
        return points
    last = len(points) - 1
    return [points[round(i * last / (CURVE_POINTS - 1))] for i in range(CURVE_POINTS)]


def _milliseconds(time: str) -> int:
    """ISO 8601 with zone to milliseconds since 1970."""
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def _default_store(results: Path) -> str:
    # Never MLflow's own default: it depends on the working folder and on what lies in it.
    return f"sqlite:///{(results / 'mlflow.db').resolve()}"


def _store(uri: str | None, results: Path) -> tuple[str, Path | None]:
    """The tracking URI, and the folder for artifacts unless a server decides."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or _default_store(results)
    if uri.startswith(_REMOTE):
        return uri, None
    results.mkdir(parents=True, exist_ok=True)
    return uri, (results / "mlartifacts").resolve()


def _quiet() -> None:
    """Settings that MLflow reads when it is imported or used; the user's own win."""
    for name, value in {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a server that is down shows in seconds, not in minutes
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",  # an importer on a login node has nobody to report to
    }.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _without_password(uri: str) -> str:
    return re.sub(r"//[^/@]+@", "//", uri)


@contextmanager
def _explained(uri: str, results: Path) -> Iterator[None]:
    """Turns whatever MLflow raises into one line with the remedy."""
    _quiet()
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError) as error:
        reason = " ".join(str(error).split())[:300]
        remedy = "mend the store"
        if uri.startswith(_REMOTE):
            remedy = "start the server or unset MLFLOW_TRACKING_URI"
            if "Max retries exceeded" in reason or "Connection" in reason or "timed out" in reason:
                reason = "no answer"
        raise TrackingError(
            f"MLflow at {_without_password(uri)}: {reason}; the runs are safe in {results}/: {remedy} "
            "and run `snakemake track` again"
        ) from error


def _experiment(client: "MlflowClient", plan: Plan, protocol: str, name: str, location: str | None, uri: str) -> str:
    """Id of the protocol's experiment, created or restored if need be, with its description up to date."""
    about = {
        "benchmark": plan.benchmark,
        "protocol": protocol,
        "mlflow.experimentKind": "custom_model_development",  # tabs for training runs, not for chat traces
        "mlflow.note.content": (
            f"Benchmark {plan.benchmark}, protocol {protocol}: {_PROTOCOLS.get(protocol, protocol)}. "
            "Views > Scores lists the runs by test accuracy; Views > Seeds averaged has one group per cell. "
            "Tables and tests of significance are in the report; this is for looking into single runs.\n\n"
            "A copy of the runs' files, safe to delete: `snakemake track` imports them again. Filter by, for example, "
            "`tags.method = 'r_amt' and params.shots = '16'`. Accuracies and calibration errors are in percent. "
            "`val/...` is the few-shot validation sample: for choosing hyperparameters, never a result."
        ),
    }
    found = client.get_experiment_by_name(name)
    if found is None:
        return client.create_experiment(name, artifact_location=location, tags=about | _views())
    results = Path(plan.config["results_folder"])
    if uri == _default_store(results) and found.artifact_location != location:
        # The store holds absolute addresses: in a copy of the folder, imports would write into the original.
        raise TrackingError(
            f"{results}/mlflow.db was made when the results lay elsewhere ({found.artifact_location}); "
            "delete it and run `snakemake track` again"
        )
    if found.lifecycle_stage == "deleted":
        # Brings back the runs that were replaced long ago too; the import drops them again.
        client.restore_experiment(found.experiment_id)
    # A saved view that somebody has changed in MLflow stays as it is.
    for key, value in (about | {key: view for key, view in _views().items() if key not in found.tags}).items():
        if found.tags.get(key) != value:
            client.set_experiment_tag(found.experiment_id, key, value)
    return found.experiment_id


def _views() -> dict[str, str]:
    """Saved views as tags: MLflow's own first view shows no score and cuts off the runs' names."""
    names = [*(f"test/{name}" for name in SCORES), "masked_fraction", "trainable_parameters", "seconds_tune"]
    widths = {f"metrics.`{name}`": 8 * len(name) + 30 for name in names}
    by_score = {"selectedColumns": list(widths), "orderByKey": "metrics.`test/accuracy`", "orderByAsc": False}
    cell = [{"mode": "param", "groupByData": name} for name in ("method", "dataset", "shots", "backbone")]
    averaged = by_score | {"groupBy": {"aggregateFunction": "average", "groupByKeys": cell}}
    found = {}
    for key, title, state, pixels in (("scores", "Scores", by_score, 300), ("seeds", "Seeds averaged", averaged, 500)):
        # Widths count only for columns that the order names.
        columns = {"attributes.`Run Name`": pixels, "runDateAndNestInfo": 140} | widths
        view = {"name": title, "createdAt": _VIEW_DATE, "updatedAt": _VIEW_DATE}
        view["state"] = json.dumps(state | {"columnOrder": list(columns), "columnWidths": columns})
        found[_VIEW + key] = json.dumps(view)
    return found


def _cell(identity: Mapping[str, Any]) -> tuple[str, ...]:
    """An identity as text, because MLflow's tags are text; runs that are not ours have another."""
    return tuple(str(identity.get(part.name)) for part in fields(Identity))


def _known_runs(client: "MlflowClient", experiment: str) -> "Known":
    """All runs that an experiment holds, by cell: one search per thousand runs instead of one per run."""
    runs: Known = {}
    token = None
    while True:
        page = client.search_runs([experiment], max_results=_PAGE, page_token=token)
        for run in page:
            runs.setdefault(_cell(run.data.tags), []).append(run)
        token = page.token
        if not token:
            return runs


def _bring_up_to_date(client: "MlflowClient", plan: Plan, identity: Identity, known: "Known", summary: Summary) -> None:
    """Leave a run alone, replace it or import it, and count it in the summary."""
    folder = identity.folder(Path(plan.config["results_folder"]))
    try:
        record = records.read(folder)
    except FileNotFoundError:
        summary.without_record += 1
        return
    if record["identity"] != identity.as_dict():
        raise TrackingError(f"{folder}/record.json is another run's; delete the folder and run it again")
    for name in ARTIFACTS:
        if not (folder / name).is_file():
            raise TrackingError(f"{folder}/{name} is missing; delete the folder and run it again")
    key = run_key(record)
    current = None
    replaced = False
    for run in known.get(_cell(identity.as_dict()), ()):
        # A run that is still RUNNING was left behind by an import that did not come to its end.
        complete = run.info.status == "FINISHED"
        if current is None and complete and run.data.tags.get("run_key") == key:
            current = run.info.run_id
        else:
            client.delete_run(run.info.run_id)
            replaced |= complete
    if current is not None:
        summary.already_there += 1
    else:
        experiment = summary.experiments[f"{identity.benchmark}/{identity.protocol}"]
        current = _import(client, plan, experiment, record, folder)
        summary.replaced += replaced
        summary.imported += not replaced
    summary.runs[folder.as_posix()] = current


def _import(client: "MlflowClient", plan: Plan, experiment: str, record: Mapping[str, Any], folder: Path) -> str:
    """Copy one run; its status turns from RUNNING to FINISHED last. Every time is the record's, never now."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    identity = Identity(**record["identity"])
    started, ended = (_milliseconds(record["cost"][name]) for name in ("started", "ended"))
    points: list[Point] = [(name, value, 0) for name, value in figures(record).items()]
    points += curve(folder / "curve.csv")
    metrics = [Metric(name, value, ended, step) for name, value, step in points]
    name, labels = run_name(identity, plan), tags(record, plan.display(identity.method))
    run = client.create_run(experiment, start_time=started, tags=labels, run_name=name).info.run_id
    client.log_batch(run, metrics[:_BATCH], [Param(name, value) for name, value in params(record).items()])
    for i in range(_BATCH, len(metrics), _BATCH):
        client.log_batch(run, metrics[i : i + _BATCH])
    split = record["provenance"]["split_sha256"]
    dataset = Dataset(identity.dataset, split[:8], "local", json.dumps({"split_sha256": split}))
    client.log_inputs(run, [DatasetInput(dataset, [InputTag("mlflow.data.context", "few-shot")])])
    for name in ARTIFACTS:
        client.log_artifact(run, str(folder / name))
    client.set_terminated(run, "FINISHED", ended)
    return run
