"""Every method and every backbone, on one page. Standard library only: the Snakefile imports it in every job.

A method's entry names the module that implements it, what it needs, and its default hyperparameters with their
source. The config lists differences only. `LABEL+TOWER` (for example `coop+r_amt`) is a stack: the method LABEL on the
image tower that the finished run TOWER of the same cell has tuned.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Resize = Literal["shortest", "squash"]

Rule = Callable[[str, int], Any]
"""A default that depends on (dataset, shots)."""


@dataclass(frozen=True)
class Default:
    """Default of one hyperparameter: a value or a rule on (dataset, shots), with the source and the unit."""

    value: Any
    source: str

    def resolve(self, dataset: str, shots: int) -> Any:
        """The value for one cell."""
        return self.value(dataset, shots) if callable(self.value) else self.value


@dataclass(frozen=True)
class Method:
    """One way of adapting CLIP.

    `needs` is what a run reads: cached frozen "features" only, or the "images" and the towers. `masks` marks methods
    that tune the image tower, so that others may be stacked on them.
    """

    label: str
    module: str
    needs: Literal["features", "images"]
    citation: str
    defaults: Mapping[str, Default] = field(default_factory=dict)
    few_shot: bool = True
    masks: bool = False


@dataclass(frozen=True)
class Backbone:
    """One CLIP model: open_clip's architecture name, its weights, and the test transform it was trained with.

    `pretrained` is a tag of open_clip's or, for the tiny CLIP, a file of this checkout. `checkpoint` is a user's own
    file; a tag beside it says which weights it descends from, whose mean, deviation and activation then hold.
    `own_towers`: both towers are open_clip's own classes, which masks and learnt contexts reach into; without it only
    methods on cached features run. `resize` is "shortest" (shorter side to `image_pixels`, then centre crop) or
    "squash" (both sides), by bicubic; `rmt.backbones` compares it with what open_clip says.
    """

    label: str
    architecture: str
    pretrained: str | None
    image_pixels: int
    citation: str
    resize: Resize = "shortest"
    own_towers: bool = True
    checkpoint: str | None = None

    @property
    def transform(self) -> str:
        """Name of the test transform, used in paths: `224px` or `224px-squash`."""
        return transform_name(self.image_pixels, self.resize)

    @property
    def weights_file(self) -> str | None:
        """The weights' file, where it is the user's or this checkout's; None where open_clip fetches it."""
        return self.checkpoint or (self.pretrained if "/" in (self.pretrained or "") else None)


def transform_name(pixels: int, resize: str) -> str:
    """Name of a test transform."""
    return f"{pixels}px" if resize == "shortest" else f"{pixels}px-{resize}"


_CLIP = "Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021"
_MASK_TUNING = "Zheng et al., Regularized Mask Tuning, ICCV 2023, arXiv 2307.15049"
_COOP = "Zhou et al., Learning to Prompt for Vision-Language Models, IJCV 2022"
_CLIP_ADAPTER = "Gao et al., CLIP-Adapter: Better Vision-Language Models with Feature Adapters, IJCV 2024"
_TIP_ADAPTER = "Zhang et al., Tip-Adapter: Training-Free Adaption of CLIP for Few-shot Classification, ECCV 2022"
_LAION = "Schuhmann et al., LAION-5B, NeurIPS Datasets and Benchmarks 2022; Cherti et al., CVPR 2023"
_SIGLIP = "Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023"


def _openai(label: str, architecture: str) -> Backbone:
    """OpenAI's weights were trained with QuickGELU; under its plain names open_clip would run them with GELU."""
    return Backbone(f"CLIP {label}", f"{architecture}-quickgelu", "openai", 224, _CLIP)


BACKBONES: dict[str, Backbone] = {
    "tiny_clip": Backbone(
        label="tiny CLIP",
        architecture="tiny_clip",
        pretrained="rmt/weights/tiny_clip.safetensors",
        image_pixels=32,
        citation="trained by `python -m data_prep.demo.pretrain`",
    ),
    "vit_b16": _openai("ViT-B/16", "ViT-B-16"),
    "vit_b32": _openai("ViT-B/32", "ViT-B-32"),
    "vit_l14": _openai("ViT-L/14", "ViT-L-14"),
    "rn50": _openai("RN50", "RN50"),
    "rn101": _openai("RN101", "RN101"),
    "vit_b32_laion2b": Backbone("OpenCLIP ViT-B/32 LAION-2B", "ViT-B-32", "laion2b_s34b_b79k", 224, _LAION),
    "vit_b16_laion2b": Backbone("OpenCLIP ViT-B/16 LAION-2B", "ViT-B-16", "laion2b_s34b_b88k", 224, _LAION),
    "vit_b16_siglip": Backbone(
        "SigLIP ViT-B/16", "ViT-B-16-SigLIP", "webli", 224, _SIGLIP, resize="squash", own_towers=False
    ),
}
SHIPPED = frozenset(BACKBONES)


def add_own_backbone(
    name: str,
    architecture: str,
    checkpoint: str | None = None,
    pretrained: str | None = None,
    pixels: int = 224,
    resize: Resize = "shortest",
) -> None:
    """Add a user's own backbone, a checkpoint or another tag of open_clip's, to this process's `BACKBONES`.

    Raises:
        ValueError: the name is taken, or neither a checkpoint nor a tag is given.
    """
    if name in SHIPPED:
        raise ValueError(f"{name!r} is a registered backbone; choose another name")
    if not (checkpoint or pretrained):
        raise ValueError("name a file as 'checkpoint', or one of open_clip's tags as 'pretrained'")
    citation = "the user's own weights" if checkpoint else f"open_clip, {architecture}, {pretrained}"
    BACKBONES[name] = Backbone(name, architecture, pretrained, pixels, citation, resize=resize, checkpoint=checkpoint)


_RELEASED = "released code, wuw2019/R-AMT configs/trainers (vit_b16.yaml)"


def _mask_learning_rate(dataset: str, shots: int) -> float:
    return 3e-5 if dataset == "imagenet" else 8e-5


def _mask_epochs(dataset: str, shots: int) -> int:
    return 10 if dataset == "imagenet" else 30


def _gradient_dropout_level(dataset: str, shots: int) -> float:
    return 0.3 if shots == 16 and dataset not in ("imagenet", "sun397", "food101") else 1.0


_MASK_DEFAULTS: dict[str, Default] = {
    "targets": Default("attention", _RELEASED + ": MASK_MLP False; patch embedding and attention weights"),
    "initial_score": Default(0.01, _RELEASED),
    "threshold": Default(0.005, _RELEASED),
    "mask_loss_weight": Default(1e-4, _RELEASED + "; times the sum of the L2 norms of the score tensors"),
    "learning_rate": Default(_mask_learning_rate, _RELEASED + "; 3e-5 on ImageNet"),
    "epochs": Default(_mask_epochs, _RELEASED + "; 10 on ImageNet"),
    "batch_size": Default(32, _RELEASED),
    "minimum_travel": Default(
        0.0075,
        "ours: epochs are added until learning rate x sum of the cosine factors reaches this score distance, 1.5 times "
        "the 0.005 between initial score and threshold, so that masks can flip at few shots",
    ),
    "level": Default(
        _gradient_dropout_level, "authors' README: 0.3 at 16 shots but on ImageNet, SUN397 and Food101; otherwise 1.0"
    ),
    "crop_scale": Default((0.5, 1.0), _RELEASED + ": RandomResizedCrop"),
}


def _but(**changes: Default) -> dict[str, Default]:
    return _MASK_DEFAULTS | changes


def _coop_epochs(dataset: str, shots: int) -> int:
    if dataset == "imagenet" or shots < 2:
        return 50
    return 100 if shots < 8 else 200


_COOP_YAML = "KaiyangZhou/CoOp configs/trainers/CoOp (vit_b16*.yaml) and Dassl's defaults"

# (beta, alpha) scales of the search, and alpha during training, per dataset: gaopengcuhk/Tip-Adapter configs/*.yaml.
_TIP_SEARCH = {
    "caltech101": (12.0, 5.0),
    "dtd": (13.0, 13.0),
    "eurosat": (12.0, 10.0),
    "fgvc_aircraft": (30.0, 30.0),
    "food101": (10.0, 10.0),
    "oxford_flowers": (50.0, 50.0),
    "oxford_pets": (7.0, 3.0),
    "stanford_cars": (20.0, 10.0),
    "sun397": (12.0, 10.0),
    "ucf101": (7.0, 3.0),
    "imagenet": (7.0, 3.0),
}
_TIP_ALPHA = {
    "caltech101": 3.0,
    "dtd": 2.0,
    "eurosat": 2.0,
    "fgvc_aircraft": 5.0,
    "oxford_flowers": 10.0,
    "stanford_cars": 3.0,
    "ucf101": 3.0,
}
_TIP_CODE = "gaopengcuhk/Tip-Adapter main.py and configs"


def _tip_search_scale(dataset: str, shots: int) -> tuple[float, float]:
    return _TIP_SEARCH.get(dataset, (7.0, 3.0))


def _tip_initial_alpha(dataset: str, shots: int) -> float:
    return _TIP_ALPHA.get(dataset, 1.17)


def _tip_epochs(dataset: str, shots: int) -> int:
    return 100 if dataset == "eurosat" else 20


_TIP_DEFAULTS: dict[str, Default] = {
    "search_scale": Default(_tip_search_scale, _TIP_CODE + " (beta, alpha), per dataset; others as ImageNet"),
    "search_steps": Default((200, 20), _TIP_CODE + " (beta, alpha)"),
}

METHODS: dict[str, Method] = {
    "zero_shot": Method(
        label="Zero-shot CLIP",
        module="rmt.methods.zero_shot",
        needs="features",
        citation=_CLIP,
        few_shot=False,
    ),
    "linear_probe": Method(
        label="Linear probe",
        module="rmt.methods.linear_probe",
        needs="features",
        citation=_CLIP,
        defaults={
            "maximum_iterations": Default(1000, "KaiyangZhou/CoOp lpclip/linear_probe.py"),
            "sweep": Default((1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6), "KaiyangZhou/CoOp lpclip: values of C on val"),
            "bisection_steps": Default(8, "KaiyangZhou/CoOp lpclip/linear_probe.py"),
        },
    ),
    "coop": Method(
        label="CoOp",
        module="rmt.methods.coop",
        needs="images",
        citation=_COOP,
        defaults={
            "context_vectors": Default(16, _COOP_YAML),
            "initial_context": Default("random", _COOP_YAML + "; 'prompt' starts from the dataset's own prompt"),
            "class_position": Default("end", _COOP_YAML),
            "class_specific": Default(False, _COOP_YAML),
            "learning_rate": Default(0.002, _COOP_YAML),
            "momentum": Default(0.9, _COOP_YAML),
            "weight_decay": Default(5e-4, _COOP_YAML),
            "epochs": Default(_coop_epochs, "CoOp COOP.md: 200 (8, 16 shots), 100 (2, 4), 50 (1 and ImageNet)"),
            "warmup_learning_rate": Default(1e-5, _COOP_YAML + "; first epoch"),
            "batch_size": Default(32, _COOP_YAML),
            "crop_scale": Default((0.08, 1.0), _COOP_YAML),
        },
    ),
    "clip_adapter": Method(
        label="CLIP-Adapter",
        module="rmt.methods.clip_adapter",
        needs="features",
        citation=_CLIP_ADAPTER,
        defaults={
            "reduction": Default(4, "gaopengcuhk/CLIP-Adapter clip_adapter.py"),
            "ratios": Default((0.2, 0.4, 0.6, 0.8), "ours: searched on few-shot val; the released code fixes 0.2"),
            "learning_rate": Default(1e-3, "ours (AdamW): no recipe is published"),
            "weight_decay": Default(0.01, "ours (AdamW): no recipe is published"),
            "epochs": Default(100, "ours: no recipe is published"),
            "batch_size": Default(256, "ours: no recipe is published"),
        },
    ),
    "tip_adapter": Method(
        label="Tip-Adapter",
        module="rmt.methods.tip_adapter",
        needs="features",
        citation=_TIP_ADAPTER,
        defaults=_TIP_DEFAULTS,
    ),
    "tip_adapter_f": Method(
        label="Tip-Adapter-F",
        module="rmt.methods.tip_adapter_f",
        needs="features",
        citation=_TIP_ADAPTER,
        defaults=_TIP_DEFAULTS
        | {
            "initial_beta": Default(1.0, _TIP_CODE),
            "initial_alpha": Default(_tip_initial_alpha, _TIP_CODE + ", per dataset; others as ImageNet"),
            "learning_rate": Default(1e-3, _TIP_CODE + " (AdamW, eps 1e-4)"),
            "adam_epsilon": Default(1e-4, _TIP_CODE),
            "weight_decay": Default(0.01, _TIP_CODE + " (torch's default)"),
            "epochs": Default(_tip_epochs, _TIP_CODE + "; 100 on EuroSAT"),
            "batch_size": Default(256, _TIP_CODE),
        },
    ),
    "r_amt": Method(
        label="R-AMT",
        module="rmt.methods.mask_tuning",
        needs="images",
        citation=_MASK_TUNING,
        defaults=_MASK_DEFAULTS,
        masks=True,
    ),
    "amt": Method(
        label="AMT (no gradient dropout)",
        module="rmt.methods.mask_tuning",
        needs="images",
        citation=_MASK_TUNING,
        defaults=_but(level=Default(0.0, "definition of AMT: no regularity")),
        masks=True,
    ),
    "r_amt_released": Method(
        label="R-AMT (released schedule)",
        module="rmt.methods.mask_tuning",
        needs="images",
        citation=_MASK_TUNING,
        defaults=_but(minimum_travel=Default(0.0, _RELEASED + ": no floor on the steps")),
        masks=True,
    ),
}

STACKABLE = ("coop", "clip_adapter", "tip_adapter", "tip_adapter_f", "linear_probe")
"""Methods that can run on a mask-tuned image tower."""


def display_label(use: str, tower: str | None = None) -> str:
    """Name for tables and figures of a registered method, with the registered mask method below it, if any."""
    return METHODS[use].label if tower is None else f"{METHODS[use].label} + {METHODS[tower].label}"
