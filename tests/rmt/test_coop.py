"""Where CoOp's context starts from; what it does is compared with the authors' numbers in test_golden_rivals.py."""

import types

import pytest
import torch

from rmt import backbones
from rmt.errors import UserError
from rmt.methods import Task, coop


@pytest.fixture(scope="module")
def clip():
    return backbones.load("tiny_clip")


def start(clip, template: str, initial_context: str, class_specific: bool = False) -> torch.Tensor:
    settings = {"initial_context": initial_context, "context_vectors": 3, "class_specific": class_specific}
    sample = types.SimpleNamespace(dataset="digits", shots=1, seed=1)
    return coop.initial_context(
        Task(sample, ("zero", "one"), template, settings, 100.0, pytest.fail, pytest.fail, clip=clip)  # type: ignore
    )


def test_the_context_starts_from_words_or_from_the_prompt(clip) -> None:
    words = start(clip, "{} texture.", "a photo of a")
    assert torch.equal(words, clip.model.token_embedding(clip.tokenizer(["a photo of a"])[0, 1:5]))
    assert torch.equal(words, start(clip, "a photo of a {}.", "prompt"))
    assert torch.equal(words, start(clip, "{} texture.", "a photo of a {}."))
    assert start(clip, "a photo of the digit {}.", "prompt").shape == (5, 64)
    assert start(clip, "a photo of a {}.", "random").shape == (3, 64)
    assert start(clip, "a photo of a {}.", "a photo of a", class_specific=True).shape == (2, 4, 64)


def test_the_prompt_keeps_its_suffix_and_words_get_a_full_stop() -> None:
    template = "a photo of a {}, a type of flower."
    assert coop.suffix_of(template, {"initial_context": "prompt"}) == ", a type of flower."
    assert coop.suffix_of(template, {"initial_context": "a photo of a"}) == "."
    assert coop.suffix_of(template, {"initial_context": "random"}) == "."


def test_a_context_that_cannot_be_is_refused(clip) -> None:
    with pytest.raises(UserError, match=r"'\{\} texture.' has no words before the class name"):
        start(clip, "{} texture.", "prompt")
    with pytest.raises(UserError, match="initial_context 'promt': give 'random', 'prompt' or words"):
        start(clip, "a photo of a {}.", "promt")
