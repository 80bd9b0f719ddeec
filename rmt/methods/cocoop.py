"""CoCoOp (Zhou et al., CVPR 2022): a learnt context that every image shifts, so that prompts fit images of new classes.

For an image with feature f, and h = meta-net(f / |f|) = U relu(D f / |f| + d) + u,

    logit_c = scale * cos(f, text tower(start, v_1 + h, ..., v_M + h, name of c, suffix, end))

and v, D, d, U, u are trained by cross-entropy. As KaiyangZhou/CoOp trainers/cocoop.py (MIT) and Dassl: batches of one
image, SGD with momentum and weight decay, cosine per epoch after one epoch of warm-up, random crops and mirrored
images, last epoch; torch's default initialisation of the meta-net; the context starts from "a photo of a" on every
dataset, a full stop behind the class name. Departures: float32 (theirs: float16, optimiser included); the text tower
reads up to the last end token only, which causal attention makes exact, and at evaluation takes the prompts of several
images in one pass; `initial_context` also offers CoOp's "random", and "prompt", the dataset's own prompt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rmt import train
from rmt.methods import Answer, EvaluationSet, Task, Tuned
from rmt.methods.coop import (
    assemble,
    check_text_tower,
    encode_prompts,
    initial_context,
    prompt_tokens,
    suffix_of,
    train_on_crops,
)

LOGITS = (
    "logits = logit_scale * sum(n(f)[:, None] * n(t), axis=2), where t[i, c] are the text tower's features of the "
    "prompt [start, context + h[i], name of class c, suffix, end] as embedded tokens, and "
    "h = relu(n(f) @ down.weight.T + down.bias) @ up.weight.T + up.bias"
)

TOKENS_PER_PASS = 1 << 15
"""Tokens (images x classes x length) that one pass of the text tower takes at evaluation, or those of one image."""


def initial_meta_net(features: int, width: int, reduction: int, seed: int) -> dict[str, Tensor]:
    """Weights of Linear(features, features / reduction) and Linear(features / reduction, width) as torch draws them."""
    hidden = features // reduction
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        down, up = nn.Linear(features, hidden), nn.Linear(hidden, width)
    return {
        f"{name}.{part}": value.detach()
        for name, layer in (("down", down), ("up", up))
        for part, value in layer.named_parameters()
    }


def shift(parameters: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """What the meta-net adds to every context vector, [N, w], for L2-normalised image features [N, d]."""
    hidden = functional.relu(functional.linear(features, parameters["down.weight"], parameters["down.bias"]))
    return functional.linear(hidden, parameters["up.weight"], parameters["up.bias"])


class Prompts:
    """The prompts of some classes in a frozen CLIP, with places for a context."""

    def __init__(self, model: Any, tokens: Tensor, name_lengths: Sequence[int], logit_scale: float) -> None:
        """Embed the prompts; `tokens` [C, L] hold M placeholders after the start token."""
        self.model, self.name_lengths, self.logit_scale = model, name_lengths, logit_scale
        self.ends = tokens.argmax(1)
        with torch.no_grad():
            # Cut here and not in the text tower only, because every image gets a copy.
            self.embedded = model.token_embedding(tokens[:, : int(self.ends.max()) + 1]).float()

    @property
    def images_per_pass(self) -> int:
        """Images whose prompts the text tower reads at once."""
        return max(1, TOKENS_PER_PASS // self.embedded[..., 0].numel())

    def text_features(self, parameters: Mapping[str, Tensor], features: Tensor) -> Tensor:
        """Class text features [N, C, d], not normalised, for L2-normalised image features [N, d]."""
        images, classes = len(features), len(self.embedded)
        contexts = parameters["context"] + shift(parameters, features)[:, None]
        prompts = assemble(
            self.embedded.repeat(images, 1, 1),
            contexts.repeat_interleave(classes, dim=0),
            list(self.name_lengths) * images,
            "end",
        )
        return encode_prompts(self.model, prompts, self.ends.repeat(images)).view(images, classes, -1)

    def logits(self, parameters: Mapping[str, Tensor], features: Tensor) -> Tensor:
        """Logits [N, C] of image features [N, d], not normalised."""
        features = functional.normalize(features, dim=-1)
        text = functional.normalize(self.text_features(parameters, features), dim=-1)
        return self.logit_scale * (text @ features[:, :, None]).squeeze(2)


class ConditionalTuner(train.Learner):
    """Context vectors and meta-net before a frozen CLIP, and the step that trains them."""

    def __init__(self, prompts: Prompts, parameters: Mapping[str, Tensor], **sgd: float) -> None:
        """Prepare SGD; `parameters` are "context" [M, w] and the meta-net's, `sgd` goes to torch's SGD."""
        self.prompts = prompts
        learnt = {name: value.clone().requires_grad_() for name, value in parameters.items()}
        super().__init__(learnt, torch.optim.SGD(list(learnt.values()), **sgd))  # type: ignore[arg-type]

    def logits(self, features: Tensor) -> Tensor:
        """Logits [N, C] of image features [N, d]."""
        return self.prompts.logits(self.parameters, features)

    def step(self, features: Tensor, labels: Tensor) -> float:
        """One update by the cross-entropy of image features [B, d]; returns the loss before it."""
        return self.descend(functional.cross_entropy(self.logits(features), labels))


def initial_parameters(task: Task) -> dict[str, Tensor]:
    """Context [M, w] and meta-net at the start of tuning."""
    settings, clip = task.hyperparameters, task.clip
    context = initial_context(task)
    meta_net = initial_meta_net(
        clip.visual.output_dim, context.shape[1], settings["reduction"], task.seed("cocoop meta-net")
    )
    return {"context": context} | {name: value.to(clip.device) for name, value in meta_net.items()}


def prepared(task: Task, classes: Sequence[str], template: str, vectors: int) -> Prompts:
    """The prompts of some classes with places for a number of context vectors."""
    tokens, lengths = prompt_tokens(task.clip, classes, vectors, suffix_of(template, task.hyperparameters))
    return Prompts(task.clip.model, tokens, lengths, task.logit_scale)


def tune(task: Task) -> Tuned:
    """Train context and meta-net for all epochs; the last step is kept."""
    settings, clip = task.hyperparameters, task.clip
    check_text_tower(clip.name, clip.model)
    parameters = initial_parameters(task)
    tuner = ConditionalTuner(
        prepared(task, task.classes, task.template, len(parameters["context"])),
        parameters,
        lr=settings["learning_rate"],
        momentum=settings["momentum"],
        weight_decay=settings["weight_decay"],
    )
    curve, images_seen = train_on_crops(task, tuner)
    return Tuned(
        adapter={name: value.detach().cpu() for name, value in tuner.parameters.items()},
        curve=curve,
        steps=len(curve),
        trainable_parameters=sum(value.numel() for value in tuner.parameters.values()),
        images_seen=images_seen,
    )


def answer(task: Task, adapter: Mapping[str, Tensor], chosen: Mapping[str, Any]) -> Answer:
    """CLIP's logits with the context that each image makes for itself; any classes will do."""
    parameters = {name: value.to(task.clip.device) for name, value in adapter.items()}

    @torch.no_grad()
    def logits(images: EvaluationSet) -> Tensor:
        prompts = prepared(task, images.classes, images.template, len(parameters["context"]))
        parts = images.features.to(task.clip.device).split(prompts.images_per_pass)
        return torch.cat([prompts.logits(parameters, part) for part in parts])

    return logits
