"""The cost of a benchmark as Markdown, and how it compares with the records of runs that have finished."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rmt import architectures, cost, counts, records
from rmt.counts import Count
from rmt.errors import UserError
from rmt.plan import Plan
from rmt.records import Identity
from rmt.registry import BACKBONES

MLFLOW_BYTES, RECORD_BYTES, CURVE_BYTES, PREDICTION_BYTES = 60_000, 6_000, 60, 30
"""Of a run in MLflow's database; of a record; of a step in a curve; of an evaluated image in predictions. Measured."""


def _cells(rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; the first row is its head, the first columns stand to the left."""
    head, *body = rows
    sides = [":---" if place < left else "---:" for place in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, sides, *body))


def _short(value: float) -> str:
    """Whole from 100 on, else with one or two decimals."""
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _hours(seconds: float) -> str:
    return _short(seconds / 3600)


def _gigabytes(size: float) -> str:
    return _short(size / 1e9)


def _forwards(backbone: str, count: Count) -> float:
    """Forward passes of one image that cost as many operations of the towers."""
    return count.tower / architectures.of(BACKBONES[backbone].architecture).image.whole


def encoded(plan: Plan) -> list[tuple[str, str]]:
    """The (backbone, dataset) whose features are cached: all that are evaluated, if any method reads features."""
    if not any(method.needs == "features" for method in plan.methods.values()):
        return []
    return [(backbone, name) for backbone in plan.config["backbones"] for name in plan.evaluated]


def work(plan: Plan, speed: float) -> str:
    """Runs, images, operations and hours, per method and in total."""
    device = "GPU" if cost.on_gpu(plan) else "CPU"
    head = ["", "runs", "training images", "evaluation images", "forward equivalents, millions", "PFLOP"]
    rows = [[*head, *(["GPU hours", "CPU hours"] if device == "GPU" else ["CPU hours"])]]

    def add(label: str, count: Count, forwards: float, towers: float, heads: float) -> None:
        operations = (count.tower + count.heads) / 1e15
        numbers = [
            f"{count.runs:,}" if count.runs else "",
            f"{count.trained:,}",
            f"{count.evaluated:,}",
            _short(forwards / 1e6),
        ]
        times = [towers, heads] if device == "GPU" else [towers + heads]
        rows.append([label, *numbers, _short(operations), *map(_hours, times)])

    everything, every_forward, every_tower, every_head = Count(), 0.0, 0.0, 0.0
    for backbone, dataset in encoded(plan):
        count = counts.encoding(plan, backbone, dataset)
        everything += Count(0, tower=count.tower, evaluated=count.evaluated)
        every_forward += _forwards(backbone, count)
        every_tower += cost.encode_seconds(plan, backbone, dataset, speed)
    if everything.tower:
        add("encode", everything, every_forward, every_tower, 0.0)
    jobs = cost.jobs(plan)
    for label, method in plan.methods.items():
        found = {first: runs for first, runs in jobs.items() if first.method == label}
        count = cost.total(counts.run(plan, run) for runs in found.values() for run in runs)
        forwards = sum(_forwards(run.backbone, counts.run(plan, run)) for runs in found.values() for run in runs)
        took = sum(cost.job_seconds(plan, runs, speed) for runs in found.values())
        towers, heads = (took, 0.0) if method.needs == "images" else (0.0, took)
        add(label, count, forwards, towers, heads)
        everything, every_forward = everything + count, every_forward + forwards
        every_tower, every_head = every_tower + towers, every_head + heads
    add("all", everything, every_forward, every_tower, every_head)
    return _cells(rows)


def adapter_bytes(plan: Plan, run: Identity) -> float:
    """Size of what one run has learnt, at most: masks as bits, all else as numbers."""
    one, method = counts.cell(plan, run), plan.methods[run.method]
    width, settings = one.clip.embedding, one.settings
    module = method.entry.module.rpartition(".")[2]
    if module == "mask_tuning":
        return one.clip.image.masks(settings["targets"]) / 8
    if module == "coop":
        copies = one.classes if settings["class_specific"] else 1
        return 4.0 * copies * settings["context_vectors"] * one.clip.text.width
    if module.startswith("tip_adapter"):
        return 4.0 * one.train * (width + 2)
    if module == "clip_adapter":
        return 8.0 * width * (width // settings["reduction"])
    return 0.0 if module == "zero_shot" else 4.0 * one.classes * (width + 1)


def disk(plan: Plan) -> str:
    """What the benchmark keeps, and what it fetches."""
    entries = {name: plan.datasets[name] for name in plan.evaluated}
    unknown = [name for name, entry in entries.items() if entry.disk is None]
    models = [BACKBONES[name] for name in plan.config["backbones"]]
    weights = sum(4 * architectures.of(one.architecture).weights for one in models if not one.weights_file)
    transforms = {one.transform: one.image_pixels for one in models}
    packs = sum(3 * side**2 * counts.sizes(plan, name)[3] for side in transforms.values() for name in entries)
    features = sum(cost.feature_bytes(plan, backbone, name) for backbone, name in encoded(plan))
    kept = mirrored = 0.0
    for run in plan.identities():
        count = counts.run(plan, run)
        learnt = adapter_bytes(plan, run) + RECORD_BYTES + CURVE_BYTES * count.steps
        kept += learnt + PREDICTION_BYTES * count.evaluated
        mirrored += learnt + MLFLOW_BYTES
    fetched = sum(entry.download_bytes for entry in entries.values() if entry.source == "automatic")
    by_hand = [name for name, entry in entries.items() if entry.source == "by_hand"]
    images = 1e6 * sum(entry.disk or 0 for entry in entries.values())
    sizes = [
        ("images" + (f", without {', '.join(unknown)}, of unknown size" if unknown else ""), images),
        ("packs of the evaluation images", packs),
        ("weights", weights),
        ("cached features, at most", features),
        ("runs, at most", kept),
        ("their copy in the MLflow store, at most", mirrored),
    ]
    rows = [["disk", "GB"], *([name, _gigabytes(size)] for name, size in sizes if size)]
    rows.append(["all", _gigabytes(sum(size for _, size in sizes))])
    if fetched + weights:
        words = f", without {', '.join(by_hand)}, placed by hand" if by_hand else ""
        rows.append(["downloaded" + words, _gigabytes(fetched + weights)])
    return _cells(rows)


def _longest(plan: Plan, speed: float) -> tuple[str, float, float]:
    """(name of the longest fit, its seconds, those of the longest chain of jobs that wait for each other)."""
    encode = {pair: cost.encode_seconds(plan, *pair, speed) for pair in encoded(plan)}
    alone: dict[Identity, float] = {}
    chain: dict[Identity, float] = {}
    for runs in cost.jobs(plan).values():
        took = cost.job_seconds(plan, runs, speed)
        first = encode[runs[0].backbone, runs[0].dataset] if plan.methods[runs[0].method].needs == "features" else 0.0
        for run in runs:
            alone[run], chain[run] = took, took + first
    for run in alone:
        below = plan.methods[run.method].below
        if below:
            lower = Identity(**(run.as_dict() | {"method": below}))
            chain[run] = alone[run] + alone[lower]
    longest = max(alone, key=lambda run: alone[run])
    return f"{longest.method} on {longest.dataset}", alone[longest], max(chain.values())


def summary(plan: Plan, speed: float) -> str:
    """Jobs, the longest of them, the longest chain, and the largest memory."""
    jobs = cost.jobs(plan)
    peaks = [cost.peak(plan, run) for runs in jobs.values() for run in runs]
    peaks += [cost.encode_peak(plan, *pair) for pair in encoded(plan)]
    heads = sum(plan.methods[first.method].needs == "features" for first in jobs)
    name, longest, chain = _longest(plan, speed)
    words = [
        f"Jobs that compute: {len(encoded(plan)):,} encode, {heads:,} fit on features, {len(jobs) - heads:,} on images",
        f"The longest fit, {name}, takes {_hours(longest)} hours, the longest chain of jobs {_hours(chain)}",
        f"Memory of the largest job: {_gigabytes(max(one.host for one in peaks))} GB",
    ]
    if cost.on_gpu(plan):
        words[-1] += f", and {_gigabytes(max(one.device for one in peaks))} GB on the GPU"
    return ". ".join(words) + "."


def table(plan: Plan, speed: float | None = None) -> str:
    """All of it.

    Args:
        plan: the checked config.
        speed: TFLOP/s of the device that runs the towers; by default what `rmt.cost` assumes.
    """
    threads = plan.config["threads"]
    speed = speed or (cost.SPEED if cost.on_gpu(plan) else cost.THREAD_SPEED * threads)
    where = f"a GPU of {speed:g} TFLOP/s" if cost.on_gpu(plan) else f"a CPU of {speed:g} TFLOP/s"
    assumed = (
        f"Computed, not measured. Assumed: {where} in float32, CPU threads per job {threads}, of "
        f"{1000 * cost.THREAD_SPEED:g} GFLOP/s each, {cost.DECODED_PER_SECOND[True]:g} photographs decoded per second."
    )
    strangers = [name for name in plan.config["backbones"] if not architectures.is_known(BACKBONES[name].architecture)]
    if strangers:
        assumed += f" Of unknown dimensions and counted as {architectures.LARGEST}: {', '.join(strangers)}."
    return "\n\n".join([assumed, work(plan, speed), summary(plan, speed), disk(plan)])


def measured(plan: Plan, speed: float | None = None) -> str:
    """Computed beside measured for every method with finished runs: seconds without starts, and peak memory.

    Memory of a run on the CPU is compared with the host's, of one on a GPU with the device's; a request is that of the
    largest job, and must not be exceeded.

    Raises:
        UserError: no run has finished.
    """
    results = Path(plan.config["results_folder"])
    head = ["", "runs", "seconds", "computed", "ratio", "peak MB", "computed", "ratio", "asked MB", "asked minutes"]
    rows = [head]
    for label in plan.methods:
        done = [run for run in plan.identities(label) if (run.folder(results) / "record.json").exists()]
        if not done:
            continue
        found = {run: records.read(run.folder(results)) for run in done}
        took = sum(sum(record["cost"]["seconds"].values()) for record in found.values())
        expected = sum(cost.seconds(plan, counts.run(plan, run), run.backbone, speed) for run in done)
        gpu = any(record["provenance"]["device"] not in ("cpu", "mps") for record in found.values())
        largest = max(record["cost"]["peak_memory_bytes"] for record in found.values()) / 1e6
        peak = max(cost.peak(plan, run).device if gpu else cost.peak(plan, run).host for run in done) / 1e6
        requests = [asked(plan, first, speed) for first in cost.jobs(plan) if first.method == label]
        times = [f"{took:.1f}", f"{expected:.1f}", f"{expected / took:.2f}"]
        memory = [f"{largest:.0f}", f"{peak:.0f}", f"{peak / largest:.2f}"]
        most = [str(max(one.memory for one in requests)), str(max(one.runtime for one in requests))]
        rows.append([label, str(len(done)), *times, *memory, *most])
    if len(rows) == 1:
        raise UserError(f"{results / plan.benchmark}: no finished run of this config to compare with")
    return _cells(rows)


def asked(plan: Plan, first: Identity, speed: float | None = None) -> cost.Request:
    """What the job with this first run asks for."""
    axes = {name: getattr(first, name) for name in ("protocol", "backbone", "dataset", "method")}
    on_features = plan.methods[first.method].needs == "features"
    if not on_features and plan.config["fit_grouping"] != "dataset":
        axes["shots"] = first.shots
        if plan.config["fit_grouping"] == "run":
            axes["seed"] = first.seed
    return cost.request(plan, "fit_features" if on_features else "fit_images", speed, **axes)


def update(page: Path, name: str, text: str) -> None:
    """Put a table between the marks `<!-- cost of NAME -->` and `<!-- end of cost -->` of a page.

    Raises:
        UserError: the page has no such marks.
    """
    start, end = f"<!-- cost of {name} -->", "<!-- end of cost -->"
    content = page.read_text()
    before, mark, rest = content.partition(start)
    _, closed, after = rest.partition(end)
    if not mark or not closed:
        raise UserError(f"{page}: no lines {start!r} and {end!r} to write between")
    page.write_text(f"{before}{start}\n{text}\n{end}{after}")
