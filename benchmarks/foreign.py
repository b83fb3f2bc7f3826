"""The networks that coverage.py tries, each with how it is built and the input it takes.

torchvision's are all that tell classes or segment; of timm one for each family, the smallest; of
further packages some. Classes are few and images small, where a network allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from tests.foreign_networks import foreign
from torch import Tensor, nn

CLASSES = 10


@dataclass(frozen=True)
class Case:
    """A network that nobody here wrote.

    Args:
        library: Where it comes from.
        name: Its name there.
        build: Makes it.
        shape: Of one sample.
        millions: Of parameters, about; the order of trial.
        numbers: Of tokens, for inputs that are whole numbers; 0 for floats.
    """

    library: str
    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    millions: float = 0.0
    numbers: int = 0

    def example(self) -> Tensor:
        """A batch of two."""
        generator = torch.Generator().manual_seed(0)
        if self.numbers:
            return torch.randint(self.numbers, (2, *self.shape), generator=generator)
        return torch.randn(2, *self.shape, generator=generator)


class Tensorwise(nn.Module):
    """A network whose output is taken out of what it returns, by a name."""

    def __init__(self, net: nn.Module, name: str) -> None:
        super().__init__()
        self.net, self.name = net, name

    def forward(self, x: Tensor) -> Tensor:
        """One tensor."""
        return self.net(x)[self.name]


def cases() -> Iterator[Case]:
    """All of them whose package is installed."""
    yield from torchvision()
    yield from timm()
    for library in (vit_pytorch, efficientnet_pytorch, monai, transformers):
        try:
            foreign(library.__name__)
        except ImportError:
            continue
        yield from library()


def torchvision() -> Iterator[Case]:
    """All for classes and for segmentation."""
    models = foreign("torchvision.models")
    for name in models.list_models(module=models):
        options: dict[str, Any] = {"num_classes": CLASSES}
        size = {"inception_v3": 96, "vit_h_14": 56, "maxvit_t": 224}.get(name, 64)
        if name.startswith("vit_"):
            options["image_size"] = size
        if name == "maxvit_t":
            options["input_size"] = (size, size)
        if name in ("googlenet", "inception_v3"):
            options |= {"init_weights": False, "aux_logits": False}
        yield Case("torchvision", name, _torchvision(name, options), (3, size, size), _size(name))
    for name in models.list_models(module=models.segmentation):
        build = _torchvision(name, {"num_classes": CLASSES, "weights_backbone": None})
        yield Case(
            "torchvision", name, lambda b=build: Tensorwise(b(), "out"), (3, 64, 64), _size(name)
        )


def _torchvision(name: str, options: dict[str, Any]) -> Callable[[], nn.Module]:
    return lambda: foreign("torchvision.models").get_model(name, weights=None, **options)


def _size(name: str) -> float:
    weights = foreign("torchvision.models").get_model_weights(name)
    return float(next(iter(weights)).meta["num_params"]) / 1e6


TIMM = """
eca_resnext26ts beit_base_patch16_224 beitv2_base_patch16_224 botnet26t_256 cait_xxs24_224
coat_lite_tiny coatnet_pico_rw_224 convit_tiny convmixer_768_32 convnext_zepto_rms
cpubone_nano crossvit_9_240 cs3darknet_focus_s csatv2 cspnext_tiny davit_tiny
deit_tiny_patch16_224 densenet121 dla46x_c dpn48b ese_vovnet19b_slim_dw edgenext_xx_small
efficientformer_l1 efficientformerv2_s0 efficientnet_b0 efficientvim_m1 efficientvit_b0
efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0 fastvit_t8 focalnet_tiny_srf
gcvit_xxtiny ghostnet_050 ghostnetv2_100 gmixer_12_224 hardcorenas_a hgnetv2_b0
hiera_tiny_224 hrnet_w18_small iformer_t inception_next_atto inception_resnet_v2
inception_v3 inception_v4 lcnet_050 lcnetv2_small legacy_seresnet18 legacy_xception
levit_128s levit_conv_128s lowformer_b0 mambaout_femto mixer_s32_224 mobilenetv3_small_050
mobilenetv4_conv_small_035 mobileone_s0 mobilevit_xxs mobilevitv2_050 mvitv2_tiny
naflexvit_base_patch16_gap nasnetalarge nest_tiny nextvit_small nf_resnet26 nfnet_f0
pit_ti_224 pnasnet5large poolformer_s12 pvt_v2_b0 rdnet_tiny regnetx_002 regnety_002
repghostnet_050 repvgg_a0 repvit_m0_9 res2net50_14w_8s resmlp_12_224 resnest14d resnet10t
resnetv2_18 rexnet_100 sam2_hiera_tiny selecsls42 sequencer2d_s shvit_s1 skresnet18
starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256
swinv2_cr_tiny_224 test_vit_relpos tiny_vit_5m_224 tnt_s_patch16_224 tresnet_m
twins_svt_small vgg11 visformer_tiny vit_tiny_patch16_224 vit_tiny_r_s16_p8_224
vitamin_small_224 volo_d1_224 xception41 xcit_nano_12_p16_224
""".split()  # noqa: SIM905
"""One of a family, or two where they differ much."""

NEED = {
    "crossvit_9_240": 240, "hiera_tiny_224": 224, "sam2_hiera_tiny": 224, "efficientformer_l1": 224,
    "inception_v3": 96, "inception_v4": 96, "inception_resnet_v2": 96,
}  # fmt: skip
"""Sizes of images of networks that take no small ones."""


def timm() -> Iterator[Case]:
    """One of each family."""
    for name in TIMM:
        size = NEED.get(name, 64)
        yield Case("timm", name, lambda n=name, s=size: _timm(n, s), (3, size, size))


def _timm(name: str, size: int) -> nn.Module:
    create = foreign("timm").create_model
    try:
        return create(name, num_classes=CLASSES, img_size=size)
    except TypeError:
        return create(name, num_classes=CLASSES)


def vit_pytorch() -> Iterator[Case]:
    """Transformers written with einops."""
    from_module = {
        "vit": (
            "ViT",
            {"image_size": 32, "patch_size": 8, "dim": 64, "depth": 2, "heads": 4, "mlp_dim": 128},
        ),
        "simple_vit": (
            "SimpleViT",
            {"image_size": 32, "patch_size": 8, "dim": 64, "depth": 2, "heads": 4, "mlp_dim": 128},
        ),
        "deepvit": (
            "DeepViT",
            {"image_size": 32, "patch_size": 8, "dim": 64, "depth": 2, "heads": 4, "mlp_dim": 128},
        ),
        "cct": (
            "CCT",
            {
                "img_size": 32,
                "embedding_dim": 64,
                "n_conv_layers": 1,
                "num_layers": 2,
                "num_heads": 4,
                "mlp_ratio": 2.0,
            },
        ),
        "mobile_vit": (
            "MobileViT",
            {
                "image_size": (64, 64),
                "dims": [32, 40, 48],
                "channels": [8, 16, 24, 24, 32, 32, 40, 40, 48, 48, 160],
            },
        ),
        "max_vit": (
            "MaxViT",
            {
                "dim_conv_stem": 16,
                "dim": 32,
                "dim_head": 16,
                "depth": (1, 1),
                "window_size": 4,
                "mbconv_expansion_rate": 2,
                "mbconv_shrinkage_rate": 0.25,
                "dropout": 0.1,
            },
        ),
    }
    for file, (kind, options) in from_module.items():

        def build(file: str = file, kind: str = kind, options: Any = options) -> nn.Module:
            return getattr(foreign(f"vit_pytorch.{file}"), kind)(num_classes=CLASSES, **options)

        size = 64 if file in ("mobile_vit", "max_vit") else 32
        yield Case("vit_pytorch", kind, build, (3, size, size))


def efficientnet_pytorch() -> Iterator[Case]:
    """The widely copied translation of the original."""
    for name in ("efficientnet-b0", "efficientnet-b1"):

        def build(name: str = name) -> nn.Module:
            made = foreign("efficientnet_pytorch").EfficientNet
            # A block drops its branch by a function while it trains, and would stay as it is.
            options = {"num_classes": CLASSES, "image_size": 64, "drop_connect_rate": 0}
            net = made.from_name(name, **options)
            net.set_swish(memory_efficient=False)  # as its README says for export
            return net

        yield Case("efficientnet_pytorch", name, build, (3, 64, 64))


def monai() -> Iterator[Case]:
    """Of medical images, in two and three dimensions."""
    classes = {"num_classes": CLASSES}
    table: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
        "resnet18 2d": (
            "resnet18",
            {"spatial_dims": 2, "n_input_channels": 3, **classes},
            (3, 64, 64),
        ),
        "resnet10 3d": (
            "resnet10",
            {"spatial_dims": 3, "n_input_channels": 1, **classes},
            (1, 32, 32, 32),
        ),
        "DenseNet121": (
            "DenseNet121",
            {"spatial_dims": 2, "in_channels": 3, "out_channels": CLASSES},
            (3, 64, 64),
        ),
        "SEResNet50": ("SEResNet50", {"spatial_dims": 2, "in_channels": 3, **classes}, (3, 64, 64)),
        "UNet": (
            "UNet",
            {
                "spatial_dims": 2,
                "in_channels": 1,
                "out_channels": 2,
                "channels": (8, 16, 32),
                "strides": (2, 2),
                "num_res_units": 2,
            },
            (1, 32, 32),
        ),
        "UNet 3d": (
            "UNet",
            {
                "spatial_dims": 3,
                "in_channels": 1,
                "out_channels": 2,
                "channels": (8, 16, 32),
                "strides": (2, 2),
                "num_res_units": 2,
            },
            (1, 16, 16, 16),
        ),
        "BasicUNet": (
            "BasicUNet",
            {
                "spatial_dims": 2,
                "in_channels": 1,
                "out_channels": 2,
                "features": (8, 8, 16, 32, 64, 8),
            },
            (1, 32, 32),
        ),
        "SegResNet": (
            "SegResNet",
            {"spatial_dims": 2, "init_filters": 8, "in_channels": 1, "out_channels": 2},
            (1, 32, 32),
        ),
        "AttentionUnet": (
            "AttentionUnet",
            {
                "spatial_dims": 2,
                "in_channels": 1,
                "out_channels": 2,
                "channels": (8, 16, 32),
                "strides": (2, 2),
            },
            (1, 32, 32),
        ),
        "ViT": (
            "ViT",
            {
                "in_channels": 1,
                "img_size": (32, 32),
                "patch_size": (8, 8),
                "hidden_size": 64,
                "mlp_dim": 128,
                "num_layers": 2,
                "num_heads": 4,
                "classification": True,
                "spatial_dims": 2,
                **classes,
            },
            (1, 32, 32),
        ),
        "UNETR": (
            "UNETR",
            {
                "in_channels": 1,
                "out_channels": 2,
                "img_size": (32, 32),
                "feature_size": 8,
                "hidden_size": 64,
                "mlp_dim": 128,
                "num_heads": 4,
                "spatial_dims": 2,
            },
            (1, 32, 32),
        ),
    }
    for name, (kind, options, shape) in table.items():

        def build(kind: str = kind, options: Any = options) -> nn.Module:
            return getattr(foreign("monai.networks.nets"), kind)(**options)

        taken = build if name != "ViT" else (lambda b=build: Tensorwise(b(), 0))
        yield Case("monai", name, taken, shape)


def transformers() -> Iterator[Case]:
    """Of language and of images, small, from their configurations."""
    small = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    }
    ends = {"bos_token_id": 1, "eos_token_id": 2}
    images = {**small, "image_size": 32, "patch_size": 8}
    table: dict[str, tuple[dict[str, Any], tuple[int, ...], int]] = {
        "BertForSequenceClassification": ({**small, "vocab_size": 50}, (12,), 50),
        "DistilBertForSequenceClassification": (
            {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "vocab_size": 50},
            (12,),
            50,
        ),
        "GPT2LMHeadModel": (
            {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 50, "use_cache": False, **ends},
            (12,),
            50,
        ),
        "LlamaForCausalLM": (
            {**small, "num_key_value_heads": 2, "vocab_size": 50, "use_cache": False, **ends},
            (12,),
            50,
        ),
        "ViTForImageClassification": (images, (3, 32, 32), 0),
        "DeiTForImageClassification": (images, (3, 32, 32), 0),
        "ResNetForImageClassification": (
            {
                "embedding_size": 16,
                "hidden_sizes": [16, 32],
                "depths": [2, 2],
                "layer_type": "basic",
            },
            (3, 32, 32),
            0,
        ),
        "ConvNextForImageClassification": (
            {"hidden_sizes": [16, 32, 64, 64], "depths": [1, 1, 2, 1]},
            (3, 64, 64),
            0,
        ),
    }
    for name, (options, shape, numbers) in table.items():

        def build(name: str = name, options: Any = options) -> nn.Module:
            library = foreign("transformers")
            kind = getattr(library, name)
            return Tensorwise(kind(kind.config_class(**options, num_labels=CLASSES)), "logits")

        yield Case("transformers", name, build, shape, numbers=numbers)
