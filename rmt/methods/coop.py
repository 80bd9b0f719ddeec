"""CoOp (Zhou et al., IJCV 2022): learnt context vectors in front of, around, or behind every class name.

Prompt = start, context v_1..v_M, class name, suffix, end; the text tower turns the C prompts into class features, and
only the context is trained, by cross-entropy at CLIP's temperature. As KaiyangZhou/CoOp trainers/coop.py and Dassl: SGD
with momentum and weight decay, cosine per epoch after one epoch of warm-up, random crops and mirrored images, last
epoch. Departures: float32 (their default on a GPU is float16, context and optimiser included); the text tower reads up
to the last end token only, which causal attention makes exact; `initial_context: prompt` starts from the words of the
dataset's own prompt and keeps its suffix (theirs starts from given words, which `initial_context` takes as well).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rmt import train
from rmt.data import EpochBatches
from rmt.errors import UserError
from rmt.images import TrainingImages
from rmt.methods import Answer, EncodeText, EvaluationSet, Foundation, Task, Tuned
from rmt.methods.zero_shot import classify

PLACEHOLDER = "X"
LOGITS = "logits = logit_scale * n(f) @ text.T, where text are the features of the learnt prompts"


def assemble(embedded: Tensor, context: Tensor, name_lengths: Sequence[int], position: str) -> Tensor:
    """Prompt embeddings [C, L, w] with the context put in its place.

    Args:
        embedded: embeddings of `start, M placeholders, name, suffix, end, padding` [C, L, w].
        context: shared [M, w] or class-specific [C, M, w].
        name_lengths: tokens of every class name.
        position: where the class name stands: "end", "middle" or "front" of the context.
    """
    classes, _, width = embedded.shape
    context = context.expand(classes, -1, width) if context.dim() == 2 else context
    count = context.shape[1]
    start, rest = embedded[:, :1], embedded[:, 1 + count :]
    if position == "end":
        return torch.cat([start, context, rest], dim=1)
    before = {"middle": count // 2, "front": 0}[position]
    rows = []
    for row, length in enumerate(name_lengths):
        parts = [start[row], context[row, :before], rest[row, :length], context[row, before:], rest[row, length:]]
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def encode_prompts(model: Any, embedded: Tensor, ends: Tensor) -> Tensor:
    """Text features [C, d], not normalised, of prompt embeddings [C, L, w] whose end tokens stand at `ends` [C].

    Attention is causal, so tokens behind an end token change nothing and are left out.
    """
    length = int(ends.max()) + 1
    hidden = embedded[:, :length] + model.positional_embedding[:length]
    hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
    hidden = model.ln_final(hidden)[torch.arange(len(ends)), ends]
    project = model.text_projection
    return project(hidden) if isinstance(project, nn.Linear) else hidden @ project


def reads_the_end_token(model: Any) -> bool:
    """Whether a CLIP's text tower is open_clip's own, causal, and read at the end token, as `encode_prompts` is."""
    parts = ("token_embedding", "positional_embedding", "transformer", "attn_mask", "ln_final", "text_projection")
    own = all(getattr(model, part, None) is not None for part in parts)
    return own and getattr(model, "text_pool_type", "argmax") == "argmax"


def check_text_tower(name: str, model: Any) -> None:
    """Refuse a text tower that contexts cannot be put into.

    Raises:
        UserError: the tower is not causal, or not read at the end token, or not open_clip's own.
    """
    if not reads_the_end_token(model):
        raise UserError(
            f"the text tower of {name} ({type(model).__name__}) is not the causal one of CLIP, so contexts cannot be "
            "put into it; choose another backbone or method"
        )


def prompt_tokens(clip: Any, classes: Sequence[str], count: int, suffix: str) -> tuple[Tensor, list[int]]:
    """(token ids [C, L] with `count` placeholders after the start token, tokens of every class name).

    Raises:
        UserError: the prompt of a class does not fit the text tower.
    """
    names = [name.replace("_", " ") for name in classes]
    lengths = [len(clip.tokenizer.encode(name)) for name in names]
    room = clip.model.positional_embedding.shape[0]
    if max(lengths) + count + 3 > room:
        raise UserError(
            f"{count} context vectors and the longest class name do not fit the {room} positions of "
            f"{clip.name}'s text tower; set context_vectors lower or initial_context to 'prompt'"
        )
    tokens = clip.tokenizer([" ".join([PLACEHOLDER] * count + [name]) + suffix for name in names])
    return tokens.to(clip.device), lengths


def initial_context(task: Task) -> Tensor:
    """Context vectors [M, w], or [C, M, w] if they are class-specific, at the start of tuning.

    `initial_context` is "random", "prompt" (the words before the class name in the dataset's own prompt), or the words
    themselves, such as "a photo of a"; words bring their own number of vectors.

    Raises:
        UserError: there are no words before the class name, so nothing would be trained; or `initial_context` is one
            word, which is more likely a slip than a prompt.
    """
    settings, clip = task.hyperparameters, task.clip
    chosen = settings["initial_context"]
    if chosen == "random":
        width = clip.model.token_embedding.weight.shape[1]
        generator = task.generator("coop context")
        context = 0.02 * torch.randn(settings["context_vectors"], width, generator=generator)
    else:
        if chosen != "prompt" and " " not in chosen.strip():
            raise UserError(f"initial_context {chosen!r}: give 'random', 'prompt' or words such as 'a photo of a'")
        words = (task.template if chosen == "prompt" else chosen).partition("{}")[0]
        count = len(clip.tokenizer.encode(words))
        if not count:
            raise UserError(
                f"the prompt {task.template!r} has no words before the class name for a context to start from; set "
                "initial_context to 'random' or to words such as 'a photo of a'"
            )
        prompts = [task.template.format(name.replace("_", " ")) for name in task.classes]
        start = clip.tokens(prompts if chosen == "prompt" else [words])
        with torch.no_grad():
            context = clip.model.token_embedding(start[0, 1 : 1 + count]).float()
    if settings.get("class_specific", False):
        context = context.repeat(len(task.classes), 1, 1)
    return context.to(clip.device)


def suffix_of(template: str, settings: Mapping[str, Any]) -> str:
    """What follows the class name: that of the dataset's prompt if the context started from it, else a full stop."""
    return template.partition("{}")[2] if settings["initial_context"] == "prompt" else "."


class PromptTuner(train.Learner):
    """Context vectors before a frozen CLIP, and the step that trains them."""

    def __init__(
        self, model: Any, tokens: Tensor, name_lengths: Sequence[int], context: Tensor, position: str, **sgd: float
    ) -> None:
        """Prepare the prompts; `tokens` [C, L] hold M placeholders after the start token, `sgd` goes to torch's SGD."""
        self.model, self.name_lengths, self.position = model, name_lengths, position
        with torch.no_grad():
            self.embedded = model.token_embedding(tokens).float()
        self.ends = tokens.argmax(1)
        self.context = context.clone().requires_grad_()
        super().__init__({"context": self.context}, torch.optim.SGD([self.context], **sgd))  # type: ignore[arg-type]
        self.logit_scale = float(model.logit_scale.exp())

    def text_features(self) -> Tensor:
        """Class text features [C, d] of the present context, not normalised."""
        prompts = assemble(self.embedded, self.context, self.name_lengths, self.position)
        return encode_prompts(self.model, prompts, self.ends)

    def logits(self, features: Tensor) -> Tensor:
        """Logits [N, C] of image features [N, d]."""
        text = functional.normalize(self.text_features(), dim=-1)
        return self.logit_scale * functional.normalize(features, dim=-1) @ text.T

    def step(self, features: Tensor, labels: Tensor) -> float:
        """One update of the context by the cross-entropy of image features [B, d]; returns the loss before it."""
        return self.descend(functional.cross_entropy(self.logits(features), labels))


def train_on_crops(task: Task, tuner: Any) -> tuple[list[train.Row], int]:
    """All epochs of a learner on features of random crops, by Dassl's schedule; returns (curve, images seen).

    `tuner` is a `train.Learner` whose `step(features, labels)` returns the loss before the update.
    """
    settings, clip = task.hyperparameters, task.clip
    assert task.images is not None
    crops = TrainingImages(
        task.images, task.shots.train, clip.pixels, settings["crop_scale"], task.shots.mirror, task.stream
    )
    epochs = settings["epochs"]
    order = EpochBatches(len(crops), settings["batch_size"], epochs, task.seed("image batches"))

    def step(batch: train.Batch) -> train.Row:
        epoch, pixels, labels = batch
        rate = train.warmup_cosine(epoch, epochs, settings["learning_rate"], settings["warmup_learning_rate"])
        train.set_rate(tuner.optimiser, rate)
        return {"loss": tuner.step(clip.features(pixels), labels.to(clip.device)), "learning_rate": rate}

    curve = train.run(task.progress, tuner, train.image_batches(crops, order, task.workers), step)
    return curve, len(curve) * min(settings["batch_size"], len(crops))


def tune(task: Task) -> Tuned:
    """Train the context for all epochs; the last step is kept."""
    settings, clip = task.hyperparameters, task.clip
    check_text_tower(clip.name, clip.model)
    context = initial_context(task)
    tokens, lengths = prompt_tokens(clip, task.classes, context.shape[-2], suffix_of(task.template, settings))
    tuner = PromptTuner(
        clip.model,
        tokens,
        lengths,
        context,
        settings["class_position"],
        lr=settings["learning_rate"],
        momentum=settings["momentum"],
        weight_decay=settings["weight_decay"],
    )
    curve, images_seen = train_on_crops(task, tuner)
    return Tuned(
        adapter={"context": tuner.context.detach().cpu()},
        curve=curve,
        steps=len(curve),
        trainable_parameters=tuner.context.numel(),
        images_seen=images_seen,
    )


def text_encoder(clip: Any, context: Tensor, settings: Mapping[str, Any]) -> EncodeText:
    """The text side with a learnt context [M, w] or [C, M, w] in place of the words before the class name."""

    @torch.no_grad()
    def encode(classes: Sequence[str], template: str) -> Tensor:
        tokens, lengths = prompt_tokens(clip, classes, context.shape[-2], suffix_of(template, settings))
        embedded = clip.model.token_embedding(tokens).float()
        prompts = assemble(embedded, context.to(clip.device), lengths, settings["class_position"])
        return encode_prompts(clip.model, prompts, tokens.argmax(1)).cpu()

    return encode


def answer(task: Task, adapter: Mapping[str, Tensor], chosen: Mapping[str, Any]) -> Answer:
    """CLIP's logits with the learnt context; any classes will do, unless the context is class-specific."""
    encode = text_encoder(task.clip, adapter["context"], task.hyperparameters)

    def logits(images: EvaluationSet) -> Tensor:
        text = functional.normalize(encode(images.classes, images.template), dim=-1)
        return classify(images.features, text, task.logit_scale)

    return logits


def stand_on(clip: Any, adapter: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Foundation:
    """The frozen towers with the learnt prompts."""
    return Foundation(clip, text_encoder(clip, adapter["context"], settings))
