# The checked config, the explicit list of runs, and what each wildcard may be.
import json
import os
import re
import shlex

from rmt import registry
from rmt.cost import request
from rmt.plan import ConfigError, check
from rmt.records import FILES

try:
    PLAN = check(config)
except ConfigError as error:
    # Not a WorkflowError, to which Snakemake adds a place in this file; the mistake is in the config.
    sys.exit(f"error: config: {error}")

BENCHMARK = PLAN.benchmark
DATA = PLAN.config["data_folder"]
RESULTS = PLAN.config["results_folder"]
REPORT = f"{PLAN.config['reports_folder']}/{BENCHMARK}"
THREADS = PLAN.config["threads"]
# GPUs of a job that runs the towers: one, or none when the config forbids it.
GPUS = 0 if PLAN.config["device"] == "cpu" else 1
SHOTS, SEEDS = PLAN.config["shots"], PLAN.config["seeds"]
# In the config's own order, which tables, legends and colours follow.
PLAN_JSON = json.dumps(dict(PLAN.config))

SAMPLES = f"{RESULTS}/{BENCHMARK}/samples"
SAMPLE = f"{SAMPLES}/{{dataset}}/{{shots}}shot-seed{{seed}}{{classes}}.json"
FEATURES = f"{RESULTS}/{BENCHMARK}/features/{{backbone}}/{{dataset}}.safetensors"
RUN = f"{RESULTS}/{BENCHMARK}/runs/{{protocol}}/{{backbone}}/{{dataset}}/{{method}}/{{shots}}shot/seed{{seed}}"
LOGS = f"{RESULTS}/{BENCHMARK}/logs"


def alternatives(names):
    """A wildcard constraint that matches these names only."""
    return "|".join(re.escape(str(name)) for name in names)


wildcard_constraints:
    protocol=alternatives(PLAN.config["protocols"]),
    backbone=alternatives(PLAN.config["backbones"]),
    dataset=alternatives(PLAN.evaluated),
    method=alternatives(PLAN.methods),
    shots=r"\d+",
    seed=r"\d+",
    classes=r"|-base",


def labels(needs, few_shot=True):
    """Labels of the methods that need "features" or "images"."""
    found = PLAN.methods.values()
    return [
        one.label
        for one in found
        if one.needs == needs and one.entry.few_shot == few_shot
    ]


def sample_files(protocol="few_shot", **axes):
    """Sample files of all shots and seeds, or of those given; none for a dataset that is only evaluated on."""
    classes = "-base" if protocol == "base_to_new" else ""
    datasets = PLAN.config["datasets"]
    if axes.get("dataset", datasets[0]) not in datasets:
        return []
    axes = {"dataset": datasets, "shots": SHOTS, "seed": SEEDS} | axes
    return expand(SAMPLE, classes=classes, **axes)


def record_files():
    """The record of every planned run."""
    return [str(one.folder(Path(RESULTS)) / "record.json") for one in PLAN.identities()]


def mask_record_files():
    """The record of every planned run that masks weights."""
    found = [one for one in PLAN.identities() if PLAN.methods[one.method].entry.masks]
    return [str(one.folder(Path(RESULTS)) / "record.json") for one in found]


def masks_file():
    """Where masks fell; nothing if no planned method masks weights."""
    return [f"{RESULTS}/{BENCHMARK}/masks.csv"] if mask_record_files() else []


def masks_option(wildcards, input):
    """`--masks FILE` where a planned method masks weights."""
    return ["--masks", *input.masks] if input.masks else []


def pack_file(wildcards, dataset=None):
    """The packed evaluation images that a backbone reads, of the run's dataset or of another."""
    transform = registry.BACKBONES[wildcards.backbone].transform
    return f"{DATA}/{dataset or wildcards.dataset}/pack/{transform}.npy"


def target_packs(wildcards):
    """The packs of the further evaluation sets of a run."""
    targets = PLAN.targets(wildcards.protocol, wildcards.dataset)
    return [pack_file(wildcards, name) for name in targets]


def target_features(wildcards):
    """The features of the further evaluation sets of a run."""
    targets = PLAN.targets(wildcards.protocol, wildcards.dataset)
    return expand(FEATURES, backbone=wildcards.backbone, dataset=targets)


def targets_option(wildcards, input):
    """`--targets FILE...` where a run has further evaluation sets."""
    return ["--targets", *input.targets] if input.targets else []


def half(wildcards):
    """Option of `sample` for the classes that the protocol trains on."""
    return " --classes base" if wildcards.classes else ""


def weights_file(wildcards):
    """The weights file of a backbone, the user's or this checkout's; nothing for weights that open_clip fetches."""
    return registry.BACKBONES[wildcards.backbone].weights_file or []


def own_backbone(wildcards):
    """Option that tells the command line of a backbone of the config's own; nothing for a registered one."""
    entry = PLAN.config["own_backbones"].get(wildcards.backbone)
    return f" --own-backbone {shlex.quote(json.dumps(entry))}" if entry else ""


def resize_option(wildcards):
    """Option of `pack` for a transform other than the shorter side and a centre crop."""
    return " --resize squash" if wildcards.resize else ""


def image_folder(wildcards):
    """Folder that the paths of a dataset's split are relative to."""
    return f"{DATA}/{wildcards.dataset}/{PLAN.datasets[wildcards.dataset].image_folder}"


def own_settings(wildcards):
    """`--own JSON` for a dataset of the user's own, nothing for one of the catalog."""
    settings = PLAN.config["own_datasets"].get(wildcards.dataset)
    return ["--own", json.dumps(settings, sort_keys=True)] if settings else []


def tree_in_place(wildcards):
    """`--coop FOLDER` when the user names a tree in CoOp's layout, for a dataset that may lie in it."""
    published = PLAN.datasets[wildcards.dataset].coop_folder
    folder = PLAN.config["coop_data"]
    return ["--coop", folder] if folder and published else []


def data_folder(wildcards):
    """Folder of all datasets."""
    return DATA


def results_folder(wildcards):
    """Folder of all results."""
    return RESULTS


def overrides(wildcards):
    """JSON of a method's differences from the registry, for the command line."""
    return json.dumps(dict(PLAN.methods[wildcards.method].overrides), sort_keys=True)


def effective(wildcards):
    """Effective hyperparameters; not on the command line, but a change of any of them, or of a default, re-runs."""
    shots = [int(wildcards.shots)] if "shots" in wildcards.keys() else SHOTS
    method = PLAN.methods[wildcards.method]
    return json.dumps(
        {one: method.hyperparameters(wildcards.dataset, one) for one in shots},
        sort_keys=True,
    )


def use(wildcards):
    """Registered method behind a label."""
    return PLAN.methods[wildcards.method].use


def grouped_axes(grouping):
    """The axes whose values one job fits, in order: none for "run"."""
    return {
        "run": {},
        "seeds": {"seed": SEEDS},
        "dataset": {"shots": SHOTS, "seed": SEEDS},
    }[grouping]


def run_outputs(grouping):
    """The four files of every run of one job; what the job does not fix stays a wildcard."""
    return expand(
        f"{RUN}/{{file}}", file=FILES, allow_missing=True, **grouped_axes(grouping)
    )


def records_below(wildcards, grouping):
    """Records of the runs below a stack's, nothing for a method that stands on the frozen CLIP."""
    below = PLAN.methods[wildcards.method].below
    if below is None:
        return []
    fixed = dict(wildcards) | {"method": below}
    axes = {
        name: values
        for name, values in grouped_axes(grouping).items()
        if name not in fixed
    }
    return expand(f"{RUN}/record.json", **(fixed | axes))


def within_site(value, limit):
    """A request, not above the site's limit: Slurm lets a job that asks for more than a partition has wait for ever."""
    return min(value, int(os.environ.get(limit, value)))


def job_memory(kind):
    """Megabytes that a cluster sets aside for a job of a rule; every further attempt gets as much again."""
    return lambda wildcards, attempt: within_site(
        request(PLAN, kind, **dict(wildcards)).memory * attempt, "RMT_SLURM_MAX_MEM_MB"
    )


def job_runtime(kind):
    """Minutes after which a cluster ends a job of a rule; every further attempt gets as much again."""
    return lambda wildcards, attempt: within_site(
        request(PLAN, kind, **dict(wildcards)).runtime * attempt,
        "RMT_SLURM_MAX_MINUTES",
    )
