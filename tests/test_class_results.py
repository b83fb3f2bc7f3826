"""What is known of each class: images in each split, and the scores that rest on them."""

import json
import re
from dataclasses import replace

import pytest
import torch
from tests.small import trained
from tests.test_report import write_front, write_run

from boundnas import SearchSettings, extract, search
from boundnas.data import Data, InMemory, normalize
from boundnas.errors import RunError
from boundnas.report import write_report
from boundnas.search import Evaluator
from boundnas.search.networks import class_results
from boundnas.store.records import FrontRecord
from boundnas.task import Classification

SETTINGS = SearchSettings(
    initial=6, rounds=1, crossovers=2, mutations=2, calibration_images=200, batch_size=64
)


@pytest.fixture(scope="module")
def front():
    return search(trained(), SETTINGS)


def right_answers(network, source, data):
    """Labels, and which of them the extracted network gives."""
    images, labels = source.take(torch.arange(len(source)))
    with torch.no_grad():
        logits = extract(trained().model, network.arch)(normalize(images, data.mean, data.std))
    return labels, logits.argmax(1) == labels


def test_scores_of_each_class_are_those_of_the_extracted_networks_on_its_images(front):
    data = trained().data
    assert [c.name for c in front.classes] == list(data.classes)
    for i, network in enumerate((*front.networks, *front.outside)):
        labels, right = right_answers(network, data.test, data)
        for label, result in enumerate(front.classes):
            own = right[labels == label]
            assert result.test == len(own)
            assert result.scores[i] == int(own.sum()) / len(own)
        total = sum(c.scores[i] * c.test for c in front.classes)
        assert total / len(data.test) == pytest.approx(network.test)


def test_images_of_each_class_are_counted_in_each_split(front):
    data = trained().data
    for split in ("train", "validation", "test"):
        source = getattr(data, split)
        labels = source.take(torch.arange(len(source)))[1].tolist()
        expected = tuple(labels.count(label) for label in range(10))
        assert tuple(getattr(c, split) for c in front.classes) == expected == data.counts[split]


def test_a_front_is_read_with_its_classes_as_it_was_written(front):
    written = {"identity": {"weights": "x"}, "journal": "y", **front.to_json()}
    assert tuple(FrontRecord.model_validate_json(json.dumps(written)).classes) == front.classes


class OverAll(Classification):
    """A metric that is no mean over images."""

    def meter(self):
        return Share()


class Share:
    def __init__(self):
        self.right, self.all = 0, 0

    def update(self, outputs, targets):
        self.right += int((outputs.argmax(1) == targets).sum())
        self.all += len(targets)

    def compute(self):
        return self.right / self.all


def test_a_metric_over_all_images_has_no_value_for_a_class(front):
    network = front.networks[0]
    evaluator = Evaluator(trained().model, trained().data, SETTINGS, 0, task=OverAll())
    assert evaluator.tested(network.arch) == (network.test, ())
    assert class_results(trained().data, [(), ()]) == ()


def test_a_class_without_test_images_has_no_score(front):
    images, labels = trained().data.test.take(torch.arange(50))
    some = replace(trained().data, test=InMemory(images[labels != 3], labels[labels != 3]))
    _, by_class = Evaluator(trained().model, some, SETTINGS, 0).tested(front.networks[0].arch)
    assert [label for label, score in enumerate(by_class) if score is None] == [3]


def pairs(targets):
    return [(torch.zeros(2), target) for target in targets]


COUNTED = {
    "classes": ([0, 2, 2, 0], ("a", "b", "c"), {"train": (2, 0, 2), "validation": (0, 1, 0)}),
    "no names": ([0, 2, 2, 0], None, None),
    "beyond the names": ([0, 2, 2, 0], ("a", "b"), None),
    "numbers": ([0.5, 1.0, 1.0, 0.0], ("a", "b"), None),
    "several at once": ([torch.tensor([1, 0])] * 4, ("a", "b"), None),
}


@pytest.mark.parametrize(("targets", "names", "expected"), COUNTED.values(), ids=COUNTED)
def test_samples_of_a_dataset_are_counted_where_targets_are_classes(targets, names, expected):
    other = pairs([targets[0]] * 2)
    if expected:
        expected = {**expected, "test": (2, 0, 0)}
        found = Data(pairs(targets), test=other, validation=pairs([1]), classes=names)
    else:
        found = Data(pairs(targets), test=other, validation=other, classes=names)
    assert found.counts == expected
    lines = str(found).splitlines()[1:]
    said = "  of each class (train, validation, test): a 2, 0, 2; b 0, 1, 0; c 2, 0, 0"
    assert lines == ([said] if expected else [])


# --- in the report ---------------------------------------------------------------------------

CLASSES = [("<b>cat</b>", 100, 20, 30), ("dog", 1200, 2, 0), ("emu", 3, 1, 1)]


@pytest.fixture
def reported(tmp_path):
    """A run whose networks score 0.5, 0.52, … on cats, nothing on dogs and 0 on emus."""
    folder = write_run(tmp_path / "run", steps=5, evaluations=20)
    held = json.loads((folder / "front.json").read_text())
    count = len(held["networks"]) + len(held["outside"])
    held["classes"] = [
        {"name": name, "train": a, "validation": b, "test": c, "scores": scores}
        for (name, a, b, c), scores in zip(
            CLASSES,
            ([0.5 + i / 50 for i in range(count)], [None] * count, [0.0] * count),
            strict=True,
        )
    ]
    write_front(folder, held)
    return folder, held


def cells(page):
    (table,) = re.findall(r'<table class="classes">.*?</table>', page, re.DOTALL)
    rows = re.findall("<tr>(.*?)</tr>", table)
    return [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def test_the_report_shows_each_class_and_on_how_many_images_its_figures_rest(reported):
    folder, held = reported
    count = len(held["networks"]) + len(held["outside"])
    best = max(held["networks"], key=lambda network: network["validation"])
    chosen = 0.5 + held["networks"].index(best) / 50
    page = write_report(folder).read_text()
    assert cells(page) == [
        ["Class", "Training", "Validation", "Test", "Chosen", "Lowest", "Highest"],
        [
            "&lt;b&gt;cat&lt;/b&gt;",
            *("100", "20", "30"),
            f"{100 * chosen:.4g} %",
            "50 %",
            f"{100 * (0.5 + (count - 1) / 50):.4g} %",
        ],
        ["dog", "1,200", "2", "0", "none", "none", "none"],
        ["emu", "3", "1", "1", "0 %", "0 %", "0 %"],
    ]
    assert "The accuracy on the test images of each class, by the network that" in page


def test_a_report_says_why_there_is_nothing_about_classes(reported):
    folder, held = reported
    write_front(folder, {**held, "classes": []})
    page = write_report(folder).read_text()
    assert "The accuracy of this run is not known of each class." in page
    assert '<table class="classes">' not in page
    (folder / "front.json").unlink()
    assert "front.json, which comes at the end of the search" in write_report(folder).read_text()


def test_a_class_with_another_number_of_scores_than_networks_is_refused(reported):
    folder, held = reported
    held["classes"][1]["scores"].pop()
    write_front(folder, held)
    with pytest.raises(RunError, match="class 'dog' has not one score of each network"):
        write_report(folder)
