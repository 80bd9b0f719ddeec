"""Default hyperparameters of every method, with their source. Standard library only, like `registry`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


RELEASED = "released code, wuw2019/R-AMT configs/trainers (vit_b16.yaml)"


def _mask_learning_rate(dataset: str, shots: int) -> float:
    return 3e-5 if dataset == "imagenet" else 8e-5


def _mask_epochs(dataset: str, shots: int) -> int:
    return 10 if dataset == "imagenet" else 30


def _gradient_dropout_level(dataset: str, shots: int) -> float:
    return 0.3 if shots == 16 and dataset not in ("imagenet", "sun397", "food101") else 1.0


MASK_TUNING: dict[str, Default] = {
    "targets": Default("attention", RELEASED + ": MASK_MLP False; patch embedding and attention weights"),
    "initial_score": Default(0.01, RELEASED),
    "threshold": Default(0.005, RELEASED),
    "mask_loss_weight": Default(1e-4, RELEASED + "; times the sum of the L2 norms of the score tensors"),
    "learning_rate": Default(_mask_learning_rate, RELEASED + "; 3e-5 on ImageNet"),
    "epochs": Default(_mask_epochs, RELEASED + "; 10 on ImageNet"),
    "batch_size": Default(32, RELEASED),
    "minimum_travel": Default(
        0.0075,
        "ours: epochs are added until learning rate x sum of the cosine factors reaches this score distance, 1.5 times "
        "the 0.005 between initial score and threshold, so that masks can flip at few shots",
    ),
    "level": Default(
        _gradient_dropout_level, "authors' README: 0.3 at 16 shots but on ImageNet, SUN397 and Food101; otherwise 1.0"
    ),
    "crop_scale": Default((0.5, 1.0), RELEASED + ": RandomResizedCrop"),
}


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


TIP_ADAPTER: dict[str, Default] = {
    "search_scale": Default(_tip_search_scale, _TIP_CODE + " (beta, alpha), per dataset; others as ImageNet"),
    "search_steps": Default((200, 20), _TIP_CODE + " (beta, alpha)"),
}

LINEAR_PROBE: dict[str, Default] = {
    "maximum_iterations": Default(1000, "KaiyangZhou/CoOp lpclip/linear_probe.py"),
    "sweep": Default((1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6), "KaiyangZhou/CoOp lpclip: values of C on val"),
    "bisection_steps": Default(8, "KaiyangZhou/CoOp lpclip/linear_probe.py"),
}

COOP: dict[str, Default] = {
    "context_vectors": Default(16, _COOP_YAML),
    "initial_context": Default("random", _COOP_YAML + "; 'prompt': the dataset's own prompt; or words"),
    "class_position": Default("end", _COOP_YAML),
    "class_specific": Default(False, _COOP_YAML),
    "learning_rate": Default(0.002, _COOP_YAML),
    "momentum": Default(0.9, _COOP_YAML),
    "weight_decay": Default(5e-4, _COOP_YAML),
    "epochs": Default(_coop_epochs, "CoOp COOP.md: 200 (8, 16 shots), 100 (2, 4), 50 (1 and ImageNet)"),
    "warmup_learning_rate": Default(1e-5, _COOP_YAML + "; first epoch"),
    "batch_size": Default(32, _COOP_YAML),
    "crop_scale": Default((0.08, 1.0), _COOP_YAML),
}

_COCOOP_YAML = "KaiyangZhou/CoOp configs/trainers/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1.yaml and Dassl's defaults"

COCOOP: dict[str, Default] = {
    "initial_context": Default("a photo of a", _COCOOP_YAML + "; 'prompt': the dataset's own prompt; or 'random'"),
    "context_vectors": Default(4, _COCOOP_YAML + "; read where initial_context is 'random'"),
    "reduction": Default(16, "KaiyangZhou/CoOp trainers/cocoop.py: features per hidden unit of the meta-net"),
    "learning_rate": Default(0.002, _COCOOP_YAML),
    "momentum": Default(0.9, _COCOOP_YAML),
    "weight_decay": Default(5e-4, _COCOOP_YAML),
    "epochs": Default(10, _COCOOP_YAML),
    "warmup_learning_rate": Default(1e-5, _COCOOP_YAML + "; first epoch"),
    "batch_size": Default(1, _COCOOP_YAML),
    "crop_scale": Default((0.08, 1.0), _COCOOP_YAML),
}

_LORA_CODE = "released code, MaxZanella/CLIP-LoRA run_utils.py and lora.py"


def _lora_iterations(dataset: str, shots: int) -> int:
    return 500 * shots


CLIP_LORA: dict[str, Default] = {
    "rank": Default(2, _LORA_CODE),
    "alpha": Default(1.0, _LORA_CODE + "; the terms count alpha / sqrt(rank)"),
    "dropout": Default(0.25, _LORA_CODE + "; on what the low-rank terms read"),
    "template": Default(
        "dataset", "ours: the dataset's own prompt, as all methods; the released code has 'a photo of a {}.' everywhere"
    ),
    "learning_rate": Default(2e-4, _LORA_CODE + " (AdamW)"),
    "final_learning_rate": Default(1e-6, _LORA_CODE + ": cosine per step"),
    "weight_decay": Default(0.01, _LORA_CODE),
    "iterations": Default(_lora_iterations, _LORA_CODE + ": 500 times shots"),
    "batch_size": Default(32, _LORA_CODE),
    "crop_scale": Default((0.08, 1.0), "released code, MaxZanella/CLIP-LoRA main.py"),
}

CLIP_ADAPTER: dict[str, Default] = {
    "reduction": Default(4, "gaopengcuhk/CLIP-Adapter clip_adapter.py"),
    "ratios": Default((0.2, 0.4, 0.6, 0.8), "ours: searched on few-shot val; the released code fixes 0.2"),
    "learning_rate": Default(1e-3, "ours (AdamW): no recipe is published"),
    "weight_decay": Default(0.01, "ours (AdamW): no recipe is published"),
    "epochs": Default(100, "ours: no recipe is published"),
    "batch_size": Default(256, "ours: no recipe is published"),
}

TIP_ADAPTER_F: dict[str, Default] = TIP_ADAPTER | {
    "initial_beta": Default(1.0, _TIP_CODE),
    "initial_alpha": Default(_tip_initial_alpha, _TIP_CODE + ", per dataset; others as ImageNet"),
    "learning_rate": Default(1e-3, _TIP_CODE + " (AdamW, eps 1e-4)"),
    "adam_epsilon": Default(1e-4, _TIP_CODE),
    "weight_decay": Default(0.01, _TIP_CODE + " (torch's default)"),
    "epochs": Default(_tip_epochs, _TIP_CODE + "; 100 on EuroSAT"),
    "batch_size": Default(256, _TIP_CODE),
}


def _tip_search_on(dataset: str, shots: int) -> str:
    return "test" if dataset == "imagenet" else "val"


TIP_ADAPTER_F_TEST_ORACLE: dict[str, Default] = TIP_ADAPTER_F | {
    "search_on": Default(_tip_search_on, _TIP_CODE + ", main_imagenet.py: 'test' on ImageNet; 'val' on the others"),
}


def _taskres_learning_rate(dataset: str, shots: int) -> float:
    return 2e-4 if dataset == "imagenet" else 2e-3


def _taskres_epochs(dataset: str, shots: int) -> int:
    return 100 if shots < 8 else 200


def _taskres_scale(dataset: str, shots: int) -> float:
    return 1.0 if dataset == "oxford_flowers" else 0.5


_TASKRES_CODE = "geekyutao/TaskRes train_regular.sh and configs/trainers"

TASKRES: dict[str, Default] = {
    "residual_scale": Default(_taskres_scale, _TASKRES_CODE + ": alpha; 1.0 on Flowers"),
    "learning_rate": Default(_taskres_learning_rate, _TASKRES_CODE + " (Adam); 2e-4 on ImageNet"),
    "warmup_learning_rate": Default(1e-5, _TASKRES_CODE + "; first epoch"),
    "weight_decay": Default(5e-4, "Dassl's default, as L2 in Adam's gradient"),
    "epochs": Default(_taskres_epochs, _TASKRES_CODE + ": 100 (1, 2, 4 shots), 200 (8, 16)"),
    "batch_size": Default(256, _TASKRES_CODE),
}

_LP_PLUS_PLUS_CODE = "FereshteShakeri/FewShot-CLIP-Strong-Baseline configs/base.yaml, methods/linear_probe_p2.py"

LP_PLUS_PLUS: dict[str, Default] = {
    "initial_alpha_factor": Default(250.0, _LP_PLUS_PLUS_CODE + "; times the mean cosine of image and own class"),
    "momentum": Default(0.9, _LP_PLUS_PLUS_CODE + "; of the visual weights, not of alpha"),
    "alpha_interval": Default(10, _LP_PLUS_PLUS_CODE + ": alpha moves in every tenth epoch"),
    "sum_alpha_gradients": Default(True, _LP_PLUS_PLUS_CODE + ": alpha's gradient is never cleared"),
    "epochs": Default(300, _LP_PLUS_PLUS_CODE),
}
