"""What a run stands on and what it is asked: the task that a method tunes on, and evaluation sets with their labels.

Methods on cached features read feature files, all others packs of images; from here on both look alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from rmt import features, methods, records
from rmt.data import BadData, Pack, Sample, check_transform, read_pack
from rmt.methods import EvaluationSet, Foundation, Oracle, Task
from rmt.plan import PlannedMethod
from rmt.resume import Progress


@dataclass(frozen=True)
class Images:
    """Evaluation images of one dataset with their labels, from a feature file or from a pack.

    `text` are class text features [C, d], not normalised; it, `pixels` and `features` are computed or read on demand.
    """

    dataset: str
    classes: tuple[str, ...]
    template: str
    paths: tuple[str, ...]
    labels: Tensor
    pixels: Callable[[], np.ndarray]
    features: Callable[[], Tensor]
    text: Callable[[], Tensor]

    def of_classes(self, chosen: range) -> "Images":
        """The images of consecutive classes, labelled from 0."""
        rows = ((self.labels >= chosen.start) & (self.labels < chosen.stop)).nonzero().squeeze(1)
        return Images(
            self.dataset,
            self.classes[chosen.start : chosen.stop],
            self.template,
            tuple(self.paths[row] for row in rows.tolist()),
            self.labels[rows] - chosen.start,
            lambda: self.pixels()[rows.numpy()],
            lambda: self.features()[rows],
            lambda: self.text()[chosen.start : chosen.stop],
        )


@dataclass(frozen=True)
class Question:
    """An evaluation set with its labels, which only the suite sees (and methods named `_test_oracle`).

    `columns` is for a method that is bound to the classes it was trained on and answers for those: for every class of
    the set, the trained classes of the same name.
    """

    asked: EvaluationSet
    paths: tuple[str, ...]
    labels: Tensor
    columns: tuple[tuple[int, ...], ...] | None = None

    def logits(self, answer: methods.Answer) -> Tensor:
        """Logits [N, C] over the set's own classes; of several trained classes of one name the largest counts."""
        found = answer(self.asked).float().cpu()
        if self.columns is None:
            return found
        return torch.stack([found[:, list(columns)].amax(1) for columns in self.columns], dim=1)


def same_names(classes: Sequence[str], trained: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """For every class, the trained classes of the same name; equal lists match position by position.

    ImageNet has two pairs of classes of one name (missile, sunglasses), which no subset of its classes can tell apart.

    Raises:
        BadData: a class was not trained on.
    """
    if list(classes) == list(trained):
        return tuple((index,) for index in range(len(trained)))
    found = tuple(tuple(index for index, one in enumerate(trained) if one == name) for name in classes)
    for name, columns in zip(classes, found, strict=True):
        if not columns:
            raise BadData(
                f"class {name!r} was not trained on, and this method can answer for no other; leave the method or the "
                "dataset out"
            )
    return found


@dataclass
class Job:
    """What the runs of one process share: one method on one dataset and backbone under one protocol.

    `targets` are further evaluation sets, packs or feature files as the method reads. `command` is the command line
    that repeats the runs, without their samples.
    """

    benchmark: str
    protocol: str
    backbone: str
    method: PlannedMethod
    results: Path
    device: torch.device
    pack: Path | None = None
    images: Path | None = None
    features_file: Path | None = None
    targets: Sequence[Path] = ()
    views: int = 10
    workers: int = 0
    checkpoint_seconds: float = 300.0
    command: Sequence[str] = ()
    clip_cache: dict[str, Any] = field(default_factory=dict)

    @property
    def reads_features(self) -> bool:
        """Whether the method reads cached features and no images."""
        return self.method.needs == "features"

    @cached_property
    def frozen_features(self) -> features.Features:
        """The cached features of the frozen tower."""
        if self.features_file is None:
            raise BadData("this method reads cached features; name the file by --features")
        return features.load(self.features_file)

    @cached_property
    def own_pack(self) -> Pack:
        """The evaluation images of the dataset that is trained on."""
        if self.pack is None or self.images is None:
            raise BadData("this method reads images; name them by --pack and --images")
        return read_pack(self.pack)

    @cached_property
    def target_features(self) -> list[features.Features]:
        """Features of the further evaluation sets."""
        return [features.load(path) for path in self.targets]

    @cached_property
    def target_packs(self) -> list[Pack]:
        """Images of the further evaluation sets."""
        return [read_pack(path) for path in self.targets]

    @property
    def dataset(self) -> str:
        """The dataset that is trained on."""
        return self.frozen_features.metadata["dataset"] if self.reads_features else self.own_pack.dataset

    @property
    def split_sha256(self) -> str:
        """Digest of its split."""
        return self.frozen_features.metadata["split_sha256"] if self.reads_features else self.own_pack.split_sha256

    @property
    def weights_sha256(self) -> str:
        """Digest of the frozen weights."""
        if self.reads_features:
            return self.frozen_features.metadata["weights_sha256"]
        return self.frozen_clip().weights_sha256

    def frozen_clip(self) -> Any:
        """The backbone, loaded once per process."""
        if "frozen" not in self.clip_cache:
            from rmt import backbones  # here, because methods on cached features need no open_clip

            self.clip_cache["frozen"] = backbones.load(self.backbone, self.device)
        return self.clip_cache["frozen"]

    def identity(self, sample: Sample | None) -> records.Identity:
        """The run's identity; a method without shots is shots 0, seed 0."""
        shots, seed = (sample.shots, sample.seed) if sample else (0, 0)
        return records.Identity(
            self.benchmark, self.protocol, self.backbone, self.dataset, self.method.label, shots, seed
        )

    def below(self, sample: Sample | None) -> Path | None:
        """Folder of the finished run that this one stands on; None for the frozen CLIP.

        Raises:
            BadData: there is no such run yet.
        """
        if self.method.below is None:
            return None
        identity = records.Identity(**(self.identity(sample).as_dict() | {"method": self.method.below}))
        folder = identity.folder(self.results)
        if not (folder / "record.json").exists():
            raise BadData(
                f"{folder}: no finished run of {self.method.below}, which {self.method.label} stands on; fit it first"
            )
        return folder


def foundation(clip: Any, below: Path | None) -> Foundation:
    """What a method stands on: the frozen CLIP, or what the finished run in the folder `below` made of it."""
    if below is None:
        return Foundation(clip, clip.encode_text)
    record = records.read(below)
    adapter = load_file(below / "adapter.safetensors")
    return methods.stand_on(record["method"]["use"], clip, adapter, record["hyperparameters"])


def _no_pixels() -> np.ndarray:
    raise BadData("a method registered as needing features only asked for images")


def _of_features(found: features.Features) -> Images:
    facts = found.metadata
    return Images(
        facts["dataset"],
        tuple(facts["classes"]),
        facts["template"],
        tuple(facts["paths"]),
        found.test_labels,
        _no_pixels,
        lambda: found.test,
        lambda: found.raw_text,
    )


def _of_pack(pack: Pack, base: Foundation) -> Images:
    return Images(
        pack.dataset,
        pack.classes,
        pack.template,
        pack.paths,
        torch.tensor(pack.labels),
        lambda: pack.pixels,
        cache(lambda: base.clip.encode_images(pack.pixels)),
        cache(lambda: base.encode_text(pack.classes, pack.template)),
    )


def _seen(own: Images, sample: Sample | None, protocol: str) -> Images:
    """The images of the classes that the task has: the first half, rounded up, in base_to_new, else all."""
    if protocol != "base_to_new":
        return own
    half = len(sample.classes) if sample else (len(own.classes) + 1) // 2
    return own.of_classes(range(half))


def _questions(job: Job, own: Images, seen: Images, targets: Sequence[Images]) -> list[Question]:
    def ask(name: str, images: Images, bound: bool = False) -> Question:
        source = seen if bound else images
        asked = EvaluationSet(name, source.classes, source.template, images.pixels, images.features, source.text)
        columns = same_names(images.classes, seen.classes) if bound else None
        return Question(asked, images.paths, images.labels, columns)

    if job.protocol == "base_to_new":
        return [ask("base", seen), ask("new", own.of_classes(range(len(seen.classes), len(own.classes))))]
    return [ask("test", own), *(ask(one.dataset, one, bound=not job.method.transfers) for one in targets)]


def _validation(sample: Sample, seen: Images, pixels: Any, found: Callable[[], Tensor]) -> Question:
    asked = EvaluationSet("val", seen.classes, seen.template, pixels, found, seen.text)
    return Question(asked, tuple(path for path, _ in sample.val), torch.tensor([label for _, label in sample.val]))


def _on_features(
    job: Job, sample: Sample | None, settings: Mapping[str, Any], progress: Progress
) -> tuple[Task, list[Question]]:
    frozen = job.frozen_features
    own = _of_features(frozen)
    seen = _seen(own, sample, job.protocol)
    task = Task(
        sample=sample,
        classes=seen.classes,
        template=seen.template,
        hyperparameters=settings,
        logit_scale=frozen.metadata["logit_scale"],
        read_features=lambda: frozen,
        read_text=seen.text,
        progress=progress,
    )
    asked = _questions(job, own, seen, [_of_features(one) for one in job.target_features])
    if sample is not None:
        asked.append(_validation(sample, seen, _no_pixels, lambda: frozen.of(sample.val)))
    return task, asked


def _on_images(
    job: Job, sample: Sample, settings: Mapping[str, Any], progress: Progress
) -> tuple[Task, list[Question]]:
    from rmt.images import test_pixels  # here, because methods on cached features need no torchvision

    packs, images = [job.own_pack, *job.target_packs], job.images
    assert images is not None
    base = foundation(job.frozen_clip(), job.below(sample))
    clip = base.clip
    for pack in packs:
        check_transform(pack, job.backbone, clip.transform)
    own, *targets = (_of_pack(pack, base) for pack in packs)
    seen = _seen(own, sample, job.protocol)

    @cache
    def computed() -> features.Features:
        return features.encode(clip, [sample], images, job.own_pack.pixels[:0], [], seen.text(), job.views, {})

    task = Task(
        sample=sample,
        classes=seen.classes,
        template=seen.template,
        hyperparameters=settings,
        logit_scale=clip.logit_scale,
        read_features=computed,
        read_text=seen.text,
        clip=clip,
        encode_text=base.encode_text,
        images=images,
        workers=job.workers,
        progress=progress,
    )

    @cache
    def val_pixels() -> np.ndarray:
        return test_pixels(images, [path for path, _ in sample.val], clip.pixels, clip.resize)

    val = _validation(sample, seen, val_pixels, lambda: clip.encode_images(val_pixels()))
    return task, [*_questions(job, own, seen, targets), val]


def prepare(
    job: Job, sample: Sample | None, settings: Mapping[str, Any], progress: Progress
) -> tuple[Task, list[Question]]:
    """The task of one run, and all that it is asked, the few-shot validation images last."""
    if job.reads_features:
        task, questions = _on_features(job, sample, settings, progress)
    else:
        assert sample is not None, "a method that needs images uses a few-shot sample"
        task, questions = _on_images(job, sample, settings, progress)
    if job.method.entry.oracle:
        # The only place where a method is given evaluation labels, and its name says so.
        test = questions[0]
        task.oracle = Oracle(lambda: test.asked.features, test.labels)
    return task, questions
