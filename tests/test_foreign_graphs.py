"""The laws over networks of torchvision and timm, which nobody here wrote."""

import copy

import pytest
import torch
from tests import laws
from tests.foreign_networks import foreign

from boundnas import elasticize

TORCHVISION = {
    "squeezenet1_1": 32,
    "shufflenet_v2_x0_5": 32,
    "mobilenet_v3_small": 32,
    "resnet18": 32,
    "regnet_y_400mf": 32,
    "mnasnet0_5": 32,
    "efficientnet_b0": 32,
}
TIMM = {
    "test_vit": 32,
    "test_convnext": 32,
    "test_efficientnet": 32,
    "test_resnet": 32,
    "deit_tiny_patch16_224": 32,
    "regnetx_002": 32,
    "ghostnet_050": 32,
}
QUICK = ("squeezenet1_1",)
"""Those that are not left to ``--full``."""


def network(name):
    """In evaluation, with random weights, and a batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name in TORCHVISION:
            net = foreign("torchvision.models").get_model(name, weights=None, num_classes=5)
            size = TORCHVISION[name]
        else:
            size = TIMM[name]
            create = foreign("timm").create_model
            options = {"img_size": size} if "vit" in name or "deit" in name else {}
            net = create(name, num_classes=5, **options)
        for parameter in net.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
        return net.eval(), torch.randn(2, 3, size, size)


@pytest.mark.parametrize("name", [*TORCHVISION, *TIMM])
def test_the_laws_hold_for_networks_that_others_wrote(name, full):
    if name not in QUICK and not full:
        pytest.skip("runs with --full")
    net, example = network(name)
    model = elasticize(net, example, sort=False)
    laws.largest_is_original(net, model, exact=True)
    laws.extracted_is_supernet(model, 1)
    twin = copy.deepcopy(net).double()
    double = elasticize(twin, example.double())
    laws.largest_is_original(twin, double, exact=False)
    laws.trainable(double)
    laws.gradient_is_masked(double)
    assert model.report.searched_macs > 0.8
