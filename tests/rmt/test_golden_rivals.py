"""CoOp, CLIP-Adapter, TaskRes, Tip-Adapter and Tip-Adapter-F against the numbers of the authors' own programs."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from rmt import train
from rmt.methods import Oracle
from rmt.methods.clip_adapter import adapt
from rmt.methods.coop import PromptTuner, assemble
from rmt.methods.taskres import ResidualTuner
from rmt.methods.tip_adapter import cache_keys, cache_logits, search
from rmt.methods.tip_adapter_f import KeyTuner
from rmt.methods.tip_adapter_f_test_oracle import EpochPicker
from rmt.methods.zero_shot import classify


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("context", ["shared", "csc"])
@pytest.mark.parametrize("vectors", [4, 16])
def test_coop(golden, vectors: int, context: str, position: str) -> None:
    data, key = golden("coop_s0"), f"M{vectors}_{context}_{position}"
    if f"{key}.ctx_init" not in data:
        pytest.skip(f"{key} is not in the files at hand")
    settings, model = data.facts["settings"], data.clip()
    tuner = PromptTuner(
        model,
        data[f"{key}.tokenized_prompts"],
        data["class_name_lengths"].tolist(),
        data[f"{key}.ctx_init"],
        position,
        lr=settings["LR"],
        momentum=settings["momentum"],
        weight_decay=settings["weight_decay"],
    )
    with torch.no_grad():
        features = [model.encode_image(images) for images in data["images"]]
        torch.testing.assert_close(features[0], data["image_features_first_batch"], rtol=0, atol=1e-5)
        torch.testing.assert_close(tuner.text_features(), data[f"{key}.text_features_raw"], rtol=0, atol=2e-5)
    logits = tuner.logits(features[0])
    torch.testing.assert_close(logits, data[f"{key}.logits"], rtol=0, atol=2e-4)
    loss = functional.cross_entropy(logits, data["labels"][0])
    assert float(loss) == pytest.approx(float(data[f"{key}.ce"]), abs=2e-4)
    gradient = torch.autograd.grad(loss, tuner.context)[0]
    expected = data[f"{key}.grad_ctx"]
    assert float((gradient - expected).abs().max() / expected.abs().max()) < 1e-4
    for step in range(5):
        rate = train.warmup_cosine(step, settings["MAX_EPOCH"], settings["LR"], settings["WARMUP_CONS_LR"])
        assert rate == pytest.approx(float(data[f"{key}.lr"][step]), rel=1e-6)
        train.set_rate(tuner.optimiser, rate)
        loss = tuner.step(features[step], data["labels"][step])
        assert loss == pytest.approx(float(data[f"{key}.loss_per_step"][step]), abs=1e-3)
    torch.testing.assert_close(tuner.context.detach(), data[f"{key}.ctx_after_5"], rtol=0, atol=5e-5)
    with torch.no_grad():
        torch.testing.assert_close(tuner.logits(features[0]), data[f"{key}.logits_after"], rtol=0, atol=5e-3)


def test_coop_puts_the_name_where_it_is_told() -> None:
    embedded = torch.arange(7.0).view(1, 7, 1)  # start 0, two placeholders, name 3 4, stop 5, end 6
    context = torch.tensor([[10.0], [11.0]])
    rows = {where: assemble(embedded, context, [2], where).flatten().tolist() for where in ("end", "middle", "front")}
    assert rows["end"] == [0, 10, 11, 3, 4, 5, 6]
    assert rows["middle"] == [0, 10, 3, 4, 11, 5, 6]
    assert rows["front"] == [0, 3, 4, 10, 11, 5, 6]


@pytest.mark.parametrize("run", ["plain_sgd", "dassl_sgd"])
def test_clip_adapter(golden, run: str) -> None:
    data = golden("clip_adapter_s0")
    sgd = data.facts["runs"][run]
    down, up = data["w1_init"].clone().requires_grad_(), data["w2_init"].clone().requires_grad_()
    text = functional.normalize(
        data["class_text_features" if "class_text_features" in data else "text_features"], dim=-1
    )
    images, labels = data["image_features"], data["labels"]
    torch.testing.assert_close(adapt(images[0], down, up, 1.0), data["adapter_output"], rtol=0, atol=2e-5)
    optimiser = torch.optim.SGD([down, up], lr=sgd["lr"], momentum=sgd["momentum"], weight_decay=sgd["weight_decay"])
    for step in range(5):
        logits = classify(adapt(images[step], down, up, 0.2), text, 100.0)
        loss = functional.cross_entropy(logits, labels[step])
        assert float(loss) == pytest.approx(float(data[f"{run}.loss_per_step"][step]), abs=1e-4)
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            torch.testing.assert_close(logits, data["logits"], rtol=0, atol=2e-4)
            torch.testing.assert_close(down.grad, data["grad_w1"], rtol=0, atol=3e-6)
            torch.testing.assert_close(up.grad, data["grad_w2"], rtol=0, atol=3e-6)
        optimiser.step()
    torch.testing.assert_close(down.detach(), data[f"{run}.w1"], rtol=0, atol=1e-6)
    torch.testing.assert_close(up.detach(), data[f"{run}.w2"], rtol=0, atol=1e-6)
    after = classify(adapt(images[0], down, up, 0.2), text, 100.0)
    torch.testing.assert_close(after.detach(), data[f"{run}.logits_after"], rtol=0, atol=2e-4)


@pytest.mark.parametrize("run", ["one_template", "eight_templates", "alpha1"])
def test_taskres(golden, run: str) -> None:
    data = golden("taskres_s0")
    settings, model, labels = data.facts["runs"][run], data.clip(), data["labels"]
    tokens = data[f"{run}.class_tokens"].long()
    assert tokens.shape[1] == settings["templates"]
    with torch.no_grad():
        images = [model.encode_image(batch.float()) for batch in data["images"]]
        text = model.encode_text(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2]).mean(1)
    torch.testing.assert_close(images[0], data["image_features_first_batch"], rtol=0, atol=1e-5)
    torch.testing.assert_close(text, data[f"{run}.base_text_features"], rtol=0, atol=1e-5)
    tuner = ResidualTuner(text, settings["alpha"], 100.0, weight_decay=5e-4)
    logits = tuner.logits(images[0])
    torch.testing.assert_close(logits, data[f"{run}.logits"], rtol=0, atol=2e-4)
    loss = functional.cross_entropy(logits, labels[0])
    assert float(loss.detach()) == pytest.approx(float(data[f"{run}.ce"]), abs=2e-4)
    gradient = torch.autograd.grad(loss, tuner.residual)[0]
    torch.testing.assert_close(gradient, data[f"{run}.grad_residual"], rtol=0, atol=5e-5)
    for step in range(5):
        rate = train.warmup_cosine(step, 100, settings["base_lr"], 1e-5)
        assert rate == pytest.approx(float(data[f"{run}.lr"][step]), rel=1e-6)
        loss = tuner.step(images[step], labels[step], rate)
        assert loss == pytest.approx(float(data[f"{run}.loss_per_step"][step]), abs=2e-4)
        found = tuner.residual.detach()
        torch.testing.assert_close(found, data[f"{run}.residual_after_each"][step], rtol=0, atol=2e-6)
    torch.testing.assert_close(tuner.logits(images[0]).detach(), data[f"{run}.logits_after"], rtol=0, atol=2e-4)


def test_tip_adapter(golden) -> None:
    data = golden("tip_adapter_s0")
    settings = data.facts["settings"]
    keys = cache_keys(data["view_features"].permute(1, 0, 2))
    torch.testing.assert_close(keys, data["cache_keys"].T, rtol=0, atol=1e-6)
    values = functional.one_hot(data["train_labels"]).float()
    torch.testing.assert_close(values, data["cache_values"], rtol=0, atol=0)
    text, val = data["text_weights"].T, data["val_features"]
    zero_shot = 100.0 * val @ text.T
    for row, (beta, alpha) in enumerate(data["beta_alpha"].tolist()):
        logits = zero_shot + cache_logits(val, keys, values, beta, alpha)
        torch.testing.assert_close(logits, data["val_logits"][row], rtol=0, atol=2e-4)
    beta, alpha, counts = search(
        val,
        data["val_labels"],
        zero_shot,
        keys,
        values,
        settings["search_scale_beta_alpha"],
        settings["search_steps_beta_alpha"],
    )
    assert torch.equal(counts, data["search_correct"])
    assert (beta, alpha) == pytest.approx(data["search_best_beta_alpha"].tolist(), abs=1e-12)


def test_tip_adapter_f(golden) -> None:
    data = golden("tip_adapter_s0")
    tuner = KeyTuner(**tip_adapter_f_arguments(data))
    for epoch in range(20):
        row = tuner.step(*tip_adapter_f_batch(data, epoch))
        if epoch < 5:
            assert row["learning_rate"] == pytest.approx(float(data["f_lr"][epoch]), rel=1e-6)
            assert row["loss"] == pytest.approx(float(data["f_loss"][epoch]), abs=1e-5)
        if epoch == 4:
            torch.testing.assert_close(tuner.keys.detach(), data["f_keys_after_5"], rtol=0, atol=2e-6)
        answers = tuner.logits(data["test_features"], 1.0, tuner.settings["initial_alpha"]).argmax(1)
        accuracy = 100 * float((answers == data["test_labels"]).float().mean())
        assert accuracy == pytest.approx(float(data["f_test_accuracy_per_epoch"][epoch]), abs=0.01)
    torch.testing.assert_close(tuner.keys.detach(), data["f_keys_final"], rtol=0, atol=5e-6)


def test_tip_adapter_f_test_oracle(golden) -> None:
    """What their program prints at the end: its best epoch on test, and the larger of that and the searched pair's."""
    data = golden("tip_adapter_s0")
    arguments = tip_adapter_f_arguments(data)
    oracle = Oracle(lambda: data["test_features"], data["test_labels"])
    picker = EpochPicker(oracle, **arguments | {"settings": arguments["settings"] | {"search_on": "val"}})
    for epoch in range(20):
        picker.step(*tip_adapter_f_batch(data, epoch))
    chosen, correct = picker.pick(data["val_features"], data["val_labels"])
    best, final = data["f_printed_best_and_final"].tolist()
    accuracies = data["f_test_accuracy_per_epoch"]
    assert chosen["epoch"] == 1 + int(accuracies.argmax()) and float(accuracies.max()) == pytest.approx(best)
    assert 100 * picker.correct / 120 == pytest.approx(best, abs=0.01)
    assert 100 * correct / 120 == pytest.approx(final, abs=0.01)


def tip_adapter_f_arguments(data) -> dict[str, Any]:
    facts, recipe = data.facts["settings"], data.facts["settings"]["F"]
    settings = {
        "initial_beta": facts["init_beta"],
        "initial_alpha": facts["init_alpha"],
        "search_scale": facts["search_scale_beta_alpha"],
        "search_steps": facts["search_steps_beta_alpha"],
        "learning_rate": recipe["optimiser"]["lr"],
        "adam_epsilon": recipe["optimiser"]["eps"],
        "weight_decay": recipe["optimiser"]["weight_decay"],
        "epochs": recipe["train_epoch"],
        "batch_size": recipe["batch"],
    }
    views, text = data["view_features"].permute(1, 0, 2), data["text_weights"].T
    return {
        "views": views,
        "labels": data["train_labels"],
        "text": text,
        "logit_scale": 100.0,
        "settings": settings,
        "seed": 0,
    }


def tip_adapter_f_batch(data, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    return data["f_train_features"][epoch], data["train_labels"][data["f_batch_index"][epoch]]
