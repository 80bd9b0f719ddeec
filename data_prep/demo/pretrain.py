"""Trains the demo's tiny CLIP from nothing on the drawn world and writes its weights in half precision.

    python -m data_prep.demo.pretrain --output rmt/weights/tiny_clip.safetensors

The repository ships the result, so nobody has to run this. With the same versions, two threads and the same kind
of processor the file is equal to the bit; where a sum is rounded differently, a run ends in other weights of the
same quality (zero-shot accuracy on the six sets moved by up to 3 points).

The model is open_clip's own CLIP class with the architecture of rmt/weights/tiny_clip.json. While training,
the vocabulary is restricted to the byte-pair ids that the captions use, renumbered in ascending order:
end-of-text keeps the largest id, by which open_clip finds the token to pool. The context is as long as the
longest caption, and each distinct caption of a batch is encoded once.

File format (safetensors): open_clip's state-dict names in float16, `logit_scale` in float32,
`token_embedding.weight` with the used rows only and `token_ids` (int32) with their byte-pair ids,
`positional_embedding` with the trained positions only. The metadata are JSON values.
"""

import argparse
import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Generator, Tensor, nn
from tqdm import tqdm

from data_prep.demo import world

# The tokenizer and the model live in open_clip, whose import of torchvision may need the remedy first.
# isort: split
import rmt.torchvision_import  # noqa: F401

# isort: split
from open_clip import CLIP
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.tokenizer import SimpleTokenizer

MODEL_CONFIG = Path(__file__).parents[2] / "rmt" / "weights" / "tiny_clip.json"
RECIPE = "digits .22, letters .28, shapes .26, textures .24; batches of 128; AdamW, one cycle to 2e-3"

STEPS = 2800
BATCH_SIZE = 128
PEAK_LEARNING_RATE = 2e-3
WARM_UP_SHARE = 0.08
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.98)
LARGEST_LOGIT_SCALE = 100.0
EXCLUDED_LOGIT = -1e4

HELD_OUT_IMAGES = 2000
# Far from any training seed a user would pass, so that held-out images are never training images.
HELD_OUT_SEED = 900_000_001
PROMPTS = {
    "digit": "a photo of the digit {}.",
    "letter": "a photo of the letter {}.",
    "shape": "a photo of a {}.",
    "texture": "a {} texture.",
    "colour": "a photo of a {} shape.",
}


def restricted_vocabulary() -> tuple[Tensor, Tensor]:
    """Return the byte-pair ids of the world's captions and the captions in that vocabulary.

    Returns:
        token_ids int64 [82], ascending (0, the padding, first; end-of-text last), and tokens int64 [354, 10]:
        the captions in the order of world.captions(), as indices into token_ids.
    """
    tokens = SimpleTokenizer()([caption.text for caption in world.captions()])
    tokens = tokens[:, : int((tokens != 0).sum(1).max())]
    token_ids, renumbered = torch.unique(tokens, sorted=True, return_inverse=True)
    return token_ids, renumbered


def true_captions(batch: world.Batch) -> Tensor:
    """Return bool [B, 354]: whether each caption is true of each image, from the attributes of both."""
    table = world.captions()
    kinds = torch.tensor([caption.kind for caption in table])
    labels = torch.tensor([caption.label for caption in table])
    colours = torch.tensor([caption.colour for caption in table])
    same_label = (labels == batch.labels[:, None]) | (labels == -1)
    same_colour = (colours == batch.colours[:, None]) | (colours == -1)
    return (kinds == batch.kinds[:, None]) & same_label & same_colour


def contrastive_loss(logits: Tensor, own: Tensor, true: Tensor) -> Tensor:
    """Symmetric cross-entropy between images and the distinct captions of a batch.

    A caption that is true of an image without being its own is neither target nor negative: its logit is
    excluded in both directions. A caption's target is spread evenly over the images that carry it.

    Args:
        logits: float [B, U], scaled similarities of images and distinct captions.
        own: int64 [B], the column of each image's own caption; every column occurs.
        true: bool [B, U], whether the caption is true of the image.

    Returns:
        The mean of both directions, a scalar in nats.
    """
    carries = F.one_hot(own, logits.shape[1]).bool()
    logits = logits.masked_fill(true & ~carries, EXCLUDED_LOGIT)
    image_to_text = F.cross_entropy(logits, own)
    target = carries.float() / carries.sum(0)
    text_to_image = -(target * logits.log_softmax(0)).sum(0).mean()
    return (image_to_text + text_to_image) / 2


def normalise(images: Tensor) -> Tensor:
    """Return images [B, 3, H, W], 0..255, as the model takes them: OpenAI's mean and standard deviation."""
    mean = torch.tensor(OPENAI_DATASET_MEAN)[:, None, None]
    deviation = torch.tensor(OPENAI_DATASET_STD)[:, None, None]
    return (images / 255 - mean) / deviation


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return AdamW's two groups: matrices with weight decay; embeddings, biases, norms and scale without."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim >= 2 and "embedding" not in name
        (decayed if is_matrix else free).append(parameter)
    return [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": free, "weight_decay": 0.0}]


def train(steps: int, seed: int, batch_size: int = BATCH_SIZE) -> tuple[CLIP, list[float]]:
    """Train the tiny CLIP on fresh images of the world, with a progress bar.

    Returns:
        The model (restricted vocabulary, context of 10 tokens) in evaluation mode, and the losses in nats.
    """
    torch.manual_seed(seed)
    generator = Generator().manual_seed(seed)
    token_ids, tokens = restricted_vocabulary()
    config = json.loads(MODEL_CONFIG.read_text())
    config["text_cfg"] |= {"vocab_size": len(token_ids), "context_length": tokens.shape[1]}
    model = CLIP(**config)
    optimiser = torch.optim.AdamW(parameter_groups(model), lr=PEAK_LEARNING_RATE, betas=BETAS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, PEAK_LEARNING_RATE, total_steps=steps, pct_start=WARM_UP_SHARE, cycle_momentum=False
    )
    losses: list[float] = []
    with tqdm(total=steps, unit="step", desc="pre-training", mininterval=1) as bar:
        for _ in range(steps):
            batch = world.sample_batch(batch_size, generator)
            distinct, own = batch.captions.unique(return_inverse=True)
            image_features = model.encode_image(normalise(batch.images), normalize=True)
            text_features = model.encode_text(tokens[distinct], normalize=True)
            logits = model.logit_scale.exp() * image_features @ text_features.T
            loss = contrastive_loss(logits, own, true_captions(batch)[:, distinct])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(LARGEST_LOGIT_SCALE))
            losses.append(loss.item())
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            bar.update()
    return model.eval(), losses


@torch.no_grad()
def held_out_accuracy(model: CLIP, images: int = HELD_OUT_IMAGES) -> dict[str, float]:
    """Return zero-shot accuracy (percent) per kind on fresh images of the world, with the demo's own prompts.

    Shapes count twice: by shape among the ten, and (key "colour") by colour among the eight.
    """
    tokens = restricted_vocabulary()[1]
    batch = world.sample_batch(images, Generator().manual_seed(HELD_OUT_SEED))
    image_features = torch.cat([model.encode_image(normalise(part)) for part in batch.images.split(256)])
    classes = {**world.CLASSES, "colour": world.COLOURS}
    accuracy = {}
    for kind, words in classes.items():
        prompts = torch.tensor([world.caption_indices()[PROMPTS[kind].format(word)] for word in words])
        text_features = model.encode_text(tokens[prompts], normalize=True)
        rows = batch.kinds == world.KINDS.index("shape" if kind == "colour" else kind)
        labels = (batch.colours if kind == "colour" else batch.labels)[rows]
        predictions = (image_features[rows] @ text_features.T).argmax(1)
        accuracy[kind] = 100 * (predictions == labels).float().mean().item()
    return accuracy


def save_checkpoint(model: CLIP, path: Path, metadata: dict[str, Any]) -> None:
    """Write the model atomically in the format described at the top of this module.

    Args:
        model: as train() returns it.
        metadata: JSON-serialisable values.

    Raises:
        OSError: the folder cannot be written; a file already at `path` is then left as it was.
    """
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    tensors["logit_scale"] = model.logit_scale.detach().float()
    tensors["token_ids"] = restricted_vocabulary()[0].int()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        save_file(tensors, temporary, {key: json.dumps(value) for key, value in metadata.items()})
        # safetensors leaves the file readable by its owner alone.
        temporary.chmod(0o644)
        os.replace(temporary, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, report held-out accuracy and write the checkpoint; arguments default to the command line's."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.demo.pretrain",
        description="Train the demo's tiny CLIP on the drawn world.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of 128 images")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and images")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    model, _ = train(options.steps, options.seed)
    metadata = {"recipe": RECIPE, "steps": options.steps, "seed": options.seed, "torch": torch.__version__}
    save_checkpoint(model, options.output, metadata)
    accuracy = held_out_accuracy(model)
    report = ", ".join(f"{kind} {value:.1f}" for kind, value in accuracy.items())
    print(f"{options.output}: {options.output.stat().st_size:,} bytes; in-world accuracy (%): {report}")


if __name__ == "__main__":
    main()
