"""CLIP-LoRA's attention, gradients, folding and schedule against plain re-implementations."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import rmt.torchvision_import  # noqa: F401

import open_clip  # isort: skip

from rmt import backbones, fit
from rmt.data import read_sample
from rmt.errors import UserError
from rmt.methods import clip_lora
from tests import toy

CLASSES = ("zero", "one", "seven")


@pytest.fixture(scope="module")
def clip():
    return backbones.load("tiny_clip")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(4))


def matrices_of(clip, moved: float = 0.0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(7)
    matrices = clip_lora.initial_matrices(clip_lora.attentions(clip.name, clip.model), 2, draw)
    for name, value in matrices.items():
        if name.endswith(".B"):
            value += moved * torch.randn(value.shape, generator=draw)
    return matrices


def tuner_of(clip, moved: float = 0.0, dropout: float = 0.0, seed: int = 3) -> clip_lora.LowRankTuner:
    return clip_lora.LowRankTuner(
        clip.name,
        clip.model,
        clip.tokens([toy.TEMPLATE.format(name) for name in CLASSES]),
        matrices_of(clip, moved),
        torch.Generator().manual_seed(seed),
        logit_scale=clip.logit_scale,
        dropout=dropout,
        lr=1e-3,
        weight_decay=1e-2,
    )


def zero_shot(model, clip, images: torch.Tensor) -> torch.Tensor:
    tokens = clip.tokens([toy.TEMPLATE.format(name) for name in CLASSES])
    text, features = model.encode_text(tokens, normalize=True), model.encode_image(images, normalize=True)
    return clip.logit_scale * features @ text.T


class PlainLinear(nn.Module):
    """A frozen nn.Linear plus scaling x B(A(x)) of two more."""

    def __init__(self, weight, bias, down, up, scaling: float) -> None:
        super().__init__()
        self.frozen = nn.Linear(weight.shape[1], weight.shape[0])
        self.frozen.weight, self.frozen.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
        self.down, self.up = nn.Linear(*down.T.shape, bias=False), nn.Linear(*up.T.shape, bias=False)
        self.down.weight, self.up.weight = nn.Parameter(down.clone()), nn.Parameter(up.clone())
        self.scaling = scaling

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.frozen(tokens) + self.scaling * self.up(self.down(tokens))


class PlainAttention(nn.Module):
    """Attention head by head, from three plain linear maps and a softmax."""

    def __init__(self, frozen: nn.MultiheadAttention, down, up, scaling: float) -> None:
        super().__init__()
        weights, biases = frozen.in_proj_weight.chunk(3), frozen.in_proj_bias.chunk(3)
        self.maps = nn.ModuleList(PlainLinear(weights[i], biases[i], down[i], up[i], scaling) for i in range(3))
        self.out, self.heads = frozen.out_proj, frozen.num_heads

    def forward(self, query, key, value, need_weights=False, attn_mask=None):
        q, k, v = (one(tokens) for one, tokens in zip(self.maps, (query, key, value), strict=True))
        found = []
        for a, b, c in zip(*(one.chunk(self.heads, dim=2) for one in (q, k, v)), strict=True):
            scores = a @ b.transpose(1, 2) / math.sqrt(a.shape[2])
            found.append((scores if attn_mask is None else scores + attn_mask).softmax(dim=2) @ c)
        return self.out(torch.cat(found, dim=2)), None


def plain_model(clip, matrices: dict[str, torch.Tensor], scaling: float):
    """open_clip's model with every attention exchanged for the plain one, and all parameters of those by path."""
    model = backbones.build_tiny().eval()
    model.load_state_dict(clip.model.state_dict())
    learnt = {}
    for path, frozen in clip_lora.attentions(clip.name, model).items():
        plain = PlainAttention(frozen, matrices[f"{path}.A"], matrices[f"{path}.B"], scaling)
        model.get_submodule(path.removesuffix(".attn")).attn = plain
        learnt[f"{path}.A"] = [one.down.weight for one in plain.maps]
        learnt[f"{path}.B"] = [one.up.weight for one in plain.maps]
    return model, learnt


def test_the_attention_is_torchs(clip) -> None:
    draw = torch.Generator().manual_seed(0)
    frozen = nn.MultiheadAttention(24, 4, batch_first=True).requires_grad_(False)
    frozen.in_proj_bias.normal_(generator=draw)
    down, up = torch.randn(3, 2, 24, generator=draw), torch.randn(3, 24, 2, generator=draw)
    tokens = torch.randn(5, 7, 24, generator=draw)
    causal = torch.full((7, 7), -torch.inf).triu(1)
    cases = (((tokens, tokens, tokens), None), ((tokens, tokens, tokens), causal))
    for inputs, mask in (*cases, ((tokens[:, :1], tokens, tokens), None)):
        unmoved = clip_lora.LowRankAttention(frozen, down, 0 * up, 0.5, 0.25, draw).eval().requires_grad_(False)
        expected = frozen(*inputs, need_weights=False, attn_mask=mask)[0]
        torch.testing.assert_close(unmoved(*inputs, attn_mask=mask)[0], expected, rtol=1e-5, atol=1e-6)
        moved = clip_lora.LowRankAttention(frozen, down, up, 0.5, 0.25, draw).eval().requires_grad_(False)
        changed = nn.MultiheadAttention(24, 4, batch_first=True).requires_grad_(False)
        changed.load_state_dict(frozen.state_dict())
        changed.in_proj_weight += 0.5 * torch.cat([b @ a for a, b in zip(down, up, strict=True)])
        expected = changed(*inputs, need_weights=False, attn_mask=mask)[0]
        torch.testing.assert_close(moved(*inputs, attn_mask=mask)[0], expected, rtol=1e-4, atol=1e-5)
        assert float((expected - unmoved(*inputs, attn_mask=mask)[0]).abs().max()) > 0.1


def test_before_the_first_step_it_is_zero_shot(clip, images) -> None:
    with torch.no_grad():
        found, expected = tuner_of(clip, dropout=0.25).logits(images), zero_shot(clip.model, clip, images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_logits_and_gradients_are_those_of_plain_linear_maps(clip, images) -> None:
    labels = torch.tensor([0, 1, 2, 0])
    tuner = tuner_of(clip, moved=0.3)
    model, learnt = plain_model(clip, matrices_of(clip, 0.3), 1 / math.sqrt(2))
    expected, found = zero_shot(model, clip, images), tuner.logits(images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-4)
    assert float((expected - zero_shot(clip.model, clip, images)).detach().abs().max()) > 0.5
    functional.cross_entropy(expected, labels).backward()
    functional.cross_entropy(found, labels).backward()
    assert tuner.parameters.keys() == learnt.keys()
    for name, value in tuner.parameters.items():
        gradient = torch.stack([one.grad for one in learnt[name]])
        assert float(gradient.abs().max()) > 1e-6
        assert float((value.grad - gradient).abs().max() / gradient.abs().max()) < 2e-4, name


def test_folded_logits_are_the_unfolded_ones(clip, images) -> None:
    tuner = tuner_of(clip, moved=0.3, dropout=0.25)
    tuner.use_dropout(False)
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    folded = clip_lora.fold(clip, tuner.adapter())
    with torch.no_grad():
        expected = tuner.logits(images)
        found = zero_shot(folded.model, clip, images)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    assert type(folded) is type(clip) and folded.model is not clip.model
    changed = {name for name, value in folded.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{path}.in_proj_weight" for path in clip_lora.attentions(clip.name, clip.model)}
    assert all(torch.equal(value, before[name]) for name, value in clip.model.state_dict().items())


def test_a_step_changes_the_terms_only(clip, images) -> None:
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    tuner = tuner_of(clip, dropout=0.25)
    held = {name: value.detach().clone() for name, value in tuner.parameters.items()}
    for _ in range(2):
        tuner.step(images, torch.tensor([0, 1, 2, 0]))
    assert all(torch.equal(value, before[name]) for name, value in clip.model.state_dict().items())
    assert all(not torch.equal(value, held[name]) for name, value in tuner.parameters.items())
    # The frozen tensors are shared, not copied.
    shared = {one.data_ptr() for one in tuner.model.parameters()}
    assert shared > {one.data_ptr() for one in clip.model.parameters()}


def test_dropout_is_on_the_terms_inputs_and_unbiased() -> None:
    draw = torch.Generator().manual_seed(0)
    frozen = nn.MultiheadAttention(16, 2, batch_first=True).requires_grad_(False)
    down, up = torch.randn(3, 2, 16, generator=draw), torch.randn(3, 16, 2, generator=draw)
    attention = clip_lora.LowRankAttention(frozen, down, up, 0.5, 0.25, torch.Generator().manual_seed(1))
    tokens = torch.randn(1, 1, 16, generator=draw)
    with torch.no_grad():
        exact = attention.eval()._low_rank(0, tokens)
        torch.testing.assert_close(exact, 0.5 * tokens @ down[0].T @ up[0].T)
        drawn = attention.train()._low_rank(0, tokens.expand(60_000, 1, 16))
        torch.testing.assert_close(drawn.mean(0, keepdim=True), exact, rtol=0, atol=0.05)
        # A variance of p / (1 - p) per input is that of dropout with p = 0.25.
        scale = (0.5 * down[0].T @ up[0].T * tokens[0, 0, :, None]).square().sum(0) / 3
        torch.testing.assert_close(drawn[:, 0].var(0), scale, rtol=0.05, atol=1e-3)


def test_queries_keys_and_values_drop_independently() -> None:
    frozen = nn.MultiheadAttention(16, 2, batch_first=True).requires_grad_(False)
    same = torch.ones(3, 16, 16) * torch.eye(16)
    attention = clip_lora.LowRankAttention(frozen, same, same.clone(), 1.0, 0.25, torch.Generator().manual_seed(1))
    with torch.no_grad():
        drops = [attention._low_rank(part, torch.ones(50, 20, 16)) == 0 for part in range(3)]
    for one, two in ((0, 1), (1, 2), (0, 2)):
        assert float((drops[one] & drops[two]).float().mean()) == pytest.approx(1 / 16, abs=0.01)


def test_the_same_generator_gives_the_same_step(clip, images) -> None:
    labels = torch.tensor([0, 1, 2, 0])
    first, again, other = (tuner_of(clip, 0.3, 0.25, seed) for seed in (3, 3, 4))
    losses = [tuner.step(images, labels) for tuner in (first, again, other)]
    assert losses[0] == losses[1] != losses[2]
    taken_up = tuner_of(clip, 0.3, 0.25, seed=9)
    taken_up.load_state(first.state())
    assert taken_up.step(images, labels) == first.step(images, labels)


def test_the_parameters_of_vit_b16_are_the_authors() -> None:
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16"))
    found = clip_lora.attentions("ViT-B/16", model)
    matrices = clip_lora.initial_matrices(found, 2, torch.Generator().manual_seed(0))
    assert len(found) == 24 and len(matrices) == 48
    assert sum(value.numel() for value in matrices.values()) == 184_320
    a, b = matrices["visual.transformer.resblocks.11.attn.A"], matrices["transformer.resblocks.0.attn.B"]
    assert a.shape == (3, 2, 768) and b.shape == (3, 512, 2)
    assert not b.any()
    assert 0.99 / math.sqrt(768) < float(a.abs().max()) <= 1 / math.sqrt(768)  # Kaiming-uniform, a = sqrt(5)


def test_a_resnet_and_a_foreign_text_tower_are_refused() -> None:
    with torch.device("meta"):
        resnet = open_clip.CLIP(**open_clip.get_model_config("RN50"))
        pooled = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16"))
    with pytest.raises(UserError, match=r"image tower of rn50 \(ModifiedResNet\) has no attention") as caught:
        clip_lora.attentions("rn50", resnet)
    assert "\n" not in str(caught.value)
    pooled.text_pool_type = "last"
    with pytest.raises(UserError, match=r"text tower of mine \(CLIP\)"):
        clip_lora.attentions("mine", pooled)


def test_the_template_is_the_datasets_or_the_named_one() -> None:
    assert clip_lora.prompt("{} texture.", {"template": "dataset"}) == "{} texture."
    assert clip_lora.prompt("{} texture.", {"template": "a photo of a {}."}) == "a photo of a {}."
    with pytest.raises(UserError, match="template 'a photo': give 'dataset'"):
        clip_lora.prompt("{} texture.", {"template": "a photo"})


def test_the_schedule_is_the_published_one(tmp_path) -> None:
    folder = toy.make(tmp_path, shots=(2,), seeds=(1,))
    sample = read_sample(toy.sample_file(folder, 2, 1))
    job = toy.job(folder, "clip_lora", iterations=7, batch_size=3)
    assert toy.job(folder, "clip_lora").method.hyperparameters("digits", 4)["iterations"] == 2000
    found = fit.run(job, sample)
    optimiser = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=2e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 7, eta_min=1e-6)
    for row in found.tuned.curve:
        assert row["learning_rate"] == pytest.approx(schedule.get_last_lr()[0], rel=1e-9)
        optimiser.step()
        schedule.step()
    assert [row["step"] for row in found.tuned.curve] == list(range(1, 8))
    # Eight images in batches of 3, 3 and 2: two epochs and one more batch.
    assert found.tuned.images_seen == 8 + 8 + 3
    assert found.record["tuning"]["trainable_parameters"] == 3 * (3 * 4 * 128) + 2 * (3 * 4 * 64)
    assert sum(value.numel() for value in found.tuned.adapter.values()) == 3 * (3 * 4 * 128) + 2 * (3 * 4 * 64)


def test_a_named_template_trains_and_answers_with_it(tmp_path, clip) -> None:
    folder = toy.make(tmp_path, shots=(1,), seeds=(1,))
    sample = read_sample(toy.sample_file(folder, 1, 1))
    runs = {
        template: fit.run(toy.job(folder, "clip_lora", iterations=1, template=template), sample)
        for template in ("dataset", toy.TEMPLATE, "a photo of a {}.")
    }
    assert runs["dataset"].predictions["test"] == runs[toy.TEMPLATE].predictions["test"]
    assert runs["dataset"].tuned.curve[0]["loss"] != runs["a photo of a {}."].tuned.curve[0]["loss"]
    assert runs["dataset"].predictions["test"] != runs["a photo of a {}."].predictions["test"]
