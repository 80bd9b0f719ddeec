"""`python -m data_prep VERB ...`: list, download, split, sample, pack. One verb per rule."""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from data_prep import catalog, splits
from rmt.errors import UserError
from rmt.records import atomic, write_json

GENERATED_POOL, GENERATED_LEAST, GENERATED_VAL, GENERATED_SEED = 0.25, 20, 0.10, 777
"""Split of a generated set: per class a quarter (at least 20 images) to draw shots from, a tenth val, the rest test."""


def list_datasets(options: argparse.Namespace) -> None:
    """Print the catalog, and what is there."""
    from rich.console import Console
    from rich.table import Table

    table = Table("dataset", "classes", "prompt", "source", "state", "licence")
    for name, entry in catalog.DATASETS.items():
        state = "verified" if (options.data / name / "verified.json").exists() else "missing"
        table.add_row(name, str(entry.classes), entry.template, entry.source, state, entry.licence)
    Console().print(table)


def download(options: argparse.Namespace) -> None:
    """Make data/{dataset} complete and verified."""
    from data_prep.download import download as fetch

    found = fetch(options.dataset, options.data)
    print(f"{options.data / options.dataset}: {found['images']} images, sha256 {found['sha256'][:16]}")


def split(options: argparse.Namespace) -> None:
    """Write the dataset's split in CoOp's format."""
    entry, folder = catalog.DATASETS[options.dataset], options.data / options.dataset
    if entry.split_file:
        source = folder / entry.split_file
        content = splits.read_split(source)
        found = splits.sha256_of(source)
        if entry.split_sha256 and found != entry.split_sha256:
            raise splits.BadSplit(
                f"{source}: sha256 is {found}, expected {entry.split_sha256}; fetch CoOp's own file again"
            )
        sizes = tuple(len(content[part]) for part in splits.PARTS)
        if entry.split_sizes and sizes != entry.split_sizes:
            raise splits.BadSplit(f"{source}: {sizes} train, val, test images, expected {entry.split_sizes}")
        with atomic(options.output) as temporary:
            shutil.copyfile(source, temporary)
        return
    paths = json.loads((folder / "verified.json").read_text())["paths"]
    labels = [int(path[:2]) for path in paths]
    names = [path.split("/")[0][3:] for path in paths]
    parts = splits.stratified(labels, GENERATED_POOL, GENERATED_LEAST, GENERATED_VAL, GENERATED_SEED)
    items = list(zip(paths, labels, names, strict=True))
    write_json(
        options.output,
        {part: [item for item, chosen in zip(items, parts, strict=True) if chosen == part] for part in splits.PARTS},
    )


def sample(options: argparse.Namespace) -> None:
    """Draw a few-shot sample as CoOp does; prints it, or writes it with --output."""
    source = splits.read_split(options.split)
    drawn = splits.few_shot(source, options.shots, options.seed, options.classes)
    if options.output is None:
        json.dump(drawn, sys.stdout, ensure_ascii=False)
        print()
        return
    if options.dataset is None:
        raise UserError("sample: --output needs --dataset, whose prompt the sample file carries")
    entry = catalog.DATASETS[options.dataset]
    write_json(
        options.output,
        {
            "dataset": options.dataset,
            "shots": options.shots,
            "seed": options.seed,
            "classes": splits.class_names(source, options.split),
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
    write(options.dataset, options.split, options.images, options.pixels, options.output, options.resize)


def verify(options: argparse.Namespace) -> None:
    """Hash whole packs against their indices; prints one line for each."""
    from rmt.data import read_pack

    for path in options.packs:
        found = read_pack(path, whole=True)
        print(f"{path}: whole, {len(found.paths)} images of {found.dataset} at {found.transform}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m data_prep", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)

    verb = verbs.add_parser("list", help=list_datasets.__doc__)
    verb.add_argument("--data", type=Path, default=Path("data"))
    verb.set_defaults(call=list_datasets)

    verb = verbs.add_parser("download", help=download.__doc__)
    verb.add_argument("dataset", choices=catalog.DATASETS)
    verb.add_argument("--data", type=Path, default=Path("data"))
    verb.set_defaults(call=download)

    verb = verbs.add_parser("split", help=split.__doc__)
    verb.add_argument("dataset", choices=catalog.DATASETS)
    verb.add_argument("--data", type=Path, default=Path("data"))
    verb.add_argument("--output", type=Path, required=True)
    verb.set_defaults(call=split)

    verb = verbs.add_parser("sample", help=sample.__doc__)
    verb.add_argument("--split", type=Path, required=True, help="split file in CoOp's format")
    verb.add_argument("--shots", type=int, required=True, help="images per class")
    verb.add_argument("--seed", type=int, required=True)
    verb.add_argument("--classes", choices=("all", "base", "new"), default="all")
    verb.add_argument("--dataset", choices=catalog.DATASETS)
    verb.add_argument("--output", type=Path, help="write a sample file instead of printing")
    verb.set_defaults(call=sample)

    verb = verbs.add_parser("pack", help=pack.__doc__)
    verb.add_argument("dataset", choices=catalog.DATASETS)
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
    """Run one verb; a user's mistake is one line on stderr and exit status 2."""
    options = _parser().parse_args(arguments)
    try:
        options.call(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
