"""LP++ (Huang et al., CVPR 2024): logits_c = w_c f + b_c + alpha_c (t_c f), f and t_c L2-normalised.

As FereshteShakeri/FewShot-CLIP-Strong-Baseline methods/linear_probe_p2.py: w_c starts at the sum of its class's
features, every alpha at 250 times the mean cosine of an image with its own class, b at torch's default; full batch,
cross-entropy without CLIP's temperature. W and b by gradient descent with momentum at the rate 4N / l, l the largest
eigenvalue of F'F; alpha at N / (4 max_c s_c), s_c = sum_i (t_c f_i)^2, in every tenth epoch. What answers is the epoch
with the best few-shot validation accuracy, the later of equals.
What the rates are: l / 4N bounds the curvature in any one w_c and l / 2N that in all of W, so without momentum and bias
4N / l is the largest step that can never raise the loss; alpha's is a sixteenth of the largest.
Alpha goes by the sum of its gradients over all epochs so far: the released program never clears them. With the current
epoch's alone (`sum_alpha_gradients: false`, plain block descent) it hardly moves at that rate.
Departures: the min(K, 4) validation images per class that every method has, where theirs takes K; the training images
are seen in their first cached augmented view (theirs: one random view of the same crop scale); one prompt on ImageNet
(theirs: seven averaged); float32 (theirs is float16).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rmt import train
from rmt.methods import Answer, Task, Tuned
from rmt.methods.tip_adapter import one_hot

LOGITS = "logits = n(f) @ weight.T + bias + alpha * (n(f) @ text.T)"


def blend(features: Tensor, text: Tensor, weight: Tensor, bias: Tensor, alpha: Tensor) -> Tensor:
    """Logits [N, C] from L2-normalised features [N, d] and text [C, d]; `weight` is [C, d], `bias` and `alpha` [C]."""
    return functional.linear(features, weight, bias) + alpha * (features @ text.T)


def initial_weight(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The sum [C, d] of every class's features [N, d]."""
    return one_hot(labels, classes).T @ features


def initial_alpha(features: Tensor, labels: Tensor, text: Tensor, factor: float) -> float:
    """`factor` times the cosine of an image with its own class's text: mean in every class, then over classes."""
    own = (features * text[labels]).sum(1)
    members = one_hot(labels, len(text))
    return factor * float((members.T @ own / members.sum(0)).mean())


def weight_rate(features: Tensor) -> float:
    """Learning rate of W: 4N / l, l the largest eigenvalue of the features' [N, d] second moments F'F."""
    exact = features.double()
    return 4 * len(features) / float(torch.linalg.eigvalsh(exact.T @ exact)[-1])


def alpha_rate(features: Tensor, text: Tensor) -> float:
    """Learning rate of alpha: N / (4 s), s the largest sum over images [N, d] of a class's squared cosine."""
    return len(features) / (4 * float((features @ text.T).double().square().sum(0).max()))


class Blocks(train.Learner):
    """W, b and alpha, what alpha's next update goes by, and the best epoch so far.

    Args:
        features: L2-normalised training features [N, d].
        labels: their class indices [N].
        text: L2-normalised class text features [C, d].
        val: L2-normalised validation features and their class indices.
        settings: the hyperparameters of the method.
        generator: draws the initial bias.
    """

    def __init__(
        self,
        features: Tensor,
        labels: Tensor,
        text: Tensor,
        val: tuple[Tensor, Tensor],
        settings: Mapping[str, Any],
        generator: torch.Generator,
    ) -> None:
        self.features, self.labels, self.text, self.val, self.settings = features, labels, text, val, settings
        start = initial_alpha(features, labels, text, settings["initial_alpha_factor"])
        bound = features.shape[1] ** -0.5  # torch's default for a linear layer's bias
        self.weight = initial_weight(features, labels, len(text)).requires_grad_()
        self.bias = torch.empty(len(text)).uniform_(-bound, bound, generator=generator).requires_grad_()
        self.alpha = torch.full((len(text),), start).requires_grad_()
        self.slope = torch.zeros(len(text))
        self.alpha_rate = alpha_rate(features, text)
        optimiser = torch.optim.SGD([self.weight, self.bias], weight_rate(features), settings["momentum"])
        super().__init__({"weight": self.weight, "bias": self.bias, "alpha": self.alpha}, optimiser)
        self.correct, self.epoch = 0, 0
        self.best = self._now()

    def _now(self) -> dict[str, Tensor]:
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def step(self) -> float:
        """One epoch: an update of W and b, of alpha if it is its turn, and a look at the validation images."""
        loss = functional.cross_entropy(blend(self.features, self.text, **self.parameters), self.labels)
        value = self.descend(loss)
        assert self.alpha.grad is not None
        self.slope = self.alpha.grad + (self.slope if self.settings["sum_alpha_gradients"] else 0)
        self.alpha.grad = None
        with torch.no_grad():
            if self.steps % self.settings["alpha_interval"] == 0:
                self.alpha -= self.alpha_rate * self.slope
            answers = blend(self.val[0], self.text, **self.parameters).argmax(1)
        correct = int((answers == self.val[1]).sum())
        if correct >= self.correct:
            self.correct, self.epoch, self.best = correct, self.steps, self._now()
        return value

    def state(self) -> dict[str, Tensor]:
        """Also the sum of alpha's gradients and the best epoch."""
        best = {f"best.{name}": value for name, value in self.best.items()}
        return super().state() | best | {"slope": self.slope, "picked": torch.tensor([self.correct, self.epoch])}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue where `state` was taken."""
        super().load_state(state)
        self.best = {name: state[f"best.{name}"].clone() for name in self.parameters}
        self.slope = state["slope"].clone()
        self.correct, self.epoch = state["picked"].tolist()


def tune(task: Task) -> Tuned:
    """Train for all epochs and keep the one with the best accuracy on the few-shot validation images."""
    settings = task.hyperparameters
    features = functional.normalize(task.features.views_of(task.shots.train)[:, 0], dim=-1)
    val = functional.normalize(task.features.of(task.shots.val), dim=-1), task.val_labels
    blocks = Blocks(features, task.train_labels, task.text, val, settings, task.generator("lp_plus_plus bias"))

    def source(start: int) -> Iterator[train.Batch]:
        return ((epoch, features, task.train_labels) for epoch in range(start, settings["epochs"]))

    curve = train.run(task.progress, blocks, source, lambda batch: {"loss": blocks.step()})
    return Tuned(
        adapter=blocks.best,
        chosen={"epoch": blocks.epoch},
        curve=curve,
        steps=len(curve),
        trainable_parameters=sum(value.numel() for value in blocks.best.values()),
        images_seen=len(curve) * len(features),
        checkpoint="best",
        rule="val",
        candidates=settings["epochs"],
    )


def answer(task: Task, adapter: Mapping[str, Tensor], chosen: Mapping[str, Any]) -> Answer:
    """The blended logits; bound to the classes of the weights."""
    return lambda images: blend(functional.normalize(images.features, dim=-1), task.text, **adapter)
