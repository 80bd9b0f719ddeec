"""What a benchmark costs: time, memory and disk from the counts of `rmt.counts`, and what a job should ask for.

Standard library and the plan only: the Snakefile imports it in every job.

    seconds = start + tower operations / speed + head operations / (THREAD_SPEED x threads)
              + images decoded / DECODED_PER_SECOND + STEP_SECONDS x steps

`speed` is that of the device that runs the towers, in TFLOP/s: an assumption, not a measurement, that whoever knows the
device replaces. `python -m rmt cost --config CONFIG --measured` compares all of it with the records of finished runs.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from rmt import architectures, counts
from rmt.counts import Cell, Count
from rmt.plan import Plan
from rmt.records import Identity
from rmt.registry import BACKBONES

SPEED = 10.0
"""TFLOP/s of a GPU in plain float32, assumed: about two thirds of the peak of a data-centre GPU of 2017 to 2020."""

THREAD_SPEED = 0.03
"""TFLOP/s of one CPU thread: measured 0.03 to 0.09 with models and batches of the sizes that occur here."""

DECODED_PER_SECOND = {True: 250.0, False: 2000.0}
"""Images per second and thread from file to tensor: a photograph at 224 pixels (measured 290 to 500), a small one."""

PHOTOGRAPH_PIXELS = 128
"""Models that read at least so many pixels are taken to read photographs."""

STEP_SECONDS = 0.002
"""Of one optimiser step beside its operations: measured 1 ms for heads on cached features, 3 ms at most."""

START_SECONDS = {"features": 6.0, "images": 15.0}
"""Python, torch and, for images, open_clip with its weights."""

FLOAT = 4
"""Bytes of a number; all is float32."""

BASE_BYTES = {"features": 550e6, "images": 650e6}
"""Resident memory of a process that has imported what it needs: measured 400 to 490 and 560 to 600 MB."""

GPU_HOST_BYTES = 3e9
"""What CUDA's libraries take of the host's memory in addition."""

KEPT_BYTES = 512 << 20
"""Decoded training images that a process keeps (`rmt.images.KEPT_BYTES`, which a test compares)."""

SCORE_COPIES = 10
"""Tensors of the size of all scores in a step of mask tuning: scores, two moments of Adam, effective weights, two
gradients, the draws of the gate, the gated gradient, and two for what lives in between."""

PROMPTS_ONLY = ("rmt.methods.coop", "rmt.methods.cocoop")
"""Methods on images whose image tower runs forward only."""

BATCH = 256
"""Images of an evaluation batch (`rmt.backbones.Clip.encode_images`)."""

SEARCH_PART = 4096
"""Images that Tip-Adapter's search looks at together (`rmt.methods.tip_adapter.PART`)."""

TEXT_BATCH = 256
"""Prompts that are encoded at once."""

MEMORY_FACTOR, MEMORY_FLOOR = 1.3, 500
"""A job asks for the computed peak times the factor, and megabytes on top."""

TIME_FACTOR, TIME_FLOOR = 2.0, 5
"""A job asks for the computed time times the factor, and minutes on top."""


@dataclass(frozen=True)
class Request:
    """What a job asks of a scheduler: megabytes of memory of the host, minutes."""

    memory: int
    runtime: int


@dataclass(frozen=True)
class Peak:
    """Largest number of bytes in the host's memory and on the device; on the CPU both are the host's."""

    host: float
    device: float


def on_gpu(plan: Plan) -> bool:
    """Whether the towers run on a GPU; with `auto` that is assumed."""
    return plan.config["device"] != "cpu"


def seconds(plan: Plan, count: Count, backbone: str, speed: float | None = None) -> float:
    """Time of counted work without the start of its processes; `speed` in TFLOP/s."""
    threads = plan.config["threads"]
    if speed is None:
        speed = SPEED if on_gpu(plan) else THREAD_SPEED * threads
    decoded = DECODED_PER_SECOND[BACKBONES[backbone].image_pixels >= PHOTOGRAPH_PIXELS]
    arithmetic = count.tower / speed + count.heads / (THREAD_SPEED * threads)
    return arithmetic / 1e12 + count.decoded / decoded + count.steps * STEP_SECONDS


def total(found: Iterable[Count]) -> Count:
    """Sum of counts."""
    return reduce(Count.__add__, found, Count())


def _predictions(images: int, classes: int) -> float:
    """Bytes while one evaluation set is scored: logits in single and double precision, their softmax, two copies."""
    return images * classes * (FLOAT + 3 * 8)


def feature_bytes(plan: Plan, backbone: str, dataset: str) -> float:
    """Size of a feature file."""
    classes, _, _, test = counts.sizes(plan, dataset)
    train, held = counts.sampled_images(plan, dataset)
    width = architectures.of(BACKBONES[backbone].architecture).embedding
    return FLOAT * width * (test + held + train * (1 + plan.config["views"]) + classes)


def _head_bytes(one: Cell, module: str) -> float:
    """What a method on features needs beside the features and its predictions."""
    width, largest = one.clip.embedding, max(images for images, _ in one.asked)
    found = one.train * one.views * width  # the views of one sample
    if module == "rmt.methods.linear_probe":
        found += 3 * one.train * one.classes + 24 * 2 * width * one.classes  # logits; ten pairs of L-BFGS in float64
    if module in counts.TEST_FEATURE_METHODS:
        steps = one.settings["search_steps"]
        # A search looks at a part of its images at a time, and at the test images only where a setting says so.
        searched = min(largest if one.settings.get("search_on") == "test" else one.val, SEARCH_PART)
        found += 2 * searched * one.train + 3 * steps[1] * searched * one.classes
        found += one.train * (one.classes + 5 * width) + 3 * largest * one.train
    return FLOAT * found


def _tower_bytes(one: Cell, method: Any) -> float:
    """What a method on images needs on the device beside the weights."""
    clip, settings = one.clip, one.settings
    evaluation = FLOAT * BATCH * clip.image.live
    batch = min(settings.get("batch_size", one.train), one.train)
    if method.entry.module == "rmt.methods.mask_tuning":
        targets = settings["targets"]
        kept = batch * (clip.image.kept(targets) + clip.image.live)
        training = SCORE_COPIES * clip.image.masks(targets) + kept
        return max(FLOAT * training, evaluation) + FLOAT * clip.weights  # the copy that masks are folded into
    if method.entry.needs != "images":
        return evaluation
    prompts = one.classes * clip.text.kept(one.prompt_tokens)
    kept = 0.0 if method.entry.module in PROMPTS_ONLY else clip.image.kept("all")
    if method.entry.module == "rmt.methods.cocoop":
        prompts *= batch
    return max(FLOAT * (prompts + batch * (kept + clip.image.live)), evaluation)


def _text_bytes(one: Cell) -> float:
    text = one.clip.text
    return FLOAT * min(TEXT_BATCH, one.classes) * 14 * text.tokens * text.width


def peak(plan: Plan, run: Identity) -> Peak:
    """Memory of one planned run."""
    method, one = plan.methods[run.method], counts.cell(plan, run)
    scored = max(_predictions(images, classes) for images, classes in one.asked)
    if method.needs == "features":
        read = [run.dataset, *plan.targets(run.protocol, run.dataset)]
        host = BASE_BYTES["features"] + sum(feature_bytes(plan, run.backbone, name) for name in read)
        return Peak(host + scored + _head_bytes(one, method.entry.module), 0.0)
    weights = FLOAT * one.clip.weights
    found = FLOAT * one.clip.embedding * (one.evaluated + one.train * (1 + one.views))
    heads = _head_bytes(one, method.entry.module) if method.entry.needs == "features" else 0.0
    copies = 2 if method.below else 1
    device = copies * weights + max(_tower_bytes(one, method), _text_bytes(one))
    # The file, the model, and a second model until the first is on the device.
    host = BASE_BYTES["images"] + 2 * weights + _decoded_bytes(one, run.backbone) + found + max(scored, heads)
    return _placed(plan, host, device)


def _placed(plan: Plan, host: float, device: float) -> Peak:
    return Peak(host + GPU_HOST_BYTES, device) if on_gpu(plan) else Peak(host + device, 0.0)


def _decoded_bytes(one: Cell, backbone: str) -> float:
    """Training images that stay decoded: photographs of half a million pixels, or as small as the model reads."""
    side = BACKBONES[backbone].image_pixels
    each = 3 * (500_000 if side >= PHOTOGRAPH_PIXELS else 4 * side**2)
    return min(KEPT_BYTES, one.train * each)


def encode_peak(plan: Plan, backbone: str, dataset: str) -> Peak:
    """Memory of `encode`: the file's features twice, while they are put together."""
    clip = architectures.of(BACKBONES[backbone].architecture)
    weights = FLOAT * clip.weights
    host = BASE_BYTES["images"] + 2 * weights + 2 * feature_bytes(plan, backbone, dataset) + KEPT_BYTES
    prompts = FLOAT * TEXT_BATCH * 14 * clip.text.tokens * clip.text.width
    return _placed(plan, host, weights + max(FLOAT * BATCH * clip.image.live, prompts))


def jobs(plan: Plan) -> dict[Identity, list[Identity]]:
    """The runs of every job, by its first one: methods on features fit a dataset in one job, the others as the config's
    `fit_grouping` says."""
    grouping = plan.config["fit_grouping"]
    found: dict[tuple[Any, ...], list[Identity]] = {}
    for run in plan.identities():
        on_features = plan.methods[run.method].needs == "features"
        shots = None if on_features or grouping == "dataset" else run.shots
        seed = None if shots is None or grouping == "seeds" else run.seed
        key = (run.protocol, run.backbone, run.dataset, run.method, shots, seed)
        found.setdefault(key, []).append(run)
    return {runs[0]: runs for runs in found.values()}


def job_seconds(plan: Plan, runs: Iterable[Identity], speed: float | None = None) -> float:
    """Time of one job with these runs."""
    runs = list(runs)
    needs = plan.methods[runs[0].method].needs
    work = total(counts.run(plan, one) for one in runs)
    return START_SECONDS[needs] + seconds(plan, work, runs[0].backbone, speed)


def encode_seconds(plan: Plan, backbone: str, dataset: str, speed: float | None = None) -> float:
    """Time of one `encode` job."""
    return START_SECONDS["images"] + seconds(plan, counts.encoding(plan, backbone, dataset), backbone, speed)


def matching(plan: Plan, wildcards: Mapping[str, Any]) -> list[Identity]:
    """The planned runs whose fields have the given values; a field that is not given may have any."""
    wanted = {name: str(value) for name, value in wildcards.items()}
    found = plan.identities(wanted.get("method"), wanted.get("dataset"))
    return [one for one in found if all(str(getattr(one, name)) == value for name, value in wanted.items())]


def _tables(plan: Plan, kind: str) -> tuple[float, float]:
    """(bytes, seconds) of the jobs behind the runs, measured on a few hundred runs and scaled by their number."""
    runs = plan.identities()
    images = sum(counts.cell(plan, one).evaluated for one in runs)
    each = {"track": 0.15, "collect": 0.01, "compare": 0.05, "figures": 0.01, "render": 0.01}
    # `compare` reads every prediction; one dataset's are in memory at a time.
    read = images * 1e-6 if kind == "compare" else 0.0
    most = max((counts.cell(plan, one).evaluated for one in runs), default=0)
    held = 200.0 * most + len(runs) * 2e4 + (most * len(runs) / max(1, len(plan.config["datasets"])))
    return 600e6 + held, 10 + len(runs) * each[kind] + read


def request(plan: Plan, kind: str, speed: float | None = None, **wildcards: Any) -> Request:
    """What a job asks of a scheduler: memory in megabytes, runtime in minutes.

        memory  = 500 + 1.3 x computed peak of the host's memory (on the CPU: with the device's)
        runtime = 5 + 2 x computed minutes of all its runs and of its start

    rounded up to 100 MB and 5 minutes. A job of several runs holds one of them at a time. Jobs that use neither tower
    nor features (download, split, sample, pack) follow the number of images.

    Args:
        plan: the checked config.
        kind: the rule's name.
        speed: TFLOP/s of the device that runs the towers; by default the assumption of this module.
        wildcards: those of the rule: protocol, backbone, dataset, method, shots, seed, as far as it has them.

    Raises:
        ValueError: an unknown kind, or wildcards that match no planned run.
    """
    names = {name: value for name, value in wildcards.items() if name in Identity.__dataclass_fields__}
    if kind == "encode":
        backbone, dataset = str(names["backbone"]), str(names["dataset"])
        size = encode_peak(plan, backbone, dataset).host
        time = encode_seconds(plan, backbone, dataset, speed)
    elif kind in ("fit_once", "fit_features", "fit_images"):
        runs = matching(plan, names)
        if not runs:
            raise ValueError(f"{kind}: no planned run has {names}")
        size = max(peak(plan, one).host for one in runs)
        time = job_seconds(plan, runs, speed)
    elif kind in ("track", "collect", "compare", "figures", "render"):
        size, time = _tables(plan, kind)
    elif kind in ("download", "split", "sample", "pack"):
        _, train, val, test = counts.sizes(plan, str(names["dataset"]))
        size, time = 600e6 + 500.0 * (train + val + test), 10 + (train + val + test) / DECODED_PER_SECOND[True]
    else:
        raise ValueError(f"no job is called {kind!r}")
    memory = MEMORY_FLOOR + MEMORY_FACTOR * size / 1e6
    runtime = TIME_FLOOR + TIME_FACTOR * time / 60
    return Request(100 * math.ceil(memory / 100), 5 * math.ceil(runtime / 5))
