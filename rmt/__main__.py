"""`python -m rmt VERB ...`: encode, fit and track, each one line of the workflow; cost, for who plans one; export,
predict and inspect, for who uses a finished run. Every line can be pasted into a shell."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmt import registry
from rmt.errors import UserError, run_verb, shown


def _device(name: str) -> Any:
    """The torch device of a name; "auto" is a CUDA GPU, else Apple's (mps), else the CPU."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(one for one, is_there in there.items() if is_there)
    elif not there[name]:
        raise UserError(f"device {name}: torch sees no such GPU here; use --device auto or cpu")
    if name == "cpu":
        # Small kernels differ in the last bit between thread counts; one fixed choice per job keeps runs repeatable.
        torch.use_deterministic_algorithms(True)
    return torch.device(name)


def encode(options: argparse.Namespace) -> None:
    """Frozen features of one (backbone, dataset)."""
    import torch

    from rmt import backbones, features
    from rmt.data import check_transform, read_pack, read_sample

    _register_own(options)
    torch.set_num_threads(options.threads)
    pack, samples = read_pack(options.pack), [read_sample(path) for path in options.samples]
    clip = backbones.load(options.backbone, _device(options.device))
    check_transform(pack, options.backbone, clip.transform)
    text = clip.encode_text(pack.classes, pack.template)
    found = features.encode(
        clip,
        samples,
        options.images,
        pack.pixels,
        pack.labels,
        text,
        options.views,
        {
            "dataset": pack.dataset,
            "classes": pack.classes,
            "template": pack.template,
            "paths": pack.paths,
            "split_sha256": pack.split_sha256,
            "logit_scale": clip.logit_scale,
            "weights_sha256": clip.weights_sha256,
        },
    )
    features.save(found, options.output)


def fit(options: argparse.Namespace) -> None:
    """Runs of one method on one dataset and backbone: one per sample file."""
    import torch

    from rmt import fit as fitting
    from rmt.job import Job
    from rmt.plan import PlannedMethod

    _register_own(options)
    torch.set_num_threads(options.threads)
    base, _, below = options.method.partition("+")
    method = PlannedMethod(options.method, options.use or base, below or None, json.loads(options.overrides))
    job = Job(
        benchmark=options.benchmark,
        protocol=options.protocol,
        backbone=options.backbone,
        method=method,
        results=options.results,
        device=_device(options.device),
        pack=options.pack,
        images=options.images,
        features_file=options.features,
        targets=options.targets,
        views=options.views,
        workers=options.workers,
        checkpoint_seconds=options.checkpoint_seconds,
        command=_repeatable(options),
    )
    fitting.run_all(job, options.samples)


def _repeatable(options: argparse.Namespace) -> list[str]:
    """The command line of a fit without its samples; paths of the user's home are shortened to `~`."""
    words = ["python", "-m", "rmt", "fit"]
    for name, value in vars(options).items():
        if name in ("verb", "call", "samples") or value in (None, [], "{}"):
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *(shown(one) if isinstance(one, Path) else str(one) for one in values)]
    return words


def track(options: argparse.Namespace) -> None:
    """Import finished runs into MLflow."""
    from rmt import plan, tracking

    summary = tracking.track(plan.check(json.loads(options.plan)) if options.plan else plan.load(options.config))
    tracking.write_summary(summary, options.output)


def cost(options: argparse.Namespace) -> None:
    """What a benchmark costs in images, operations, hours, memory and disk, counted from its plan."""
    from rmt import cost_table, plan

    planned = plan.load(options.config)
    if options.device:
        planned = plan.check(dict(planned.config) | {"device": options.device})
    text = (cost_table.measured if options.measured else cost_table.table)(planned, options.speed)
    if options.into:
        cost_table.update(options.into, options.config.name, text)
    else:
        print(text)


def export(options: argparse.Namespace) -> None:
    """A finished run as weights that open_clip loads, with what it needs beside them."""
    from rmt import export as exporting
    from rmt.restore import restore

    restored = restore(options.run, "cpu", options.checkpoint)
    print(exporting.report(restored, exporting.export(restored, options.output, options.force)))


def predict(options: argparse.Namespace) -> int:
    """The likeliest classes of images, by a finished run."""
    import torch

    from rmt import predict as predicting
    from rmt.restore import restore

    torch.set_num_threads(options.threads)
    restored = restore(options.run, _device(options.device), options.checkpoint)
    return predicting.run(restored, options.images, options.top, options.json)


def inspect(options: argparse.Namespace) -> None:
    """What a finished run learnt, where its masks fell, and how to make it again."""
    from rmt import inspect_run
    from rmt.runs import open_run

    inspect_run.inspect(open_run(options.run), options.figure)


def _register_own(options: argparse.Namespace) -> None:
    """Add the backbone of `--own-backbone` to the registry of this process."""
    entry = json.loads(options.own_backbone)
    if entry:
        try:
            registry.add_own_backbone(options.backbone, **entry)
        except (TypeError, ValueError) as error:
            raise UserError(f"--own-backbone: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rmt", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)

    def tower_options(verb: argparse.ArgumentParser) -> None:
        verb.add_argument("--backbone", required=True, help="a name of rmt/registry.py, or of --own-backbone")
        verb.add_argument("--own-backbone", default="{}", help="JSON of its entry in the config's own_backbones")
        verb.add_argument("--samples", type=Path, nargs="*", default=[], help="files that `data_prep sample` wrote")
        verb.add_argument("--pack", type=Path, help="PACK.npy that `data_prep pack` wrote")
        verb.add_argument("--images", type=Path, help="folder that image paths are relative to")
        verb.add_argument("--views", type=int, default=10, help="augmented views per training image")
        verb.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
        verb.add_argument("--threads", type=int, default=1, help="CPU threads")

    verb = verbs.add_parser("encode", help=encode.__doc__)
    tower_options(verb)
    verb.add_argument("--output", type=Path, required=True, help="features.safetensors")
    verb.set_defaults(call=encode)

    verb = verbs.add_parser("fit", help=fit.__doc__)
    tower_options(verb)
    verb.add_argument("--benchmark", required=True)
    verb.add_argument("--protocol", default="few_shot")
    verb.add_argument("--method", required=True, help="label; LABEL+BELOW stands on the finished runs of BELOW")
    verb.add_argument("--use", choices=registry.METHODS, help="registered method, when the label is a variant")
    verb.add_argument("--overrides", default="{}", help="JSON of hyperparameters that differ from rmt/registry.py")
    verb.add_argument("--features", type=Path, help="features.safetensors that `encode` wrote")
    verb.add_argument(
        "--targets",
        type=Path,
        nargs="+",
        default=[],
        help="further evaluation sets: packs, or feature files for a method that reads features",
    )
    verb.add_argument("--results", type=Path, default=Path("results"))
    verb.add_argument("--workers", type=int, default=0, help="processes that decode training images")
    # Not a parameter of the workflow's rules, because a run is the same however often its state was written.
    verb.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=os.environ.get("RMT_CHECKPOINT_SECONDS", "300"),
        help="write the state of a training that often, in seconds (default: RMT_CHECKPOINT_SECONDS, else 300)",
    )
    verb.set_defaults(call=fit)

    verb = verbs.add_parser("track", help=track.__doc__)
    source = verb.add_mutually_exclusive_group(required=True)
    source.add_argument("--config", type=Path, help="YAML config of the benchmark")
    source.add_argument("--plan", help="the same as JSON")
    verb.add_argument("--output", type=Path, required=True, help="tracked.json")
    verb.set_defaults(call=track)

    verb = verbs.add_parser("cost", help=cost.__doc__)
    verb.add_argument("--config", type=Path, required=True, help="YAML config of the benchmark")
    verb.add_argument("--speed", type=float, metavar="TFLOP/S", help="of the device that runs the towers, in float32")
    verb.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="instead of the config's")
    verb.add_argument("--measured", action="store_true", help="compare with the records of finished runs")
    verb.add_argument("--into", type=Path, metavar="PAGE", help="write between the marks of a page")
    verb.set_defaults(call=cost)

    def run_options(verb: argparse.ArgumentParser) -> None:
        verb.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run, or its record.json")

    def weights_options(verb: argparse.ArgumentParser) -> None:
        run_options(verb)
        verb.add_argument(
            "--checkpoint", type=Path, help="where the file of a backbone of your own lies now, if it has moved"
        )

    verb = verbs.add_parser("export", help=export.__doc__)
    weights_options(verb)
    verb.add_argument("--output", type=Path, required=True, help="NAME.safetensors; more files go beside it")
    verb.add_argument("--force", action="store_true", help="replace files that are there")
    verb.set_defaults(call=export)

    verb = verbs.add_parser("predict", help=predict.__doc__)
    weights_options(verb)
    verb.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files, or folders of them")
    verb.add_argument("--top", type=int, default=5, help="classes per image")
    verb.add_argument("--json", action="store_true", help="one line of JSON per image")
    verb.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    verb.add_argument("--threads", type=int, default=1, help="CPU threads")
    verb.set_defaults(call=predict)

    verb = verbs.add_parser("inspect", help=inspect.__doc__)
    run_options(verb)
    verb.add_argument("--figure", type=Path, help="masks.png to write, a heat map of where the masks fell")
    verb.set_defaults(call=inspect)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    return run_verb(_parser(), arguments)


if __name__ == "__main__":
    status = main()
    # All is written or said; to die of a cluster's signal now would make Snakemake delete what is finished.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(status)
