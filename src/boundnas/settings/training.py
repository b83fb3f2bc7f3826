"""How a supernet is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from boundnas.settings.base import Settings, Values
from boundnas.settings.explain import Location, number


class PriorSettings(Settings):
    """Where the learned boundaries of some dimensions start, from what is known beforehand."""

    dimensions: str = Field(
        pattern=r"^[A-Za-z0-9._*?-]{1,100}$",
        description="name of dimensions, without blanks, * for any part of it: stage*.kernel",
    )
    smallest: float | None = Field(
        default=None,
        ge=0,
        le=10**9,
        description="the min policy starts at the smallest option from here on; text and switches "
        "count from 0",
    )
    largest: float | None = Field(
        default=None,
        ge=0,
        le=10**9,
        description="the max policy starts at the largest option up to here",
    )

    @classmethod
    def _conflicts(cls, values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
        if not {"smallest", "largest"} <= values.keys():
            return
        smallest, largest = values["smallest"], values["largest"]
        if smallest is None and largest is None:
            yield (), "needs {here}smallest or {here}largest, found neither; write at least one"
        if smallest is not None and largest is not None and largest < smallest:
            yield (
                ("largest",),
                f"{number(largest)} is below {{here}}smallest = {number(smallest)}",
            )


class TrainSettings(Settings):
    """How the supernet and its boundary policies are trained (Algorithm 1)."""

    steps: int | None = Field(
        default=None, ge=1, le=10**9, description="training steps; give this or epochs"
    )
    epochs: float | None = Field(
        default=None, gt=0, le=10**6, description="passes over the training set; give this or steps"
    )
    batch_size: int = Field(default=64, ge=2, le=65_536, description="images per training step")
    precision: Literal["float32", "bf16"] = Field(
        default="float32",
        description="what layers compute in while they train; search and export are in float32",
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        le=32_768,
        description="parts of the batch that are computed one after the other, to save memory",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="layers of stages are computed again in the backward pass, which saves memory, "
        "costs time, and gives the same bytes",
    )
    learning_rate: float = Field(
        default=0.1, gt=0, le=100, description="SGD step size of the weights at the end of warm-up"
    )
    warmup_start: float = Field(
        default=1e-5, ge=0, le=100, description="learning rate that the linear warm-up starts from"
    )
    warmup_fraction: float = Field(
        default=5 / 120,
        ge=0,
        lt=1,
        description="part of the run spent warming up, before cosine decay",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="SGD momentum of the weights")
    weight_decay: float = Field(default=5e-4, ge=0, le=1, description="L2 penalty on the weights")
    mixup: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="pairs of samples are added up in shares drawn from Beta(mixup, mixup), their "
        "targets likewise, such as 0.2; null mixes nothing",
    )
    cutmix: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="a part of one image of a pair is put into the other, its area drawn from "
        "Beta(cutmix, cutmix), such as 1; beside mixup each comes in half of the steps",
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="decay of a moving average of the weights, which is then what is searched and "
        "extracted, such as 0.9998; null for the weights of the last step",
    )
    clip_value: float | None = Field(
        default=1.0,
        gt=0,
        le=10**6,
        description="where gradients of weights and policies are cut off, null for no limit",
    )
    learn: Literal["both", "min", "max", "none"] = Field(
        default="both",
        description="which boundaries of the space are learned, none is the sandwich rule",
    )
    bounds: Literal["whole", "from_cost"] = Field(
        default="whole",
        description="where boundaries begin, and stay if they are not learned: at the ends of the "
        "space, or with all widths cut by one ratio to what the cost range needs",
    )
    grad_from_random: bool = Field(
        default=False,
        description="whether random networks teach the policies too, as in Appendix C",
    )
    random_networks: int = Field(
        default=2,
        ge=0,
        le=64,
        description="random sub-networks per step, beside the max and the min one",
    )
    random_choice: Literal["uniform", "best_up", "worst_up"] = Field(
        default="uniform",
        description="how random networks are drawn, best_up and worst_up are AttentiveNAS': that "
        "of least or most loss on the labels of the batch among some of like cost",
    )
    candidates: int = Field(
        default=3,
        ge=2,
        le=1000,
        description="networks of like cost that best_up and worst_up choose from",
    )
    distillation: Literal["task", "adaptive_alpha"] = Field(
        default="task",
        description="distance of a student to the max network: the task's own, or AlphaNet's "
        "adaptive_alpha, which is one of class logits",
    )
    conflict: Literal["sum", "project"] = Field(
        default="sum",
        description="the max network's gradient is added as it is, or without what opposes its "
        "students', as in NASViT",
    )
    penalty_weight: float = Field(
        default=5.0,
        ge=0,
        le=10**6,
        description="weight lambda of the penalty on costs out of range",
    )
    tau: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="probability from which Eq. 6 counts an option as inside",
    )
    eq6: Literal["closed", "printed"] = Field(
        default="closed",
        description="Eq. 6 with the boundaries themselves, or as the paper prints it",
    )
    policy_learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=100,
        description="step size of the policy parameters; left out, 45 over the number of steps, "
        "at most 0.05, times policy_every",
    )
    estimator: Literal["straight_through", "score_function", "measure_valued"] = Field(
        default="straight_through",
        description="estimator of the policies' gradient, the last two compare losses of two "
        "networks",
    )
    policy_every: int = Field(
        default=1,
        ge=1,
        le=10**6,
        description="the policies learn in every so many-th step, the steps between cost no more "
        "than plain ones",
    )
    start_std: float = Field(
        default=0.0316227766, gt=0, le=100, description="standard deviation of Eq. 7's increments"
    )
    start_temperature: float = Field(
        default=0.1,
        ge=1e-6,  # far below, what is divided by it is no float32 any more
        le=1000,
        description="softmax temperature of the policies' start in Eq. 7",
    )
    prior: Annotated[Values[PriorSettings], Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="options the learned boundaries start at; left out, the largest and smallest",
    )
    gumbel_temperature: float = Field(
        default=0.5, gt=0, le=1000, description="temperature of the Gumbel-softmax gradient"
    )
    ghost_fraction: float = Field(
        default=0.125,
        gt=0,
        le=1,
        description="part of the batch, at least 4 samples, that the gradient of options not "
        "chosen is computed on",
    )
    checkpoint_every: int = Field(
        default=200, ge=1, le=10**9, description="steps between checkpoints"
    )

    @property
    def mixes(self) -> bool:
        """Whether samples are mixed in pairs."""
        return self.mixup is not None or self.cutmix is not None

    @classmethod
    def _conflicts(cls, values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
        if values.get("grad_from_random") and values.get("learn") == "none":
            yield (
                ("grad_from_random",),
                "found true beside {here}learn = none, where there is no policy to teach; "
                "drop one of the two",
            )
        estimator = values.get("estimator", "straight_through")
        if values.get("grad_from_random") and estimator != "straight_through":
            yield (
                ("grad_from_random",),
                f"found true beside {{here}}estimator = {estimator}, where no gradient flows "
                "through networks; drop one of the two",
            )
        if values.get("prior") and values.get("learn") == "none":
            yield (
                ("prior",),
                "found beside {here}learn = none, where no boundary starts anywhere; drop it, or "
                "leave those options out of the space",
            )
        batch, parts = values.get("batch_size", 2), values.get("accumulate", 1)
        mixing = [name for name in ("mixup", "cutmix") if values.get(name) is not None]
        if batch % parts or batch < 2 * parts or (mixing and batch % (2 * parts)):
            yield (
                ("accumulate",),
                f"found {parts} beside {{here}}batch_size = {batch}, which does not come to equal "
                f"parts of two images or more{', or of pairs' * bool(mixing)}; take a divisor of "
                "the batch",
            )
        if not {"steps", "epochs"} <= values.keys():
            return
        steps, epochs = values["steps"], values["epochs"]
        if steps is None and epochs is None:
            yield (), "needs {here}steps or {here}epochs, found neither; write one, as steps: 1000"
        if steps is not None and epochs is not None:
            yield ("epochs",), f"found beside {{here}}steps = {steps}; keep one of the two"
