"""Every method and every backbone, on one page. Standard library only: the Snakefile imports it in every job.

A method's entry names the module that implements it, what it needs, and its default hyperparameters with their
source (`rmt.defaults`). The config lists differences only. `LABEL+BELOW` (for example `coop+r_amt`) is a stack: the
method LABEL on what the finished run BELOW of the same cell has tuned, an image tower or prompts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rmt import defaults
from rmt.defaults import Default

Resize = Literal["shortest", "squash"]

Part = Literal["tower", "prompts"]
"""What a method may tune for others to stand on: the image tower, or the prompts of the classes."""


@dataclass(frozen=True)
class Method:
    """One way of adapting CLIP.

    `needs` is what a run reads: cached frozen "features" only, or the "images" and the towers. `transfers` says whether
    it can answer for classes that it was not trained on; `bound_by` names a hyperparameter that, when true, takes that
    away. `offers` is what others may stand on, `stands_on` what it may itself stand on. `oracle` marks a published
    recipe that selects on the test set, which it is shown: its name, and every label it runs under, end in
    `_test_oracle`.
    """

    label: str
    module: str
    needs: Literal["features", "images"]
    citation: str
    defaults: Mapping[str, Default] = field(default_factory=dict)
    few_shot: bool = True
    transfers: bool = False
    bound_by: str | None = None
    offers: Part | None = None
    stands_on: tuple[Part, ...] = ()
    oracle: bool = False

    @property
    def masks(self) -> bool:
        """Whether it masks weights of the image tower."""
        return self.offers == "tower"


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
_COCOOP = "Zhou et al., Conditional Prompt Learning for Vision-Language Models, CVPR 2022"
_CLIP_LORA = "Zanella and Ben Ayed, Low-Rank Few-Shot Adaptation of Vision-Language Models, CVPR Workshops 2024"
_CLIP_ADAPTER = "Gao et al., CLIP-Adapter: Better Vision-Language Models with Feature Adapters, IJCV 2024"
_TIP_ADAPTER = "Zhang et al., Tip-Adapter: Training-Free Adaption of CLIP for Few-shot Classification, ECCV 2022"
_TASKRES = "Yu et al., Task Residual for Tuning Vision-Language Models, CVPR 2023"
_LP_PLUS_PLUS = "Huang et al., LP++: A Surprisingly Strong Linear Probe for Few-Shot CLIP, CVPR 2024"
_LAION = "Schuhmann et al., LAION-5B, NeurIPS Datasets and Benchmarks 2022; Cherti et al., CVPR 2023"
_SIGLIP = "Zhai et al., Sigmoid Loss for Language Image Pre-Training, ICCV 2023"


def _openai(label: str, architecture: str) -> Backbone:
    """OpenAI's weights were trained with QuickGELU; under its plain names open_clip would run them with GELU."""
    return Backbone(f"CLIP {label}", f"{architecture}-quickgelu", "openai", 224, _CLIP)


ORACLE = "_test_oracle"
"""How the label of a recipe ends that selects on the test set, and of no other."""

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


def _mask_tuning(label: str, **changes: Default) -> Method:
    return Method(
        label=label,
        module="rmt.methods.mask_tuning",
        needs="images",
        citation=_MASK_TUNING,
        defaults=defaults.MASK_TUNING | changes,
        transfers=True,
        offers="tower",
        stands_on=("prompts",),
    )


METHODS: dict[str, Method] = {
    "zero_shot": Method(
        label="Zero-shot CLIP",
        module="rmt.methods.zero_shot",
        needs="features",
        citation=_CLIP,
        few_shot=False,
        transfers=True,
    ),
    "linear_probe": Method(
        label="Linear probe",
        module="rmt.methods.linear_probe",
        needs="features",
        citation=_CLIP,
        defaults=defaults.LINEAR_PROBE,
        stands_on=("tower",),
    ),
    "lp_plus_plus": Method(
        label="LP++",
        module="rmt.methods.lp_plus_plus",
        needs="features",
        citation=_LP_PLUS_PLUS,
        defaults=defaults.LP_PLUS_PLUS,
        stands_on=("tower",),
    ),
    "coop": Method(
        label="CoOp",
        module="rmt.methods.coop",
        needs="images",
        citation=_COOP,
        defaults=defaults.COOP,
        transfers=True,
        bound_by="class_specific",
        offers="prompts",
        stands_on=("tower",),
    ),
    "cocoop": Method(
        label="CoCoOp",
        module="rmt.methods.cocoop",
        needs="images",
        citation=_COCOOP,
        defaults=defaults.COCOOP,
        transfers=True,
        stands_on=("tower",),
    ),
    "clip_lora": Method(
        label="CLIP-LoRA",
        module="rmt.methods.clip_lora",
        needs="images",
        citation=_CLIP_LORA,
        defaults=defaults.CLIP_LORA,
        transfers=True,
    ),
    "clip_adapter": Method(
        label="CLIP-Adapter",
        module="rmt.methods.clip_adapter",
        needs="features",
        citation=_CLIP_ADAPTER,
        defaults=defaults.CLIP_ADAPTER,
        transfers=True,
        stands_on=("tower",),
    ),
    "tip_adapter": Method(
        label="Tip-Adapter",
        module="rmt.methods.tip_adapter",
        needs="features",
        citation=_TIP_ADAPTER,
        defaults=defaults.TIP_ADAPTER,
        stands_on=("tower",),
    ),
    "tip_adapter_f": Method(
        label="Tip-Adapter-F",
        module="rmt.methods.tip_adapter_f",
        needs="features",
        citation=_TIP_ADAPTER,
        defaults=defaults.TIP_ADAPTER_F,
        stands_on=("tower",),
    ),
    "tip_adapter_f_test_oracle": Method(
        label="Tip-Adapter-F (selected on test)",
        module="rmt.methods.tip_adapter_f_test_oracle",
        needs="features",
        citation=_TIP_ADAPTER,
        defaults=defaults.TIP_ADAPTER_F_TEST_ORACLE,
        stands_on=("tower",),
        oracle=True,
    ),
    "taskres": Method(
        label="TaskRes",
        module="rmt.methods.taskres",
        needs="features",
        citation=_TASKRES,
        defaults=defaults.TASKRES,
        stands_on=("tower",),
    ),
    "r_amt": _mask_tuning("R-AMT"),
    "r_mmt": _mask_tuning(
        "R-MMT", targets=Default("mlp", "arXiv 2307.15049: masks on the MLPs; the released code cannot run it")
    ),
    "r_pmt": _mask_tuning(
        "R-PMT", targets=Default("all", "arXiv 2307.15049: masks on all weights; released code, MASK_MLP True")
    ),
    "amt": _mask_tuning("AMT (no gradient dropout)", level=Default(0.0, "definition of AMT: no regularity")),
    "r_amt_released": _mask_tuning(
        "R-AMT (released schedule)", minimum_travel=Default(0.0, defaults.RELEASED + ": no floor on the steps")
    ),
}


def display_label(use: str, below: str | None = None) -> str:
    """Name for tables and figures of a registered method, with the registered method below it, if any."""
    if below is None:
        return METHODS[use].label
    if METHODS[below].offers == "prompts":
        return f"{METHODS[use].label} on {METHODS[below].label}'s prompts"
    return f"{METHODS[use].label} + {METHODS[below].label}"
