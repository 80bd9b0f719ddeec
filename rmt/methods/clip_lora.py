"""CLIP-LoRA (Zanella and Ben Ayed, CVPR Workshops 2024): low-rank terms in the attention of both towers.

In every block, the weight W of the queries, of the keys and of the values becomes

    W x + (alpha / sqrt(r)) B A dropout(x)          A: r x w, B: w x r; dropout in training only, one for each matrix

and A, B are trained by cross-entropy at CLIP's temperature; the text tower reads all class prompts anew at every step.
Facts from the released code (MaxZanella/CLIP-LoRA): rank 2, alpha 1, no terms in the output projection, A
Kaiming-uniform with a = sqrt(5), B zero, AdamW, cosine per step, 500 steps per shot, random crops and mirrored images,
incomplete batches kept, last step. Departures: float32 (theirs: float16 autocast with a gradient scaler); every dataset
has its own prompt as in all other methods (theirs has "a photo of a {}." everywhere, which `template` takes); the text
tower reads up to the last end token only, which causal attention makes exact; in the last block of the image tower only
the class token asks, as in `rmt.towers`. For evaluation the terms are folded into copies of the weights.

The adapter holds A [3, r, w] and (alpha / sqrt(r)) B [3, w, r] for every attention, in the order queries, keys, values:
W + B A is the tuned weight without further settings.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rmt import train
from rmt.data import EpochBatches
from rmt.errors import UserError
from rmt.images import TrainingImages
from rmt.methods import Answer, EvaluationSet, Task, Tuned
from rmt.methods.coop import encode_prompts, reads_the_end_token
from rmt.methods.zero_shot import classify
from rmt.towers import Tower


def _plain(block: nn.Module) -> bool:
    """Whether a block's attention is torch's own, with one weight for queries, keys and values, batch first."""
    attention = getattr(block, "attn", None)
    return (
        isinstance(attention, nn.MultiheadAttention)
        and attention.batch_first
        and attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
    )


def attentions(name: str, model: Any) -> dict[str, nn.MultiheadAttention]:
    """The attention of every block of both towers, by its path in the model; `name` is the backbone's, for errors.

    Raises:
        UserError: a tower is not open_clip's own vision transformer, or not its own causal text transformer.
    """
    found: dict[str, nn.MultiheadAttention] = {}
    for side, tower in (("visual.", model.visual), ("", model)):
        blocks = getattr(getattr(tower, "transformer", None), "resblocks", [])
        own = type(tower).__module__.startswith("open_clip.") and (tower is not model or reads_the_end_token(model))
        if not own or not len(blocks) or not all(map(_plain, blocks)):
            raise UserError(
                f"the {'image' if side else 'text'} tower of {name} ({type(tower).__name__}) has no attention that "
                "low-rank terms could enter: clip_lora needs CLIP's vision and text transformers, as the released code "
                "does; choose another backbone or method"
            )
        found |= {f"{side}transformer.resblocks.{number}.attn": block.attn for number, block in enumerate(blocks)}
    return found


def initial_matrices(
    found: Mapping[str, nn.MultiheadAttention], rank: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """A [3, r, w], drawn, and B [3, w, r], zero, of every attention, as `PATH.A` and `PATH.B`, on the CPU."""
    matrices: dict[str, Tensor] = {}
    for path, attention in found.items():
        drawn = torch.empty(3, rank, attention.embed_dim)
        for one in drawn:
            nn.init.kaiming_uniform_(one, a=math.sqrt(5), generator=generator)
        matrices |= {f"{path}.A": drawn, f"{path}.B": torch.zeros(3, attention.embed_dim, rank)}
    return matrices


class LowRankAttention(nn.Module):
    """A frozen attention with low-rank terms on its queries, keys and values; called like torch's own.

    Dropout acts in train mode only; its draws come from `generator`, which lies on the weights' device.
    """

    def __init__(
        self,
        frozen: nn.MultiheadAttention,
        down: Tensor,
        up: Tensor,
        scaling: float,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        """Wrap an attention of width w; `down` is A [3, r, w], `up` is B [3, w, r]."""
        super().__init__()
        self.frozen, self.down, self.up = frozen, nn.Parameter(down), nn.Parameter(up)
        self.scaling, self.dropout, self.generator = scaling, dropout, generator

    def _low_rank(self, part: int, tokens: Tensor) -> Tensor:
        scaling = self.scaling
        if self.training and self.dropout > 0:
            kept = torch.rand(tokens.shape, generator=self.generator, device=tokens.device) >= self.dropout
            tokens, scaling = tokens * kept, scaling / (1 - self.dropout)
        return scaling * functional.linear(functional.linear(tokens, self.down[part]), self.up[part])

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """Attended tokens [N, Q, w] for what queries [N, Q, w], keys and values [N, K, w] are computed from.

        `attn_mask` [Q, K] is added to the attention's logits.
        """
        frozen, heads = self.frozen, []
        weights, biases = frozen.in_proj_weight.chunk(3), frozen.in_proj_bias.chunk(3)
        for part, tokens in enumerate((query, key, value)):
            projected = functional.linear(tokens, weights[part], biases[part]) + self._low_rank(part, tokens)
            heads.append(projected.unflatten(2, (frozen.num_heads, -1)).transpose(1, 2))
        attended = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=attn_mask)
        return frozen.out_proj(attended.transpose(1, 2).flatten(2)), None


class LowRankTuner(train.Learner):
    """Low-rank terms in a CLIP, and the step that trains them.

    The CLIP is never changed: the terms enter a second set of modules, which shares the frozen tensors.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        tokens: Tensor,
        matrices: Mapping[str, Tensor],
        generator: torch.Generator,
        *,
        logit_scale: float,
        alpha: float = 1.0,
        dropout: float = 0.25,
        **adam: float,
    ) -> None:
        """Put the terms in place.

        Args:
            name: of the backbone, for errors.
            model: frozen CLIP in eval mode.
            tokens: of the class prompts [C, L].
            matrices: A and B of every attention, see `initial_matrices`.
            generator: draws of the dropout, on the model's device.
            logit_scale: factor on cosines.
            alpha: the terms count alpha / sqrt(r).
            dropout: share of the terms' inputs that is dropped in training.
            adam: goes to torch's AdamW.
        """
        self.model = deepcopy(model, {id(one): one for one in chain(model.parameters(), model.buffers())})
        self.attentions: dict[str, LowRankAttention] = {}
        for path, frozen in attentions(name, self.model).items():
            down, up = (matrices[f"{path}.{one}"].to(tokens.device, copy=True) for one in "AB")
            wrapped = LowRankAttention(frozen, down, up, alpha / math.sqrt(down.shape[1]), dropout, generator)
            self.model.get_submodule(path.removesuffix(".attn")).attn = wrapped
            self.attentions[path] = wrapped
        parameters: dict[str, Tensor] = {}
        for path, one in self.attentions.items():
            parameters |= {f"{path}.A": one.down, f"{path}.B": one.up}
        optimiser = torch.optim.AdamW(list(parameters.values()), **adam)  # type: ignore[arg-type]
        super().__init__(parameters, optimiser, generator)
        self.tower, self.logit_scale = Tower(self.model.visual), logit_scale
        self.ends = tokens.argmax(1)
        with torch.no_grad():
            self.embedded = model.token_embedding(tokens).float()

    def use_dropout(self, on: bool) -> None:
        """Switch the dropout, which a new tuner has on; all else stays in eval mode."""
        for one in self.attentions.values():
            one.train(on)

    def logits(self, images: Tensor) -> Tensor:
        """Logits [B, C] of normalised images [B, 3, P, P]."""
        text = functional.normalize(encode_prompts(self.model, self.embedded, self.ends), dim=-1)
        return classify(self.tower(images), text, self.logit_scale)

    def step(self, images: Tensor, labels: Tensor, rate: float | None = None) -> float:
        """One update by the cross-entropy of normalised images [B, 3, P, P]; returns the loss before it."""
        return self.descend(functional.cross_entropy(self.logits(images), labels), rate)

    def adapter(self) -> dict[str, Tensor]:
        """What is stored: A, and B times the scaling, on the CPU."""
        found: dict[str, Tensor] = {}
        for path, one in self.attentions.items():
            found |= {f"{path}.A": one.down.detach().cpu(), f"{path}.B": (one.scaling * one.up).detach().cpu()}
        return found


def fold(clip: Any, adapter: Mapping[str, Tensor]) -> Any:
    """A copy of a CLIP (`rmt.backbones.Clip`) with an adapter's terms in the weights of both towers.

    Raises:
        UserError: the towers are not of the kind that the adapter was trained in.
    """
    tuned = replace(clip, model=deepcopy(clip.model))
    with torch.no_grad():
        for path, attention in attentions(clip.name, tuned.model).items():
            terms = (adapter[f"{path}.B"] @ adapter[f"{path}.A"]).flatten(0, 1)
            attention.in_proj_weight.add_(terms.to(attention.in_proj_weight.device))
    return tuned


def prompt(template: str, settings: Mapping[str, Any]) -> str:
    """The prompt to use on a dataset: its own, or the one that the settings name.

    Raises:
        UserError: the settings name one without a place for the class name.
    """
    chosen = settings["template"]
    if chosen == "dataset":
        return template
    if chosen.count("{}") != 1:
        raise UserError(f"template {chosen!r}: give 'dataset', or a prompt with one {{}} such as 'a photo of a {{}}.'")
    return chosen


def _batches(task: Task, crops: TrainingImages) -> tuple[Callable[[int], Iterator[train.Batch]], int]:
    """(the batches from a step on, images in all of them); the last epoch ends where the iterations do."""
    size, iterations = task.hyperparameters["batch_size"], task.hyperparameters["iterations"]
    seed = task.seed("image batches")
    per_epoch = EpochBatches(len(crops), size, 1, seed, drop_last=False).steps_per_epoch
    whole, rest = divmod(iterations, per_epoch)
    order = EpochBatches(len(crops), size, whole + bool(rest), seed, drop_last=False)
    source = train.image_batches(crops, order, task.workers)
    return lambda start: islice(source(start), iterations - start), whole * len(crops) + rest * size


def tune(task: Task) -> Tuned:
    """Train the low-rank terms for all iterations; the last step is kept."""
    settings, clip = task.hyperparameters, task.clip
    template = prompt(task.template, settings)
    tuner = LowRankTuner(
        clip.name,
        clip.model,
        clip.tokens([template.format(name.replace("_", " ")) for name in task.classes]),
        initial_matrices(attentions(clip.name, clip.model), settings["rank"], task.generator("low-rank matrices")),
        # On the device, because drawing for every token of every block on the CPU would take longer than the step.
        torch.Generator(clip.device).manual_seed(task.seed("low-rank dropout")),
        logit_scale=task.logit_scale,
        alpha=settings["alpha"],
        dropout=settings["dropout"],
        lr=settings["learning_rate"],
        weight_decay=settings["weight_decay"],
    )
    assert task.images is not None
    crops = TrainingImages(
        task.images, task.shots.train, clip.pixels, settings["crop_scale"], task.shots.mirror, task.stream
    )
    source, images_seen = _batches(task, crops)
    last = settings["final_learning_rate"]

    def step(batch: train.Batch) -> train.Row:
        _, pixels, labels = batch
        rate = last + (settings["learning_rate"] - last) * train.cosine(tuner.steps, settings["iterations"])
        return {"loss": tuner.step(clip.normalise(pixels), labels.to(clip.device), rate), "learning_rate": rate}

    curve = train.run(task.progress, tuner, source, step)
    return Tuned(
        adapter=tuner.adapter(),
        curve=curve,
        steps=len(curve),
        trainable_parameters=sum(value.numel() for value in tuner.parameters.values()),
        images_seen=images_seen,
    )


def answer(task: Task, adapter: Mapping[str, Tensor], chosen: Mapping[str, Any]) -> Answer:
    """CLIP's logits with the terms folded into copies of both towers; any classes will do."""
    tuned = fold(task.clip, adapter)

    def logits(images: EvaluationSet) -> Tensor:
        text = tuned.text_features(images.classes, prompt(images.template, task.hyperparameters))
        return classify(tuned.encode_images(images.pixels), text, task.logit_scale)

    return logits
