"""AlphaNet's divergence against its definition, in plain Python, by autograd and by hand."""

import math

import pytest
import torch

from boundnas.method.variants import alphanet
from boundnas.method.variants.alphanet import adaptive_alpha_divergence
from boundnas.randomness import stream
from boundnas.task import kl_divergence

SAMPLES, CLASSES = 40, 7


def logits(name, scale=1.0, samples=SAMPLES, classes=CLASSES):
    generator = stream(0, name)
    return scale * torch.randn(samples, classes, generator=generator, dtype=torch.float64)


def divergence(p, q, alpha):
    """D_alpha(p || q) of each sample, by its definition."""
    if alpha == 1:
        return (p * (p / q).log()).sum(-1)
    return (q * ((p / q) ** alpha - 1)).sum(-1) / (alpha * (alpha - 1))


def probabilities(row):
    total = sum(math.exp(x - max(row)) for x in row)
    return [math.exp(x - max(row)) / total for x in row]


def by_hand(student, teacher, clip=5.0):
    """Value, gradient and alpha of one sample, by the paper's formulas: lists of logits."""
    q, p = probabilities(student), probabilities(teacher)
    value, weights = {}, {}
    value[1] = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    weights[1] = [a / b for a, b in zip(p, q, strict=True)]  # r f'(r) - f(r) of f = r log r
    cut = [min(clip, b / a) for a, b in zip(p, q, strict=True)]
    value[-1] = sum(b * (c - 1) / 2 for b, c in zip(q, cut, strict=True))
    weights[-1] = [-c for c in cut]  # r**alpha / alpha
    alpha = -1 if value[-1] > value[1] else 1
    pulls = [-b * w for b, w in zip(q, weights[alpha], strict=True)]  # of log q_k
    gradient = [pull - b * sum(pulls) for pull, b in zip(pulls, q, strict=True)]
    return value[alpha], gradient, alpha


def found(student, teacher):
    """Value and gradient, for tensors of logits."""
    student = student.clone().requires_grad_()
    value = adaptive_alpha_divergence(student, teacher)
    return float(value.detach()), torch.autograd.grad(value, student)[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("classes", [2, 10, 100])
def test_value_and_gradient_are_those_of_the_paper(classes, scale, dtype, tolerance):
    student = logits("student", scale, classes=classes)
    teacher = logits("teacher", scale, classes=classes)
    rows = [by_hand(*each) for each in zip(student.tolist(), teacher.tolist(), strict=True)]
    value, gradient = found(student.to(dtype), teacher.to(dtype))
    assert value == pytest.approx(sum(row[0] for row in rows) / SAMPLES, rel=10 * tolerance)
    expected = torch.tensor([row[1] for row in rows], dtype=torch.float64) / SAMPLES
    torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_without_a_cut_it_is_the_larger_of_the_two_divergences(scale, monkeypatch):
    monkeypatch.setattr(alphanet, "ALPHA_CLIP", math.inf)
    student, teacher = logits("student", scale).requires_grad_(), logits("teacher", scale)
    value, gradient = found(student.detach(), teacher)
    p, q = teacher.softmax(-1), student.softmax(-1)
    both = torch.stack([divergence(p, q, -1), divergence(p, q, 1)])
    assert len(set(both.argmax(0).tolist())) == 2, "either one is the larger on some sample"
    expected = both.amax(0).mean()
    assert value == pytest.approx(float(expected.detach()), rel=1e-12)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0])


@pytest.mark.parametrize(
    ("classes", "sure", "expected"), [(10, 6.0, 0.1 - 0.97818), (100, 8.0, 0.01 - 0.96786)]
)
def test_a_sure_teacher_pulls_an_undecided_student_with_all_it_has(classes, sure, expected):
    teacher = torch.zeros(1, classes)
    teacher[0, 0] = sure
    _, gradient = found(torch.zeros(1, classes), teacher)
    assert float(gradient[0, 0]) == pytest.approx(expected, abs=1e-5)


def test_a_student_that_is_sure_of_what_its_teacher_rules_out_is_pulled_with_five_times_at_most():
    student, teacher = torch.tensor([[0.0, 3.0, 3.0]]), torch.tensor([[9.0, 0.0, -90.0]])
    value, gradient = found(student, teacher)
    expected, pulls, alpha = by_hand(*student.tolist(), *teacher.tolist())
    assert alpha == 1
    assert value == pytest.approx(expected, rel=1e-6)
    assert gradient[0].tolist() == pytest.approx(pulls, rel=1e-5)
    student, teacher = torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, 0.0]])
    value, gradient = found(student, teacher)
    q = probabilities([0.0, 2.0])
    assert by_hand(*student.tolist(), *teacher.tolist())[2] == -1
    assert value == pytest.approx((q[0] * (math.exp(-2) - 1) + q[1] * (5 - 1)) / 2, rel=1e-6)
    assert float(gradient[0, 1]) == pytest.approx(q[1] * q[0] * (5 - math.exp(-2)), rel=1e-5)


def test_probabilities_that_vanish_give_finite_numbers():
    student, teacher = torch.tensor([[0.0, 300.0]]), torch.tensor([[300.0, 0.0]])
    value, gradient = found(student, teacher)
    assert value == pytest.approx(300, rel=1e-6)
    assert gradient.tolist() == [[-1.0, 1.0]]


def test_equal_networks_are_at_no_distance_and_the_teacher_gets_no_gradient():
    student, teacher = logits("student").requires_grad_(), logits("teacher").requires_grad_()
    for distance in (adaptive_alpha_divergence, kl_divergence):
        assert float(distance(teacher, teacher).detach()) == pytest.approx(0, abs=1e-9)
        distance(student, teacher).backward()
    assert teacher.grad is None
