"""Transformers from training to the file that is deployed."""

import numpy as np
import onnxruntime
import pytest
import torch
from tests.small import few_digits
from tests.spaces import seeded

import boundnas as bn
from boundnas import models, tasks
from boundnas.errors import SpaceError
from boundnas.models import NETWORKS, TransformerTable, VisionTransformer

TOKENS, LENGTH = 7, 6


def sentences(number, seed):
    """Sequences in which every token follows from the one before."""
    starts = np.random.RandomState(seed).randint(TOKENS, size=number)
    rows = [[start] for start in starts]
    for row in rows:
        while len(row) <= LENGTH:
            row.append((3 * row[-1] + 1) % TOKENS)
    return np.array(rows)


def next_tokens():
    parts = (sentences(160, 0), sentences(40, 1))
    train, test = ([(row[:-1], row[1:]) for row in part] for part in parts)
    return bn.Data(train, test=test, name="sentences"), tasks.NextToken(), None


def likely_tokens():
    """The class says which two of the tokens there are."""
    draw = np.random.RandomState(0)
    labels = draw.randint(TOKENS, size=200)
    rows = [((c + draw.randint(2, size=LENGTH)) % TOKENS, int(c)) for c in labels]
    names = [str(i) for i in range(TOKENS)]
    return bn.Data(rows[:160], test=rows[160:], classes=names), tasks.Classification(), TOKENS


@pytest.mark.parametrize("job", [next_tokens, likely_tokens])
def test_a_transformer_of_text_goes_from_training_to_a_file(job, tmp_path):
    data, task, classes = job()
    table = TransformerTable((4, 8, 16), (1, 2), (8, 16), (1, 2), head_width=4)
    model = seeded(lambda: models.TextTransformer(table, TOKENS, LENGTH, classes))
    settings = bn.TrainSettings(steps=40, batch_size=32, learning_rate=0.05)
    run = bn.fit(model, data, task=task, cost_range=(2e3, 12e3), settings=settings)
    search = bn.SearchSettings(initial=8, rounds=1, crossovers=2, mutations=2)
    front = bn.search(run, search)
    best = max(front.networks, key=lambda network: network.validation)
    untrained = -np.log2(TOKENS) if classes is None else 1 / TOKENS
    assert best.test > untrained + (1 if classes is None else 0.3)
    net = bn.extract(run.model, best.arch)
    path = bn.export(net, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(path)
    x = torch.from_numpy(sentences(5, 2)[:, 1:])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), net(x), rtol=1e-4, atol=1e-4)
        assert torch.equal(net(x), run.model.eval()(x, best.arch))


def test_a_token_tells_the_next_one_from_those_before_it_alone():
    model = seeded(lambda: models.text_transformer(TOKENS, LENGTH, 0.125)).eval()
    x, arch = torch.from_numpy(sentences(3, 0)[:, 1:]), model.space.largest
    other = x.clone()
    other[:, 3:] = (other[:, 3:] + 1) % TOKENS
    with torch.no_grad():
        one, two = model(x, arch), model(other, arch)
    torch.testing.assert_close(one[:, :3], two[:, :3])
    assert not torch.isclose(one[:, 3:], two[:, 3:]).all(2).any()


@pytest.mark.parametrize("family", ["vit"])
def test_a_family_learns_its_boundaries_on_images(family):
    model = seeded(lambda: NETWORKS[family](0.05, 8, in_channels=1, classes=10))
    settings = bn.TrainSettings(steps=3, batch_size=16)
    run = bn.fit(model, few_digits(), cost_range=(3e4, 5e5), settings=settings)
    assert run.model is model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: VisionTransformer(t, 3, 8), "found 8 pixels and patches of 3"),
        (lambda t: VisionTransformer(t, 4, 8, pool="first"), "token or mean, found 'first'"),
        (lambda t: models.TextTransformer(t, 0, 8), "vocabulary must be a whole number of at"),
    ],
)
def test_transformers_that_cannot_be_are_refused(make, message):
    with pytest.raises(SpaceError, match=message):
        make(TransformerTable((4, 8), (1,), (8,), (1,)))
