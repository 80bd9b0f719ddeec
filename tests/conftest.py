"""What several tests share: the golden files, a fake dataset, one thread."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rmt.torchvision_import  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Golden:
    """Golden tensors of one or more files, in float32 where they are floats, and their settings."""

    def __init__(self, *names: str) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.facts: dict[str, Any] = {}
        for name in names:
            folder = (
                SHARED / "golden" if (SHARED / "golden" / f"{name}.safetensors").exists() else ROOT / "tests/golden"
            )
            if not (folder / f"{name}.safetensors").exists():
                pytest.skip(f"golden file {name} is not at hand")
            loaded = load_file(folder / f"{name}.safetensors")
            self.tensors |= {
                key: value.float() if value.dtype == torch.float16 else value for key, value in loaded.items()
            }
            self.facts |= json.loads((folder / f"{name}.json").read_text())

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.tensors:
            pytest.skip(f"golden tensor {name} is not in the committed selection")
        return self.tensors[name]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def tower(self) -> torch.nn.Module:
        """The image tower of the files, frozen, in eval mode."""
        return self.clip().visual

    def clip(self) -> Any:
        """The files' CLIP in open_clip's classes; what the files lack keeps random values."""
        from open_clip.model import CLIP

        shape = self.facts["architecture"]
        resnet = isinstance(shape["vision_layers"], list)
        vision = {
            "image_size": shape["image_px"],
            "layers": shape["vision_layers"],
            "width": shape["vision_width"],
            "head_width": 64,
        }
        if resnet:
            vision["head_width"] = shape["vision_width"] * 32 // shape["vision_heads"]
        else:
            vision["patch_size"] = shape["patch"]
        text = {
            "context_length": shape["context_length"],
            "vocab_size": shape["vocab"],
            "width": shape["text_width"],
            "heads": shape["text_heads"],
            "layers": shape["text_layers"],
        }
        model = CLIP(shape["embed_dim"], vision, text, quick_gelu=True)
        state = {name[len("model.") :]: value for name, value in self.tensors.items() if name.startswith("model.")}
        missing, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected
        visual_missing = [name for name in missing if name.startswith("visual.") and "num_batches" not in name]
        assert not visual_missing, visual_missing
        assert math.isclose(float(model.logit_scale.detach().exp()), 100.0, rel_tol=1e-5)
        return model.eval().requires_grad_(False)


@pytest.fixture
def golden() -> type[Golden]:
    return Golden
