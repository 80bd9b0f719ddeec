"""`python -m data_prep VERB ...`: list, download, split, sample, pack. One verb per rule."""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep import catalog, own, splits
from rmt.errors import UserError, did_you_mean, run_verb
from rmt.records import atomic, write_json

GENERATED_POOL, GENERATED_LEAST, GENERATED_VAL, GENERATED_SEED = 0.25, 20, 0.10, 777
"""Split of a generated set: per class a quarter (at least 20 images) to draw shots from, a tenth val, the rest test.
A shifted set is all test."""


def _entry(options: argparse.Namespace) -> catalog.Dataset:
    """The dataset that the command line names: of the catalog, or the user's own by `--own`."""
    if options.own is not None:
        return own.entry(options.dataset, options.own)
    if options.dataset not in catalog.DATASETS:
        raise UserError(f"unknown dataset {options.dataset!r}{did_you_mean(options.dataset, catalog.DATASETS)}")
    return catalog.DATASETS[options.dataset]


def list_datasets(options: argparse.Namespace) -> None:
    """Print the catalog, and what is there."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from data_prep.download import state
    from data_prep.fetch import megabytes

    table = Table(box=box.SIMPLE)
    for heading, side in (("dataset", "left"), ("classes", "right"), ("train / val / test", "right")):
        table.add_column(heading, justify=side, no_wrap=True)  # type: ignore[arg-type]
    for heading in ("prompt", "disk", "state", "licence", "citation"):
        table.add_column(heading, overflow="fold")
    for name, entry in catalog.DATASETS.items():
        sizes = " / ".join(map(str, entry.split_sizes)) if entry.split_sizes else ""
        disk = "unknown" if entry.disk is None else megabytes(entry.disk * 1e6)
        row = (entry.template, disk, state(name, options.data), entry.licence, entry.citation)
        table.add_row(name, str(entry.classes), sizes, *map(escape, row))
    # Redirected to a file, the table is as wide as it needs to be.
    Console(width=None if sys.stdout.isatty() else 240).print(table)


def download(options: argparse.Namespace) -> None:
    """Make data/{dataset} complete and verified."""
    from data_prep.download import download as fetch

    _entry(options)
    found = fetch(options.dataset, options.data, options.coop, options.own)
    print(f"{options.data / options.dataset}: {found['images']} images, sha256 {found['sha256'][:16]}")


def split(options: argparse.Namespace) -> None:
    """Write the dataset's split in CoOp's format."""
    entry, folder = _entry(options), options.data / options.dataset
    if entry.source == "own":
        content = own.read(options.dataset, options.own)
        if options.own.get("split"):
            shutil.copyfile(options.own["split"], options.output)
        else:
            write_json(options.output, content)
        return
    if entry.source != "generated":
        from data_prep import datasets  # here, because it imports the network's packages

        content = datasets.read(options.dataset, entry, folder)
        if entry.split is None:
            write_json(options.output, content)
            return
        with atomic(options.output) as temporary:
            shutil.copyfile(folder / entry.split.name, temporary)
        return
    paths = json.loads((folder / "verified.json").read_text())["paths"]
    labels = [int(path[:2]) for path in paths]
    names = [path.split("/")[0][3:] for path in paths]
    parts = ["test"] * len(labels)
    if entry.trainable:
        parts = splits.stratified(labels, GENERATED_POOL, GENERATED_LEAST, GENERATED_VAL, GENERATED_SEED)
    items = list(zip(paths, labels, names, strict=True))
    write_json(
        options.output,
        {part: [item for item, chosen in zip(items, parts, strict=True) if chosen == part] for part in splits.PARTS},
    )


def sample(options: argparse.Namespace) -> None:
    """Draw a few-shot sample as CoOp does; prints it, or writes it with --output."""
    source = splits.read_split(options.split)
    if not source["train"]:
        raise splits.BadSplit(f"{options.split}: no training images to draw from; this is a test set only")
    drawn = splits.few_shot(source, options.shots, options.seed, options.classes)
    if options.output is None:
        json.dump(drawn, sys.stdout, ensure_ascii=False)
        print()
        return
    if options.dataset is None:
        raise UserError("sample: --output needs --dataset, whose prompt the sample file carries")
    if not drawn["val"]:
        raise splits.BadSplit(f"{options.split}: no images are left for validation; give val a share of the images")
    entry = _entry(options)
    write_json(
        options.output,
        {
            "dataset": options.dataset,
            "shots": options.shots,
            "seed": options.seed,
            "classes": splits.choose(splits.class_names(source, options.split), options.classes),
            "template": entry.template,
            "mirror": entry.mirror,
            "split_sha256": splits.sha256_of(options.split),
            **drawn,
        },
    )


def pack(options: argparse.Namespace) -> None:
    """Decode the evaluation images once."""
    import torch

    from data_prep.pack import pack as write

    torch.set_num_threads(1)
    write(
        options.dataset,
        options.split,
        options.images,
        options.pixels,
        options.output,
        options.resize,
        _entry(options).template,
    )


def verify(options: argparse.Namespace) -> None:
    """Hash whole packs against their indices; prints one line for each."""
    from rmt.data import read_pack

    for path in options.packs:
        found = read_pack(path, whole=True)
        print(f"{path}: whole, {len(found.paths)} images of {found.dataset} at {found.transform}")


def _settings(words: str) -> dict[str, Any]:
    """Settings of own data from the command line.

    Raises:
        argparse.ArgumentTypeError: not a JSON object.
    """
    try:
        found = json.loads(words)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON ({error})") from error
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError("expected a JSON object, an entry of the config's own_datasets")
    return found


def _own(verb: argparse.ArgumentParser) -> None:
    about = "the dataset is the user's own: its entry of the config's own_datasets, as JSON"
    verb.add_argument("--own", type=_settings, metavar="JSON", help=about)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)

    verb = verbs.add_parser("list", help=list_datasets.__doc__)
    verb.add_argument("--data", type=Path, default=Path("data"))
    verb.set_defaults(call=list_datasets)

    verb = verbs.add_parser("download", help=download.__doc__)
    verb.add_argument("dataset")
    _own(verb)
    verb.add_argument("--data", type=Path, default=Path("data"))
    verb.add_argument("--coop", type=Path, metavar="FOLDER", help="tree in CoOp's layout to use in place")
    verb.set_defaults(call=download)

    verb = verbs.add_parser("split", help=split.__doc__)
    verb.add_argument("dataset")
    _own(verb)
    verb.add_argument("--data", type=Path, default=Path("data"))
    verb.add_argument("--output", type=Path, required=True)
    verb.set_defaults(call=split)

    verb = verbs.add_parser("sample", help=sample.__doc__)
    verb.add_argument("--split", type=Path, required=True, help="split file in CoOp's format")
    verb.add_argument("--shots", type=int, required=True, help="images per class")
    verb.add_argument("--seed", type=int, required=True)
    verb.add_argument("--classes", choices=("all", "base", "new"), default="all")
    verb.add_argument("--dataset")
    _own(verb)
    verb.add_argument("--output", type=Path, help="write a sample file instead of printing")
    verb.set_defaults(call=sample)

    verb = verbs.add_parser("pack", help=pack.__doc__)
    verb.add_argument("dataset")
    _own(verb)
    verb.add_argument("--split", type=Path, required=True)
    verb.add_argument("--images", type=Path, required=True)
    verb.add_argument("--pixels", type=int, required=True, help="side of the packed images")
    verb.add_argument("--resize", choices=("shortest", "squash"), default="shortest", help="squash is SigLIP's")
    verb.add_argument("--output", type=Path, required=True, help="PACK.npy; PACK.json goes beside it")
    verb.set_defaults(call=pack)

    verb = verbs.add_parser("verify", help=verify.__doc__)
    verb.add_argument("packs", type=Path, nargs="+", metavar="PACK.npy")
    verb.set_defaults(call=verify)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    return run_verb(_parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
