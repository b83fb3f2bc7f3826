"""Which runs each figure of the paper compares, at the paper's scale and at that of two cores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boundnas.config import RunConfig

SCALES = ("small", "paper")

Values = Mapping[str, Any]
"""Sections and keys of a configuration, nested as in its file."""


@dataclass(frozen=True)
class Figure:
    """One comparison of the paper.

    Args:
        claim: What the paper reads off it.
        space: Name of the space its variants share.
        variants: Names in `VARIANTS`; the first is the one the others are compared with.
        sets: The paper's data sets for it; none for a space that is not the paper's.
        cost: The paper's range of MMACs.
        small: The data set at the small scale.
    """

    claim: str
    space: str
    variants: tuple[str, ...]
    sets: tuple[str, ...]
    cost: tuple[float, float] = (10, 90)
    small: str = "fashion_mnist"


COMBINED: dict[str, Values] = {
    "alpha": {"distillation": "adaptive_alpha"},
    "projected": {"conflict": "project"},
    "best-up": {"random_choice": "best_up"},
    "worst-up": {"random_choice": "worst_up"},
}
"""What the paper calls orthogonal to learned boundaries: AlphaNet, NASViT and AttentiveNAS."""

VARIANTS: dict[str, Values] = {
    "fixed": {"train": {"learn": "none"}},
    "boundaries": {"train": {"learn": "both"}},
    "min-only": {"train": {"learn": "min"}},
    "max-only": {"train": {"learn": "max"}},
    "fixed-doubled": {"train": {"learn": "none", "length": 2}},
    "boundaries-half": {"train": {"learn": "both", "length": 0.5}},
    "fixed-equal-time": {"train": {"learn": "none", "length": 1.2}},
    "fixed-longer": {"train": {"learn": "none", "length": 4 / 3}},
    "clipped": {"train": {"learn": "none", "bounds": "from_cost"}},
    "boundaries-from-clip": {"train": {"learn": "both", "bounds": "from_cost"}},
    "fixed-long": {"train": {"learn": "none", "length": 4.5}},
    "boundaries-long": {"train": {"learn": "both", "length": 4.5, "policy_learning_rate": None}},
    "clipped-long": {"train": {"learn": "none", "bounds": "from_cost", "length": 4.5}},
    "boundaries-from-clip-long": {
        "train": {
            "learn": "both",
            "bounds": "from_cost",
            "length": 4.5,
            "policy_learning_rate": None,
        }
    },
    "sharp-start": {"train": {"learn": "both", "start_std": 0.3}},
    "sharper-start": {"train": {"learn": "both", "start_std": 1.0}},
    "flat-start": {"train": {"learn": "both", "start_std": 0.03}},
    "policies-1e-2": {"train": {"learn": "both", "policy_learning_rate": 1e-2}},
    "policies-2e-3": {"train": {"learn": "both", "policy_learning_rate": 2e-3}},
    "policies-5e-4": {"train": {"learn": "both", "policy_learning_rate": 5e-4}},
    "policies-every-4": {"train": {"learn": "both", "policy_every": 4}},
    "policies-every-4-faster": {
        "train": {"learn": "both", "policy_every": 4, "policy_learning_rate": 0.12}
    },
    "fixed-unclipped": {"train": {"learn": "none", "clip_value": None}},
    "boundaries-unclipped": {"train": {"learn": "both", "clip_value": None}},
    "ghosts-quarter": {"train": {"learn": "both", "ghost_fraction": 0.25}},
    "ghosts-eighth": {"train": {"learn": "both", "ghost_fraction": 0.125}},
    "ghosts-sixteenth": {"train": {"learn": "both", "ghost_fraction": 1 / 16}},
    "score-function": {"train": {"learn": "both", "estimator": "score_function"}},
    "measure-valued": {"train": {"learn": "both", "estimator": "measure_valued"}},
    **{
        f"{name}-{idea}": {"train": {"learn": learn, **changes}}
        for idea, changes in COMBINED.items()
        for name, learn in (("fixed", "none"), ("boundaries", "both"))
    },
    "grad-from-random": {"train": {"learn": "both", "grad_from_random": True}},
    "fixed-W": {"train": {"learn": "none"}, "searched": ""},
    "fixed-WK": {"train": {"learn": "none"}, "searched": "K"},
    "fixed-WD": {"train": {"learn": "none"}, "searched": "D"},
}
"""What a variant changes. ``train.length`` multiplies the length of training: 1.2 gives fixed
boundaries the time of learned ones in the small space of Fig. 4, 4/3 in those of Figs. 3 and 5, as
measured; ``searched`` replaces the space by one with kernels (K) and depths (D) searched beside
widths."""

FIGURES: dict[str, Figure] = {
    "fig2": Figure(
        "fixed boundaries train large spaces badly, learned ones close the gap",
        "KD",
        (
            "fixed",
            "boundaries",
            "fixed-W",
            "fixed-WK",
            "fixed-WD",
        ),
        ("cifar100",),
    ),
    "fig3": Figure(
        "learned boundaries give the better front when only widths are searched",
        "",
        ("fixed", "boundaries", "fixed-longer"),
        ("cifar10", "cifar100", "imagenet_d"),
        (6, 60),
    ),
    "fig4": Figure(
        "learned boundaries give the better front in the MobileNetV2-like space",
        "KD",
        ("fixed", "boundaries", "fixed-equal-time"),
        ("cifar10", "cifar100", "imagenet_d", "imagenet"),
    ),
    "fig5": Figure(
        "learned boundaries give the better front in the MobileNetV3-like space",
        "KDSA",
        ("fixed", "boundaries", "fixed-longer"),
        ("cifar10", "imagenet_d"),
    ),
    "fig6": Figure(
        "boundaries tighten, depth first (also Fig. 7 and 9 to 11)",
        "KD",
        ("boundaries",),
        ("cifar10", "cifar100"),
    ),
    "fig12": Figure(
        "learning the lower boundary only lies between none and both",
        "KD",
        ("fixed", "min-only", "boundaries", "max-only"),
        ("cifar10", "cifar100"),
    ),
    "fig13": Figure(
        "gradients of the policies from random networks do not help",
        "KD",
        ("boundaries", "grad-from-random", "fixed"),
        ("cifar10",),
    ),
    "fig14": Figure(
        "learned boundaries stay ahead of fixed ones that train twice as long",
        "KD",
        ("fixed-doubled", "boundaries", "boundaries-half", "fixed"),
        ("cifar100",),
    ),
    "estimators": Figure(
        "not in the paper: Gumbel-softmax, score function and measure-valued gradients",
        "KD",
        ("boundaries", "score-function", "measure-valued", "fixed"),
        ("cifar10",),
    ),
    "price": Figure(
        "not in the paper: options not chosen on a part of the batch, which costs less",
        "KD",
        ("boundaries", "ghosts-eighth", "ghosts-sixteenth"),
        ("cifar10",),
    ),
    "price-widths": Figure(
        "the same where only widths are searched, so that every gate is one of channels",
        "",
        ("boundaries", "ghosts-eighth"),
        ("cifar10",),
        (6, 60),
    ),
    "combinations": Figure(
        "not in the paper: what it calls orthogonal, alone and on top of learned boundaries",
        "KD",
        (
            "fixed",
            "boundaries",
            *(f"{name}-{idea}" for idea in COMBINED for name in ("fixed", "boundaries")),
        ),
        ("cifar10",),
    ),
    "controls": Figure(
        "not in the paper: fixed boundaries in the space cut by hand to the cost range",
        "KD",
        ("fixed", "boundaries", "clipped", "boundaries-from-clip"),
        ("cifar10",),
    ),
    "controls-v3": Figure(
        "the same in the MobileNetV3-like space, where a cut by cost leaves more open",
        "KDSA",
        ("fixed", "boundaries", "clipped", "boundaries-from-clip"),
        ("cifar10",),
    ),
    "controls-harm": Figure(
        "the same with kernels of one pixel, which harm by more than they save; a cut by cost "
        "leaves them in",
        "KDH",
        ("fixed", "boundaries", "clipped", "boundaries-from-clip"),
        (),
    ),
    "controls-words": Figure(
        "the same for a transformer that tells the language of a word",
        "text",
        ("fixed", "boundaries", "clipped", "boundaries-from-clip"),
        (),
        small="words",
    ),
    "controls-long": Figure(
        "the same in 4.5 times the steps, 8 passes over the images at the small scale",
        "KD",
        ("fixed-long", "boundaries-long", "clipped-long", "boundaries-from-clip-long"),
        ("cifar10",),
    ),
    "robustness": Figure(
        "not in the paper: what the outcome of learned boundaries depends on",
        "KD",
        (
            "fixed",
            "boundaries",
            "min-only",
            "sharp-start",
            "sharper-start",
            "flat-start",
            "policies-1e-2",
            "policies-2e-3",
            "policies-5e-4",
            "policies-every-4",
            "policies-every-4-faster",
            "ghosts-eighth",
            "fixed-unclipped",
            "boundaries-unclipped",
        ),
        ("cifar10",),
    ),
}
"""The comparisons, by figure of the paper, and some of our own."""

_FAMILIES = {
    "": "width_only",
    "K": "width_kernel",
    "D": "width_depth",
    "KD": "mobilenet_v2",
    "KDSA": "mobilenet_v3",
}
"""The paper's spaces by what they search beside widths: kernels, depths, SE and activations."""


def configuration(
    figure: str, variant: str, seed: int, scale: str, data_set: str, data: Path | None
) -> RunConfig:
    """The run of one variant and seed.

    Runs that several figures need have the same name and configuration in each.

    Args:
        figure: A name in `FIGURES`.
        variant: One of its variants.
        seed: The run's seed.
        scale: ``"paper"``, or ``"small"`` for two cores.
        data_set: The data set; at the small scale that of the figure.
        data: Folder with a folder per data set, for sets that do not come with a package.
    """
    changes = VARIANTS[variant]
    searched = changes.get("searched", FIGURES[figure].space)
    train = dict(changes["train"])
    length = train.pop("length", 1)
    small = _SMALL[FIGURES[figure].small]
    lower, upper = FIGURES[figure].cost if scale == "paper" else small.cost
    method = variant.removesuffix(f"-W{searched}")
    common = {
        "name": f"{data_set}-W{searched}-{lower:g}to{upper:g}-{method}-{seed}",
        "seed": seed,
        "cost": {"lower": lower, "upper": upper},
        "export": {"formats": []},
    }
    if scale == "small":
        return RunConfig.model_validate(
            {
                **common,
                "threads": 1,
                **small.values,
                "space": small.space(searched),
                "train": {**small.train, **train, "steps": round(small.steps * length)},
                "search": _SMALL_SEARCH,
            }
        )
    large = data_set.startswith("imagenet")
    return RunConfig.model_validate(
        {
            **common,
            "data": {
                "set": data_set,
                "folder": str((data or Path("data")) / data_set),
                "validation_fraction": 0.04 if large else 0.1,
                **({"image_size": 224} if data_set == "imagenet" else {}),
            },
            "space": {"family": _FAMILIES[searched]},
            "train": {
                "epochs": 120.0 * length,
                "batch_size": 1024 if large else 256,
                "learning_rate": 0.4 if large else 0.1,
                "weight_decay": 1e-5 if large else 5e-4,
                "policy_learning_rate": 5e-4,
                "ghost_fraction": 1.0,
                **train,
            },
        }
    )


_SMALL_SEARCH = {
    "initial": 64,
    "rounds": 6,
    "crossovers": 16,
    "mutations": 16,
    "calibration_images": 1024,
}


@dataclass(frozen=True)
class _Stage:
    """Largest channels and depth of a stage at the small scale."""

    intermediate: int
    output: int
    depth: int
    stride: int
    fixed_depth: int = field(default=1)


_SMALL_STAGES = (
    _Stage(32, 8, 1, 1),
    _Stage(48, 12, 4, 2, fixed_depth=2),
    _Stage(96, 24, 4, 2, fixed_depth=3),
    _Stage(160, 40, 4, 1, fixed_depth=2),
)


def _small_space(searched: str) -> Values:
    """A MobileNetV2-like space of 28x28 images, up to 2.5 MMACs.

    Args:
        searched: Beside widths: kernels (K), depths (D), squeeze-and-excite (S), activations (A),
            and kernels of one pixel (H), which harm by more than they save.
    """
    kernel = [3, 5] if "K" in searched else [3]
    if "H" in searched:
        kernel = [1, *kernel]

    def eighths(largest: int) -> list[int]:
        return [round(largest * k / 8) for k in range(1, 9)]

    return {
        "last_width": 160,
        "dropout": 0.0,
        "drop_connect": 0.0,
        "stem": {"width": eighths(16), "kernel": kernel, "stride": 2},
        "stages": [
            {
                "intermediate": eighths(s.intermediate),
                "output": eighths(s.output),
                "depth": list(range(1, s.depth + 1)) if "D" in searched else [s.fixed_depth],
                "kernel": kernel,
                "se": [False, True] if "S" in searched else [False],
                "activation": ["relu", "swish"] if "A" in searched else ["relu"],
                "stride": s.stride,
            }
            for s in _SMALL_STAGES
        ],
    }


def _text_space(searched: str) -> Values:
    """Transformers of twelve letters: 10 dimensions, of widths, heads and depth."""
    return {
        "use": "boundnas.models:text_transformer",
        "vocabulary": 64,
        "length": 12,
        "classes": 10,
        "width": 0.25,
    }


@dataclass(frozen=True)
class _Small:
    """What all runs on a data set have in common at the small scale.

    Args:
        cost: Range of MMACs.
        steps: Of training.
        space: Of what is searched.
        train: How networks are trained.
        values: What else the configuration says.
    """

    cost: tuple[float, float]
    steps: int
    space: Callable[[str], Values]
    train: Values
    values: Values


_SMALL = {
    "fashion_mnist": _Small(
        (0.3, 1.2),
        1500,
        _small_space,
        {
            "batch_size": 64,
            "start_std": 0.1,
            "policy_learning_rate": 3e-2,
            "ghost_fraction": 1.0,
        },
        {"data": {"set": "fashion_mnist", "validation_fraction": 0.1}},
    ),
    "words": _Small(
        (0.04, 0.3),
        3000,
        _text_space,
        {"batch_size": 128, "start_std": 0.1},
        {
            "data": {"use": "studies.jobs.words:many"},
            "optimizer": {"use": "torch.optim:AdamW", "lr": 1e-2, "weight_decay": 0.01},
        },
    ),
}
