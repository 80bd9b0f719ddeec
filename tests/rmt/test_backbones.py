"""Loading CLIP models: tags, caches, a user's files, towers that cannot be masked. Real code, random small models."""

import json
import os
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import rmt.torchvision_import  # noqa: F401

import open_clip  # isort: skip
from open_clip.pretrained import _PRETRAINED, _pcfg, _slpcfg  # isort: skip

from data_prep.pack import pack as write_pack
from rmt import backbones, checkpoints, masks, plan, registry
from rmt.__main__ import _device, main
from rmt.errors import UserError
from rmt.methods.coop import check_text_tower
from tests import toy

ROOT = Path(__file__).resolve().parents[2]
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1}
VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16}
RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None, "head_width": 32}
TIMM = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"}
BIDIRECTIONAL = TEXT | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
SMALL = {
    "small-vit": {"embed_dim": 32, "vision_cfg": VIT, "text_cfg": TEXT},
    "small-vit-quickgelu": {"embed_dim": 32, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "small-rn-quickgelu": {"embed_dim": 32, "quick_gelu": True, "vision_cfg": RESNET, "text_cfg": TEXT},
    "small-timm": {"embed_dim": 48, "custom_text": True, "vision_cfg": TIMM, "text_cfg": BIDIRECTIONAL},
}


@pytest.fixture(scope="module", autouse=True)
def small_architectures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs")
    for name, config in SMALL.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    return folder


@pytest.fixture(autouse=True)
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "BACKBONES", dict(registry.BACKBONES))


def random_model(architecture: str, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return open_clip.create_model(architecture, load_weights=False).eval()


def write_torchscript(model: torch.nn.Module, path: Path) -> None:
    """A TorchScript archive with half-precision weights and three numbers beside them, as OpenAI publishes."""

    class Holder(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    holder = Holder()
    for name, tensor in model.state_dict().items():
        *parents, leaf = name.split(".")
        place: torch.nn.Module = holder
        for parent in parents:
            if not hasattr(place, parent):
                place.add_module(parent, Holder())
            place = getattr(place, parent)
        place.register_buffer(leaf, tensor.half() if tensor.is_floating_point() else tensor)
    for name in checkpoints.OPENAI_FACTS:
        holder.register_buffer(name, torch.tensor(32))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(holder).save(str(path))


@pytest.mark.parametrize("name", [name for name in registry.SHIPPED if name != "tiny_clip"])
def test_the_registry_agrees_with_open_clip(name: str) -> None:
    """Activation, side, resizing: `trained_as` raises where the registry and open_clip's tag disagree."""
    entry = registry.BACKBONES[name]
    facts = checkpoints.trained_as(name, entry)
    config = checkpoints.architecture_config(name, entry)
    assert bool(config.get("quick_gelu")) == (entry.pretrained == "openai")
    assert entry.own_towers == ("timm_model_name" not in config["vision_cfg"] and not config.get("custom_text"))
    assert facts["mean"] == ((0.5, 0.5, 0.5) if name == "vit_b16_siglip" else open_clip.OPENAI_DATASET_MEAN)
    assert entry.transform == ("224px-squash" if name == "vit_b16_siglip" else "224px")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (("ViT-B-16", "openai", 224), "another activation .* name the architecture 'ViT-B-16-quickgelu'"),
        (("ViT-B-32-quickgelu", "laion2b_s34b_b79k", 224), "name the architecture 'ViT-B-32'"),
        (("ViT-B-32", "laion2b", 224), "open_clip has no tag 'laion2b' of ViT-B-32; it has: openai, "),
        (("ViT-B-33", "openai", 224), "open_clip has no architecture 'ViT-B-33'"),
        (("ViT-B-32", "laion2b_s34b_b79k", 256), "reads 224 pixels, not 256"),
        (("ViT-B-16-SigLIP", "webli", 224), "resized by bicubic, squash"),
        (("ViT-L-14-CLIPA", "datacomp1b", 224), "resized by bilinear, squash"),
    ],
)
def test_weights_under_the_wrong_name_are_refused(entry: tuple, words: str) -> None:
    backbone = registry.Backbone("mine", *entry, citation="")
    with pytest.raises(backbones.BackboneError, match=words) as caught:
        checkpoints.trained_as("mine", backbone)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", ["small-vit", "small-vit-quickgelu", "small-rn-quickgelu"])
@pytest.mark.parametrize("form", ["safetensors", "state", "training", "openai"])
def test_a_local_checkpoint_gives_the_model_that_was_saved(tmp_path, architecture: str, form: str) -> None:
    model = random_model(architecture)
    path = tmp_path / f"weights.{'safetensors' if form == 'safetensors' else 'pt'}"
    if form == "safetensors":
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    elif form == "state":
        torch.save(model.state_dict(), path)
    elif form == "training":
        state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
        torch.save({"epoch": 3, "state_dict": state}, path)
    else:
        write_torchscript(model, path)
    registry.add_own_backbone("mine", architecture, checkpoint=str(path), pixels=32)
    if form == "openai" and "quickgelu" not in architecture:
        with pytest.raises(backbones.BackboneError, match="OpenAI's own, which was trained with QuickGELU"):
            backbones.load("mine")
        return
    clip = backbones.load("mine")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    images = clip.normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.no_grad():
        expected = (model.half().float() if form == "openai" else model).encode_image(images)
    torch.testing.assert_close(clip.encode_images(pixels), expected, rtol=1e-4, atol=1e-5)
    assert clip.transform == "32px" and not clip.model.training
    assert all(weight.dtype == torch.float32 and not weight.requires_grad for weight in clip.model.parameters())
    again = backbones.load("mine")
    assert again.weights_sha256 == clip.weights_sha256 != backbones.load("tiny_clip").weights_sha256
    assert len(masks.maskable(clip.visual)) > 4
    check_text_tower("mine", clip.model)


def test_the_activation_is_that_of_the_name(tmp_path) -> None:
    """The same weights under both names differ: the trap that the registry's tags are checked against."""
    path = tmp_path / "weights.pt"
    torch.save(random_model("small-vit").state_dict(), path)
    for name in ("small-vit", "small-vit-quickgelu"):
        registry.add_own_backbone(name.replace("-", "_"), name, checkpoint=str(path), pixels=32)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    plain, quick = (backbones.load(name) for name in ("small_vit", "small_vit_quickgelu"))
    assert float((plain.encode_images(pixels) - quick.encode_images(pixels)).abs().max()) > 1e-4
    assert plain.weights_sha256 == quick.weights_sha256


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda path, state: None, "does not exist"),
        (lambda path, state: path.write_bytes(b"not weights"), "is not a file of weights"),
        (lambda path, state: torch.save({k: v for k, v in state.items() if "conv1" not in k}, path), "does not fit"),
        (lambda path, state: torch.save(state | {"visual.proj": torch.zeros(64, 16)}, path), "does not fit"),
        (
            lambda path, state: torch.save(state | {"visual.positional_embedding": torch.zeros(17, 64)}, path),
            "does not fit small-vit .*positional_embedding",
        ),
        (lambda path, state: torch.save({"state_dict": os.system}, path), "is not a file of weights"),
    ],
)
def test_a_bad_checkpoint_is_one_line(tmp_path, break_it, words: str) -> None:
    path = tmp_path / "weights.pt"
    break_it(path, random_model("small-vit").state_dict())
    registry.add_own_backbone("mine", "small-vit", checkpoint=str(path), pixels=32)
    with pytest.raises(backbones.BackboneError, match=words) as caught:
        backbones.load("mine")
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_tag_beside_a_checkpoint_says_how_it_was_trained(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(_PRETRAINED, "small-vit", {"webli": _slpcfg(hf_hub="nobody/small/")})
    path = tmp_path / "weights.pt"
    torch.save(random_model("small-vit").state_dict(), path)
    registry.add_own_backbone("mine", "small-vit", str(path), "webli", pixels=32, resize="squash")
    clip = backbones.load("mine")
    assert clip.mean.flatten().tolist() == clip.std.flatten().tolist() == [0.5, 0.5, 0.5]
    assert clip.transform == "32px-squash"


def put_in_cache(hub: Path, repository: str, name: str, state: dict) -> None:
    """A file as `hf download` leaves it: refs/main and a snapshot folder."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    save_file(state, folder / "snapshots/abc" / name)


def test_a_tag_is_read_from_the_cache_without_network(tmp_path, monkeypatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setitem(_PRETRAINED, "small-vit", {"some_tag": _pcfg(hf_hub="nobody/small/")})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    registry.add_own_backbone("mine", "small-vit", pretrained="some_tag", pixels=32)
    with pytest.raises(backbones.BackboneError) as caught:
        backbones.load("mine")
    folder = re.search(r"copy the folder \S+ from its cache to (\S+),", str(caught.value))
    assert folder and Path(folder[1]) == tmp_path / "models--nobody--small"
    # Where the line says, the weights are found.
    state = random_model("small-vit", seed=5).state_dict()
    put_in_cache(tmp_path, "nobody/small", "open_clip_model.safetensors", state)
    clip = backbones.load("mine")
    assert torch.equal(clip.model.state_dict()["visual.proj"], state["visual.proj"])


def test_without_network_one_line_says_what_is_missing_and_where_to_put_it(tmp_path) -> None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    code = (
        "from rmt import backbones\ntry:\n backbones.load('vit_b32')\nexcept backbones.BackboneError as e:\n print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1, done.stderr
    assert "open_clip_model.safetensors" in done.stdout and "timm/vit_base_patch32_clip_224.openai" in done.stdout
    assert f"to {tmp_path}/hub/models--timm--vit_base_patch32_clip_224.openai" in done.stdout


def test_a_missing_tokenizer_is_one_line(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(
        backbones.BackboneError, match=r"needs the package transformers; .* -e '\.\[siglip\]'"
    ) as caught:
        backbones.load("vit_b16_siglip")
    assert "\n" not in str(caught.value)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(one.startswith("transformers") for one in extras["siglip"])


def test_towers_of_another_make_run_with_features_and_are_refused_by_masks_and_contexts(tmp_path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(random_model("small-timm").state_dict(), path)
    registry.add_own_backbone("mine", "small-timm", checkpoint=str(path), pixels=160)
    clip = backbones.load("mine")
    assert clip.encode_images(np.zeros((2, 160, 160, 3), np.uint8)).shape == (2, 48)
    text = clip.text_features(["zebra", "striped cat"], "a photo of a {}.")
    torch.testing.assert_close(text.norm(dim=1), torch.ones(2))
    with pytest.raises(masks.NotMaskable, match="TimmModel has no attention that mask tuning knows"):
        masks.maskable(clip.visual)
    with pytest.raises(UserError, match=r"text tower of mine \(CustomTextCLIP\) is not the causal one") as caught:
        check_text_tower("mine", clip.model)
    assert "\n" not in str(caught.value)


def test_a_tower_of_another_make_through_the_command_line(tmp_path, capsys) -> None:
    made = toy.make(tmp_path, shots=(1,), seeds=(1,))
    torch.save(random_model("small-timm").state_dict(), tmp_path / "weights.pt")
    entry = json.dumps({"architecture": "small-timm", "checkpoint": str(tmp_path / "weights.pt"), "pixels": 160})
    write_pack("digits", made / "split.json", made / "images", 160, made / "large.npy")
    common = ["--backbone", "mine", "--own-backbone", entry, "--views", "2", "--device", "cpu"]
    common += ["--pack", f"{made}/large.npy", "--images", f"{made}/images"]
    one = ["--samples", *toy.samples(made)]
    features = str(made / "features.safetensors")
    assert main(["encode", *common, *one, "--output", features]) == 0
    fit = ["fit", "--benchmark", "toy", "--features", features, "--results", f"{made}/results", *common]
    assert main([*fit, "--method", "zero_shot"]) == 0
    for method in ("linear_probe", "clip_adapter", "tip_adapter", "tip_adapter_f", "taskres", "lp_plus_plus"):
        assert main([*fit, *one, "--method", method]) == 0
    assert len(list((made / "results").rglob("record.json"))) == 7
    capsys.readouterr()
    for method, words in (("r_amt", "no attention that mask tuning knows"), ("coop", "not the causal one of CLIP")):
        assert main([*fit, *one, "--method", method]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_the_plan_refuses_masks_on_siglip_before_the_first_job() -> None:
    config = {"benchmark": "one", "datasets": ["dtd"], "backbones": ["vit_b16_siglip"]}
    assert plan.check(config | {"methods": {"zero_shot": {}, "tip_adapter": {}}})
    with pytest.raises(plan.ConfigError, match=r"towers of 'vit_b16_siglip' .* leave out r_amt, tip_adapter\+r_amt"):
        plan.check(config | {"methods": {"zero_shot": {}, "r_amt": {}, "tip_adapter+r_amt": {}}})


def test_own_backbones_are_named_in_the_config() -> None:
    config = {"benchmark": "one", "datasets": ["dtd"], "methods": {"zero_shot": {}}, "backbones": ["mine"]}
    entry = {"architecture": "ViT-B-16-quickgelu", "checkpoint": "models/mine.pt"}
    plan.check(config | {"own_backbones": {"mine": entry}})
    assert registry.BACKBONES["mine"].weights_file == "models/mine.pt"
    assert registry.BACKBONES["mine"].transform == "224px"
    for entries, words in (
        ({"vit_b16": entry}, "key 'own_backbones.vit_b16': 'vit_b16' is a registered backbone"),
        ({"mine": {"architecture": "ViT-B-16"}}, "key 'own_backbones.mine': name a file as 'checkpoint'"),
        ({"mine": {"checkpoint": "x"}}, "key 'architecture' is missing"),
        ({"mine": entry | {"checkpont": "x"}}, "unknown key 'checkpont'; did you mean 'checkpoint'"),
        ({"My-CLIP": entry}, "key 'own_backbones': name 'My-CLIP' must be lower_snake"),
    ):
        with pytest.raises(plan.ConfigError, match=re.escape(words)):
            plan.check(config | {"own_backbones": entries})


def test_the_command_line_knows_an_own_backbone_by_its_entry(tmp_path, capsys) -> None:
    entry = json.dumps({"architecture": "small-vit", "checkpoint": str(tmp_path / "gone.pt"), "pixels": 32})
    made = toy.make(tmp_path, shots=(1,), seeds=(1,))
    arguments = ["encode", "--backbone", "mine", "--own-backbone", entry, "--pack", f"{made}/test.npy"]
    assert main([*arguments, "--images", f"{made}/images", "--output", f"{made}/f.safetensors"]) == 2
    assert capsys.readouterr().err == f"error: mine: checkpoint {tmp_path}/gone.pt does not exist\n"
    assert main(["encode", "--backbone", "mien", "--pack", f"{made}/test.npy", "--output", "x"]) == 2
    assert "backbone 'mien' is not registered" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_device_is_chosen_automatically(monkeypatch, cuda: bool, mps: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)
    assert _device("auto").type == expected
    for name, there in (("cuda", cuda), ("mps", mps)):
        if not there:
            with pytest.raises(UserError, match=f"device {name}: torch sees no such GPU here"):
                _device(name)
