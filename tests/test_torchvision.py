"""Real transforms of torchvision and real metrics of torchmetrics do what the docs promise."""

import pytest
import torch
from sklearn import metrics
from tests.foreign_networks import foreign
from tests.reliability.ranks import finish, together
from torch.nn import functional as F
from torch.utils.data import Dataset

from boundnas import Data, SearchSettings, Supernet, TrainSettings, elastic, fit, search, tasks
from boundnas.data import TrainingOrder
from boundnas.engine import ranks
from boundnas.errors import DataError, TaskError
from boundnas.randomness import stream

v2 = foreign("torchvision.transforms.v2")
tv_tensors = foreign("torchvision.tv_tensors")
torchmetrics = foreign("torchmetrics")

NUMBER, CLASSES = 30, 3
PIXELS = torch.randint(256, (NUMBER, 3, 8, 8), generator=stream(0, "pixels"), dtype=torch.uint8)
FLOATS = v2.ToDtype(torch.float32, scale=True)


class Pictures(Dataset):
    """PIL images and classes, as torchvision's own sets give them."""

    def __init__(self, transform, number=NUMBER):
        self.transform, self.number = transform, number

    def __len__(self):
        return self.number

    def __getitem__(self, i):
        return self.transform(v2.functional.to_pil_image(PIXELS[i])), i % CLASSES


PLAIN = v2.Compose([v2.ToImage(), FLOATS])


def made(transform, **options):
    held = {"plain": Pictures(PLAIN), "test": Pictures(PLAIN, 9), "validation_fraction": 0.2}
    return Data(Pictures(transform), **held | options)


RANDOM = {
    "crop and mirror": [v2.RandomCrop(8, padding=2), v2.RandomHorizontalFlip()],
    "shapes": [v2.RandomAffine(20, (0.1, 0.1)), v2.RandomPerspective(), v2.RandomResizedCrop(8)],
    "colours": [v2.ColorJitter(0.4, 0.4, 0.4, 0.2), v2.RandomGrayscale(), v2.GaussianBlur(3)],
    "policies": [v2.RandomChoice([v2.RandAugment(), v2.TrivialAugmentWide()]), v2.AugMix()],
    "of floats": [v2.ToImage(), FLOATS, v2.ElasticTransform(20.0, 0.8), v2.RandomErasing(p=0.9)],
}


def batches(found, first=0, last=4, part=slice(None)):
    """Bytes of the batches of some steps."""
    drawn = found.training(TrainingOrder(len(found.train), 8, 0), first, last, part)
    return [(x.numpy().tobytes(), y.numpy().tobytes()) for x, y in drawn]


@pytest.mark.parametrize("name", RANDOM)
def test_random_transforms_give_the_same_bytes_by_any_number_of_workers_and_from_any_step(name):
    transform = v2.Compose([*RANDOM[name], v2.ToImage(), FLOATS])
    found = made(transform)
    expected = batches(found)
    assert len({x for x, _ in expected}) == 4
    assert expected != batches(made(PLAIN, plain=None)), "the transform changes nothing"
    assert batches(made(transform, workers=2)) == expected
    assert batches(found, first=2) == expected[2:]
    halves = [batches(found, part=slice(4 * r, 4 * r + 4)) for r in range(2)]
    assert [(a[0] + b[0], a[1] + b[1]) for a, b in zip(*halves, strict=True)] == expected


class Net(Supernet):
    def __init__(self, example, outputs=CLASSES):
        super().__init__(example)
        width = self.dimension("width", [2, 4])
        self.conv, self.head = elastic.Conv2d(3, width, 3), elastic.Linear(width, outputs)

    def forward(self, x, arch):
        return self.head(self.conv(x, arch).relu().mean((2, 3)), arch)


def net(found):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net(found.example)


COST_RANGE = (3500, 7000)


def trained(found, folder=None, **options):
    settings = TrainSettings(steps=7, batch_size=8, checkpoint_every=2, learning_rate=0.01)
    return fit(
        net(found), found, cost_range=COST_RANGE, settings=settings, folder=folder, **options
    )


class Scenes(Dataset):
    """Pictures with a class for each pixel, turned together."""

    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return NUMBER

    def __getitem__(self, i):
        image = tv_tensors.Image(PIXELS[i])
        return self.transform(image, tv_tensors.Mask((PIXELS[i, 0] > 127).long()))


def test_masks_turn_with_their_images_and_come_as_plain_tensors():
    turned = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), FLOATS])
    plain = Scenes(FLOATS)
    found = Data(Scenes(turned), plain=plain, test=plain, workers=1)
    order = TrainingOrder(len(found.train), 8, 0)
    for x, y in found.training(order, 0, 4, slice(None)):
        assert (type(x), type(y)) == (torch.Tensor, torch.Tensor)
        assert torch.equal((x[:, 0] * 255).round() > 127, y.bool())


MISTAKES = {
    "PIL": (v2.RandomHorizontalFlip(), "found .*Image.*such as .*v2.ToImage"),
    "uint8": (v2.PILToTensor(), "uint8, as pixels are; scale it .*v2.ToDtype"),
    "sizes": (v2.Compose([v2.RandomResize(4, 9), PLAIN]), "resize, crop or pad them"),
}


@pytest.mark.parametrize(("transform", "message"), MISTAKES.values(), ids=MISTAKES)
def test_what_a_transform_leaves_undone_is_named_before_training(transform, message):
    with pytest.raises(DataError, match=message):
        batches(made(transform))


def test_sets_of_torchvision_go_as_they_are():
    fake = foreign("torchvision.datasets").FakeData(12, (3, 8, 8), CLASSES, transform=PLAIN)
    found = Data(fake, test=fake, workers=1)
    assert found.test.take(torch.arange(2))[0].shape == (2, 3, 8, 8)


def own(metric, **options):
    return tasks.Own(F.cross_entropy, F.mse_loss, metric=metric, **options)


def macro_f1(logits, targets):
    return metrics.f1_score(targets, logits.argmax(1), average="macro")


def area(logits, targets):
    return metrics.roc_auc_score(targets, logits.softmax(1), multi_class="ovr")


def agreement(logits, targets):
    return metrics.cohen_kappa_score(targets, logits.argmax(1))


METRICS = {
    "f1": (torchmetrics.F1Score("multiclass", num_classes=CLASSES, average="macro"), macro_f1),
    "area": (torchmetrics.AUROC("multiclass", num_classes=CLASSES), area),
    "kappa": (torchmetrics.CohenKappa("multiclass", num_classes=CLASSES), agreement),
    "sum": (
        torchmetrics.F1Score("multiclass", num_classes=CLASSES, average="macro") + 1,
        lambda *pair: 1 + macro_f1(*pair),
    ),
}


@pytest.mark.parametrize(("metric", "expected"), METRICS.values(), ids=METRICS)
def test_a_network_has_the_value_that_an_independent_library_gives(metric, expected):
    higher = {} if metric.higher_is_better is not None else {"lower_is_better": False}
    found, task = made(PLAIN, plain=None), own(metric, **higher)
    run = trained(found, task=task)
    front = search(run, SearchSettings(initial=2, rounds=0))
    images, targets = found.test.take(torch.arange(9))
    for network in front.networks:
        with torch.no_grad():
            logits = run.model.eval()(images, network.arch)
        assert network.test == pytest.approx(expected(logits, targets), abs=1e-6)


def test_processes_do_not_mix_what_they_measured(tmp_path):
    def work():
        with ranks.connected(60):
            metric = own(torchmetrics.F1Score("multiclass", num_classes=CLASSES, average="macro"))
            run = trained(made(PLAIN, plain=None), task=metric)
            front = search(run, SearchSettings(initial=3, rounds=0))
            if ranks.rank() == 0:
                shown = [(str(n.arch), n.validation, n.test) for n in front.networks]
                (tmp_path / f"front-{ranks.size()}").write_text(repr(shown))

    for size in (1, 2):
        codes, texts = finish(together(work, tmp_path, size))
        assert codes == [0] * size, texts
    one, two = ((tmp_path / f"front-{size}").read_text() for size in (1, 2))
    assert one == two


SEVERAL = {
    "classes": torchmetrics.F1Score("multiclass", num_classes=CLASSES, average=None),
    "a dict": torchmetrics.ClasswiseWrapper(
        torchmetrics.Accuracy("multiclass", num_classes=CLASSES, average=None)
    ),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_a_metric_of_several_numbers_is_refused_before_training(name):
    higher = {} if SEVERAL[name].higher_is_better is not None else {"lower_is_better": False}
    with pytest.raises(TaskError, match=r"compute must give one number, found .*let it average"):
        trained(made(PLAIN, plain=None), task=own(SEVERAL[name], **higher))


def test_a_metric_follows_the_outputs_to_their_device():
    meter = own(torchmetrics.MeanSquaredError()).meter()
    numbers = torch.zeros(3, device="meta")
    meter.update(numbers, numbers)
    assert meter.metric.sum_squared_error.device.type == "meta"
