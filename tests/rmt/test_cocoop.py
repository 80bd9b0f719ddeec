"""CoCoOp against a loop over images through open_clip's own text encoder, and against CoOp."""

import math
import types
from unittest import mock

import pytest
import torch
from torch import nn
from torch.nn import functional

from rmt import backbones, fit
from rmt.data import read_sample
from rmt.methods import EvaluationSet, Task, cocoop, coop
from tests import toy

CLASSES = ("zero", "one", "seven", "number three")
SETTINGS = {"initial_context": "a photo of a", "context_vectors": 4, "reduction": 16}


@pytest.fixture(scope="module")
def clip():
    return backbones.load("tiny_clip")


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(5, 128, generator=torch.Generator().manual_seed(5))


def task_of(clip, template: str = toy.TEMPLATE, **changes: object) -> Task:
    sample = types.SimpleNamespace(dataset="digits", shots=1, seed=1)
    return Task(
        sample=sample,  # type: ignore[arg-type]
        classes=CLASSES,
        template=template,
        hyperparameters=SETTINGS | changes,
        logit_scale=clip.logit_scale,
        read_features=pytest.fail,
        read_text=pytest.fail,
        clip=clip,
    )


def tuner_of(clip, **changes: object) -> cocoop.ConditionalTuner:
    task = task_of(clip, **changes)
    parameters = cocoop.initial_parameters(task)
    prompts = cocoop.prepared(task, CLASSES, toy.TEMPLATE, len(parameters["context"]))
    return cocoop.ConditionalTuner(prompts, parameters, lr=0.01, momentum=0.9, weight_decay=5e-4)


def reference(clip, tuner: cocoop.ConditionalTuner, features: torch.Tensor, suffix: str = ".") -> torch.Tensor:
    """Logits image by image and class by class: `encode_text` of the whole, padded prompt, its context exchanged."""
    learnt = tuner.parameters
    context = learnt["context"]
    rows = []
    for feature in features:
        feature = feature / feature.norm()
        hidden = (learnt["down.weight"] @ feature + learnt["down.bias"]).clamp(min=0)
        shifted = context + learnt["up.weight"] @ hidden + learnt["up.bias"]
        texts = []
        for name in CLASSES:
            tokens = clip.tokenizer([" ".join(["x"] * len(context)) + f" {name}{suffix}"])
            embedded = clip.model.token_embedding(tokens).clone()
            embedded[0, 1 : 1 + len(context)] = shifted
            with mock.patch.object(clip.model.token_embedding, "forward", return_value=embedded):
                text = clip.model.encode_text(tokens)[0]
            texts.append(text / text.norm())
        rows.append(clip.logit_scale * torch.stack(texts) @ feature)
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("start", "vectors", "suffix"), [("a photo of a", 4, "."), ("prompt", 5, "."), ("random", 4, ".")]
)
def test_logits_are_those_of_a_loop_over_images(clip, features, start: str, vectors: int, suffix: str) -> None:
    tuner = tuner_of(clip, initial_context=start)
    assert tuner.parameters["context"].shape == (vectors, 64)
    with torch.no_grad():
        expected = reference(clip, tuner, features, suffix)
        torch.testing.assert_close(tuner.logits(features), expected, rtol=1e-5, atol=2e-4)
        assert float(expected.std()) > 0.1
    # The shift matters: another image gets another classifier.
    with torch.no_grad():
        text = tuner.prompts.text_features(tuner.parameters, functional.normalize(features, dim=-1))
    assert float((text[0] - text[1]).abs().max()) > 1e-2


def test_without_a_shift_it_is_coop(clip, features) -> None:
    tuner = tuner_of(clip)
    with torch.no_grad():
        for name in ("up.weight", "up.bias"):
            tuner.parameters[name].zero_()
        tokens, lengths = coop.prompt_tokens(clip, CLASSES, 4, ".")
        alone = coop.PromptTuner(clip.model, tokens, lengths, tuner.parameters["context"].detach(), "end", lr=0.01)
        torch.testing.assert_close(tuner.logits(features), alone.logits(features), rtol=1e-5, atol=1e-4)


def test_the_gradient_reaches_context_and_meta_net_and_is_the_references(clip, features) -> None:
    tuner, labels = tuner_of(clip), torch.tensor([0, 1, 2, 3, 0])
    learnt = tuner.parameters
    found = torch.autograd.grad(functional.cross_entropy(tuner.logits(features), labels), list(learnt.values()))
    assert list(learnt) == ["context", "down.weight", "down.bias", "up.weight", "up.bias"]
    assert all(float(gradient.abs().max()) > 1e-4 for gradient in found)
    loop = torch.autograd.grad(functional.cross_entropy(reference(clip, tuner, features), labels), [*learnt.values()])
    for one, expected in zip(found, loop, strict=True):
        assert float((one - expected).abs().max() / expected.abs().max()) < 1e-4
    tuner.step(features, labels)
    assert all(not parameter.requires_grad for parameter in clip.model.parameters())


def test_the_meta_net_starts_as_torch_draws_it_and_as_seeded() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (cocoop.initial_meta_net(512, 512, 16, seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(1)
    down, up = nn.Linear(512, 32), nn.Linear(32, 512)
    torch.random.set_rng_state(before)
    for name, expected in (
        ("down.weight", down.weight),
        ("down.bias", down.bias),
        ("up.weight", up.weight),
        ("up.bias", up.bias),
    ):
        assert torch.equal(first[name], expected) and torch.equal(again[name], expected)
        assert not torch.equal(other[name], expected)


def test_the_parameters_of_vit_b16_are_the_authors() -> None:
    import open_clip

    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16"))
    clip = types.SimpleNamespace(
        name="ViT-B/16",
        model=model,
        visual=model.visual,
        tokenizer=open_clip.get_tokenizer("ViT-B-16"),
        device=torch.device("meta"),
        logit_scale=100.0,
    )
    clip.tokens = lambda prompts: clip.tokenizer(list(prompts)).to("meta")
    parameters = cocoop.initial_parameters(task_of(clip))
    meta_net = sum(value.numel() for name, value in parameters.items() if name != "context")
    assert (parameters["context"].numel(), meta_net) == (2_048, 33_312)


def test_evaluation_in_parts_gives_the_same_logits(clip, monkeypatch) -> None:
    features = torch.randn(23, 128, generator=torch.Generator().manual_seed(2))
    task = task_of(clip)
    adapter = cocoop.initial_parameters(task)
    new = ("five", "six", "eight")  # other classes than those of the task
    asked = EvaluationSet("new", new, toy.TEMPLATE, pytest.fail, lambda: features, pytest.fail)
    whole = cocoop.answer(task, adapter, {})(asked)
    assert whole.shape == (23, 3)
    monkeypatch.setattr(cocoop, "TOKENS_PER_PASS", 150)
    assert cocoop.prepared(task, new, toy.TEMPLATE, 4).images_per_pass == 150 // (3 * 8)
    torch.testing.assert_close(cocoop.answer(task, adapter, {})(asked), whole, rtol=1e-5, atol=1e-4)
    monkeypatch.setattr(cocoop, "TOKENS_PER_PASS", 1)
    torch.testing.assert_close(cocoop.answer(task, adapter, {})(asked), whole, rtol=1e-5, atol=1e-4)


def test_the_schedule_is_the_published_one(tmp_path) -> None:
    folder = toy.make(tmp_path, shots=(2,), seeds=(1,))
    found = fit.run(toy.job(folder, "cocoop"), read_sample(toy.sample_file(folder, 2, 1)))
    rates = [row["learning_rate"] for row in found.tuned.curve]
    assert len(rates) == found.tuned.images_seen == 8 * 10  # one image a step
    assert rates[:8] == [1e-5] * 8 and rates[8] == 0.002
    assert rates[-1] == pytest.approx(0.002 * 0.5 * (1 + math.cos(0.8 * math.pi)))
    assert found.record["tuning"]["trainable_parameters"] == 4 * 64 + (128 * 8 + 8) + (8 * 64 + 64)
