"""What stands where in the networks of the paper's families."""

import pytest
from tests.spaces import seeded

from boundnas import elastic, models
from boundnas.models import MobileNet, StageTable, StemTable


def drops(model):
    """Probabilities of drop-connect, layer by layer; none where there is no shortcut."""
    layers = [layer for stage in model.stages for layer in stage.children()]
    return [None if layer.drop is None else layer.drop.probability for layer in layers]


def test_drop_connect_rises_linearly_from_the_first_layer_to_the_last():
    stages = (StageTable((4,), (4,), (1, 3)), StageTable((4,), (4,), (2,)))
    stem = StemTable((4,))
    model = seeded(lambda: MobileNet(stem, stages, 8, image_size=8, drop_connect=0.4))
    # Five layers in all; the first of a stage has no shortcut that could be dropped.
    assert drops(model) == [None, pytest.approx(0.1), pytest.approx(0.2), None, pytest.approx(0.4)]


@pytest.mark.parametrize("family", models.FAMILIES)
def test_both_drops_are_a_fifth_by_default_as_in_the_paper(family):
    model = seeded(lambda: models.paper_space(family, width=0.125, image_size=8))
    assert model.dropout.probability == 0.2
    found = [p for p in drops(model) if p is not None]
    assert found == sorted(found)
    # The last layer of all, Block 7's only one, has no shortcut; the one before has the most.
    layers = len(drops(model))
    assert found[-1] == pytest.approx(0.2 * (layers - 2) / (layers - 1))


def test_without_drops_nothing_is_dropped():
    model = seeded(lambda: models.mobilenet_v2(0.125, image_size=8, dropout=0.0, drop_connect=0.0))
    found = [
        m.probability
        for m in model.modules()
        if isinstance(m, elastic.Dropout | elastic.DropConnect)
    ]
    assert len(found) > 2
    assert set(found) == {0.0}
