"""What every planned run does, counted from its settings as its method's code does it: steps, images, operations.

Standard library and the plan only. `tower` operations run on the device that the config names, `heads` operations (on
cached features) on the CPU. Where a number depends on the draw, the largest possible one is taken: no class is short of
images, no two samples share an image.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from rmt import architectures
from rmt.architectures import Architecture
from rmt.plan import Plan
from rmt.records import Identity
from rmt.registry import BACKBONES
from rmt.schedule import planned_epochs, steps_per_epoch

VAL_SHOTS = 4
"""Few-shot validation images per class: as many as shots, at most these (CoOp)."""

UNKNOWN = (100, 10000, 5000, 5000)
"""Classes, train, val and test images of a dataset whose split nobody has made yet: a guess on the large side."""

LONGEST_NAMES = {
    "imagenet": 12,
    "caltech101": 3,
    "oxford_pets": 4,
    "stanford_cars": 16,
    "oxford_flowers": 6,
    "food101": 6,
    "fgvc_aircraft": 8,
    "sun397": 6,
    "dtd": 3,
    "eurosat": 4,
    "ucf101": 5,
}
"""Tokens of the longest class name, on which the length of a learnt prompt depends."""

LONGEST_NAME = 6
"""The same where it is not known."""

LINEAR_PROBE_SHARE = 0.3
"""Iterations of the probe's solver over their limit. Only fits with little regularisation come near it: 14 to 100 of
1,000 were measured, at a third of the speed that other heads reach."""

LINEAR_PROBE_FITS = 2
"""Values of C that the probe's bisection starts with; every further step of it adds one."""


@dataclass(frozen=True)
class Count:
    """Work of one or more runs.

    `steps` of optimisers; `trained` images in their batches, `evaluated` images that are answered for, `decoded` images
    read from their files, all with repetitions; `tower` and `heads` in floating-point operations.
    """

    runs: int = 0
    steps: int = 0
    trained: int = 0
    evaluated: int = 0
    decoded: int = 0
    tower: float = 0.0
    heads: float = 0.0

    def __add__(self, other: "Count") -> "Count":
        return Count(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


@dataclass(frozen=True)
class Cell:
    """One run in numbers: its CLIP, settings, trained classes, images to train and validate on, and (images, classes)
    of everything that it is asked."""

    clip: Architecture
    settings: Mapping[str, Any]
    template: str
    longest_name: int
    classes: int
    shots: int
    train: int
    val: int
    asked: tuple[tuple[int, int], ...]
    views: int

    @property
    def evaluated(self) -> int:
        """Images that are answered for."""
        return sum(images for images, _ in self.asked) + self.val

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the longest prompt: start, words of the template or learnt context and full stop, name, end."""
        words = len(re.findall(r"\w+|[^\w\s{}]", self.template))
        if "context_vectors" in self.settings and self.settings["initial_context"] != "prompt":
            words = self.settings["context_vectors"] + 1
        return min(words + self.longest_name + 2, self.clip.text.tokens)

    def batches(self, drop_last: bool = True) -> tuple[int, int]:
        """(optimiser steps, images in their batches) of a training by epochs, or by iterations per shot or in all; none
        of either means no training."""
        settings = self.settings
        batch = settings.get("batch_size", self.train)
        if "iterations_per_shot" in settings or "iterations" in settings:
            steps = settings.get("iterations_per_shot", 0) * self.shots or settings["iterations"]
            return steps, steps * min(batch, self.train)
        per_epoch = steps_per_epoch(self.train, batch, drop_last)
        epochs = settings.get("epochs", 0)
        if "minimum_travel" in settings:
            epochs = planned_epochs(settings, per_epoch)
        return epochs * per_epoch, epochs * (per_epoch * min(batch, self.train) if drop_last else self.train)


def sizes(plan: Plan, name: str) -> tuple[int, int, int, int]:
    """(classes, train, val, test images) of a dataset: the catalog's, or those of its split once that is made."""
    entry = plan.datasets[name]
    if entry.split_sizes:
        return (entry.classes, *entry.split_sizes)
    try:
        split = json.loads((Path(plan.config["data_folder"]) / name / "split.json").read_text())
        train, val, test = (len(split[part]) for part in ("train", "val", "test"))
        return 1 + max(label for _, label, _ in split["train"]), train, val, test
    except (OSError, ValueError, KeyError, TypeError):
        return (entry.classes or UNKNOWN[0], *UNKNOWN[1:])


def shots_of(plan: Plan, name: str, classes: int, shots: int) -> tuple[int, int]:
    """(training, validation) images of a few-shot sample of so many classes."""
    _, train, val, _ = sizes(plan, name)
    return min(classes * shots, train), min(classes * min(shots, VAL_SHOTS), val or train)


def cell(plan: Plan, run: Identity) -> Cell:
    """A planned run in numbers."""
    method, entry = plan.methods[run.method], plan.datasets[run.dataset]
    classes, _, _, test = sizes(plan, run.dataset)
    halved = run.protocol == "base_to_new"
    trained = (classes + 1) // 2 if halved else classes
    train, val = shots_of(plan, run.dataset, trained, run.shots)
    asked = [(test - test // 2, trained), (test // 2, classes - trained)] if halved else [(test, classes)]
    for target in plan.targets(run.protocol, run.dataset):
        others, _, _, images = sizes(plan, target)
        asked.append((images, others))
    return Cell(
        clip=architectures.of(BACKBONES[run.backbone].architecture),
        settings=method.hyperparameters(run.dataset, run.shots),
        template=entry.template,
        longest_name=LONGEST_NAMES.get(run.dataset, LONGEST_NAME),
        classes=trained,
        shots=run.shots,
        train=train,
        val=val,
        asked=tuple(asked),
        views=plan.config["views"],
    )


def _class_texts(one: Cell) -> float:
    """Class prompts of everything that is asked, over the whole context."""
    return sum(classes for _, classes in one.asked) * one.clip.text.forward(one.clip.text.tokens)


def _tuned(one: Cell, steps: int, trained: int, tower: float) -> Count:
    """A training on images, and the evaluation by its tower."""
    tower += one.evaluated * one.clip.image.whole
    return Count(1, steps, trained, one.evaluated, trained + one.val, tower)


def _mask_tuning(one: Cell) -> Count:
    """Student forward and backward; with gradient dropout also a teacher's forward and a second backward pass."""
    steps, trained = one.batches()
    image = one.clip.image
    passes = 2 if one.settings["level"] > 0 else 1
    tower = trained * passes * (image.forward + image.backward(one.settings["targets"]))
    return _tuned(one, steps, trained, tower + _class_texts(one))


def _coop(one: Cell) -> Count:
    """Images forward; in every step the prompts of all classes forward, and backward to the context."""
    steps, trained = one.batches()
    text, length = one.clip.text, one.prompt_tokens
    tower = trained * one.clip.image.forward
    tower += steps * one.classes * (text.forward(length) + text.backward(length))
    tower += sum(classes for _, classes in one.asked) * text.forward(length)
    return _tuned(one, steps, trained, tower)


def _cocoop(one: Cell) -> Count:
    """As CoOp, but prompts depend on the image: all classes for each image, in training and evaluation."""
    steps, trained = one.batches()
    text, length = one.clip.text, one.prompt_tokens
    tower = trained * (one.clip.image.forward + one.classes * (text.forward(length) + text.backward(length)))
    tower += (one.val * one.classes + sum(images * classes for images, classes in one.asked)) * text.forward(length)
    return _tuned(one, steps, trained, tower)


def _clip_lora(one: Cell) -> Count:
    """Both towers forward and backward, all classes in every step; the low-rank terms' own products are not counted.

    The last batch of an epoch is kept, and the last epoch ends where the iterations do.
    """
    steps, _ = one.batches()
    batch = one.settings["batch_size"]
    epochs, rest = divmod(steps, steps_per_epoch(one.train, batch, drop_last=False))
    trained = epochs * one.train + rest * batch
    image, text, length = one.clip.image, one.clip.text, one.prompt_tokens
    tower = trained * (image.forward + image.backward(architectures.FROZEN))
    tower += steps * one.classes * (text.forward(length) + text.backward(length))
    return _tuned(one, steps, trained, tower + _class_texts(one))


def _whole_towers(one: Cell) -> Count:
    """A method on images of which nothing else is known: both towers forward and backward in every step."""
    steps, trained = one.batches()
    image, text = one.clip.image, one.clip.text
    tower = trained * (image.forward + image.backward("all"))
    tower += steps * one.classes * (text.forward(text.tokens) + text.backward(text.tokens, attention=True))
    return _tuned(one, steps, trained, tower + _class_texts(one))


def _classify(one: Cell, images: int) -> float:
    return 2.0 * images * one.clip.embedding * one.classes


def _linear_probe(one: Cell) -> Count:
    """Logits and their gradient in every iteration of L-BFGS, at every value of C."""
    settings = one.settings
    fits = len(settings["sweep"]) + LINEAR_PROBE_FITS + settings["bisection_steps"] - 1
    steps = settings["maximum_iterations"]
    # Steps are those of the fit that is kept, and images count once: a solver has no batches.
    return Count(1, steps, one.train, heads=2 * fits * LINEAR_PROBE_SHARE * steps * _classify(one, one.train))


def _clip_adapter(one: Cell) -> Count:
    """One training per ratio: two small layers forward, three products backward, and the logits forward and back."""
    steps, trained = one.batches(drop_last=False)
    width = one.clip.embedding
    layers = 10.0 * width * (width // one.settings["reduction"])
    steps, trained = (len(one.settings["ratios"]) * count for count in (steps, trained))
    return Count(1, steps, trained, heads=trained * layers + 2 * _classify(one, trained))


def _cache(one: Cell, images: int) -> float:
    """Logits of a cache of all training images."""
    return 2.0 * images * one.train * (one.clip.embedding + one.classes)


def _tip_adapter(one: Cell) -> Count:
    """The search: the cache's logits anew for every beta, a sum of logits for every alpha as well."""
    betas, alphas = one.settings["search_steps"]
    affinities = 2.0 * one.val * one.train * one.clip.embedding
    search = betas * one.val * one.classes * (2.0 * one.train + 2.0 * alphas)
    return Count(1, heads=affinities + search)


def _tip_adapter_f(one: Cell) -> Count:
    """Keys forward and backward, then the search."""
    steps, trained = one.batches(drop_last=False)
    training = 2 * _cache(one, trained) + _classify(one, trained)
    return _tip_adapter(one) + Count(0, steps, trained, heads=training)


def _tip_adapter_f_test_oracle(one: Cell) -> Count:
    """As Tip-Adapter-F, and a look at the test images after every epoch; perhaps the search on them too."""
    test, settings = one.asked[0][0], one.settings
    looks = settings["epochs"] * (_cache(one, test) + _classify(one, test))
    searched = test if settings["search_on"] == "test" else one.val
    return _tip_adapter_f(replace(one, val=searched)) + Count(heads=looks)


def _taskres(one: Cell) -> Count:
    """Logits forward, and backward to the class weights; images get no gradient."""
    steps, trained = one.batches()
    return Count(1, steps, trained, heads=2 * _classify(one, trained))


def _lp_plus_plus(one: Cell) -> Count:
    """Two products of logits forward, one backward to the weights, and both again on the validation images."""
    steps, trained = one.batches()
    return Count(1, steps, trained, heads=steps * (3 * _classify(one, one.train) + 2 * _classify(one, one.val)))


def _head(one: Cell) -> Count:
    """A method on features of which nothing else is known: logits forward, and backward to weights and inputs."""
    steps, trained = one.batches(drop_last=False)
    return Count(1, steps, trained, heads=3 * _classify(one, trained))


IMAGE_METHODS: dict[str, Callable[[Cell], Count]] = {
    "rmt.methods.mask_tuning": _mask_tuning,
    "rmt.methods.coop": _coop,
    "rmt.methods.cocoop": _cocoop,
    "rmt.methods.clip_lora": _clip_lora,
}
FEATURE_METHODS: dict[str, Callable[[Cell], Count]] = {
    "rmt.methods.zero_shot": lambda one: Count(1),
    "rmt.methods.linear_probe": _linear_probe,
    "rmt.methods.clip_adapter": _clip_adapter,
    "rmt.methods.tip_adapter": _tip_adapter,
    "rmt.methods.tip_adapter_f": _tip_adapter_f,
    "rmt.methods.tip_adapter_f_test_oracle": _tip_adapter_f_test_oracle,
    "rmt.methods.taskres": _taskres,
    "rmt.methods.lp_plus_plus": _lp_plus_plus,
}
"""How each method counts, by its module; any other counts as `_whole_towers` or `_head`."""

TEST_FEATURE_METHODS = (
    "rmt.methods.tip_adapter",
    "rmt.methods.tip_adapter_f",
    "rmt.methods.tip_adapter_f_test_oracle",
)
"""Those whose answers cost as much as their cache is large."""


def run(plan: Plan, identity: Identity) -> Count:
    """What one planned run does."""
    one, method = cell(plan, identity), plan.methods[identity.method]
    module = method.entry.module
    if method.entry.needs == "images":
        return IMAGE_METHODS.get(module, _whole_towers)(one)
    found = FEATURE_METHODS.get(module, _head)(one)
    answers = _classify(one, one.evaluated)
    if module in TEST_FEATURE_METHODS:
        answers += _cache(one, one.evaluated)
    found += Count(evaluated=one.evaluated, heads=answers)
    if method.below is None:
        return found
    # On a tuned tower nothing is cached: the run encodes its sample, its views and the test images itself.
    sampled = one.train * (1 + one.views) + one.val
    tower = (sampled + one.evaluated) * one.clip.image.whole + _class_texts(one)
    return found + Count(decoded=sampled + one.val, tower=tower)


def encoding(plan: Plan, backbone: str, dataset: str) -> Count:
    """What `encode` does for one backbone and dataset: test images, sampled images, views, class prompts."""
    classes, *_, test = sizes(plan, dataset)
    sampled, held = sampled_images(plan, dataset)
    clip = architectures.of(BACKBONES[backbone].architecture)
    decoded = sampled * (1 + plan.config["views"]) + held
    tower = (test + decoded) * clip.image.whole + classes * clip.text.forward(clip.text.tokens)
    return Count(1, 0, 0, test + decoded, decoded, tower)


def sampled_images(plan: Plan, dataset: str) -> tuple[int, int]:
    """(training, validation) images that the samples of all shots and seeds hold together, at most."""
    if dataset not in plan.config["datasets"]:
        return 0, 0
    classes, train, val, _ = sizes(plan, dataset)
    drawn = [shots_of(plan, dataset, classes, shots) for shots in plan.config["shots"]]
    seeds = len(plan.config["seeds"])
    return min(train, seeds * sum(one for one, _ in drawn)), min(val or train, seeds * sum(one for _, one in drawn))
