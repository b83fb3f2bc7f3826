"""AlphaNet's divergence against its definition, by autograd and by hand."""

import math

import pytest
import torch

from boundnas import distill
from boundnas.distill import adaptive_alpha_divergence, kl_divergence
from boundnas.randomness import stream

SAMPLES, CLASSES = 40, 7


def logits(name, scale=1.0):
    generator = stream(0, name)
    return scale * torch.randn(SAMPLES, CLASSES, generator=generator, dtype=torch.float64)


def divergence(p, q, alpha):
    """D_alpha(p || q) of each sample, by its definition."""
    if alpha == 1:
        return (p * (p / q).log()).sum(-1)
    return (q * ((p / q) ** alpha - 1)).sum(-1) / (alpha * (alpha - 1))


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_without_a_cut_it_is_the_larger_of_the_two_divergences(scale, monkeypatch):
    monkeypatch.setattr(distill, "ALPHA_CLIP", math.inf)
    student, teacher = logits("student", scale).requires_grad_(), logits("teacher", scale)
    found = adaptive_alpha_divergence(student, teacher)
    (gradient,) = torch.autograd.grad(found, student)
    p, q = teacher.softmax(-1), student.softmax(-1)
    both = torch.stack([divergence(p, q, -1), divergence(p, q, 1)])
    assert len(set(both.argmax(0).tolist())) == 2, "either one is the larger on some sample"
    expected = both.amax(0).mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0])


def test_ratios_beyond_five_count_as_five():
    student = torch.tensor([[0.0, 3.0]], requires_grad=True)
    teacher = torch.tensor([[3.0, 0.0]])
    p, q = teacher.softmax(-1)[0].tolist(), student.detach().softmax(-1)[0].tolist()
    found = adaptive_alpha_divergence(student, teacher)
    (gradient,) = torch.autograd.grad(found, student)
    ratios = [a / b for a, b in zip(p, q, strict=True)]
    low = sum(b * (min(5, 1 / r) - 1) / 2 for b, r in zip(q, ratios, strict=True))
    high = sum(b * min(5, r) * math.log(r) for b, r in zip(q, ratios, strict=True))
    assert float(found.detach()) == pytest.approx(max(low, high), rel=1e-5)
    alpha = 1 if high > low else -1
    pulls = [-b * min(5, r**alpha) / alpha for b, r in zip(q, ratios, strict=True)]
    expected = [pull - b * sum(pulls) for pull, b in zip(pulls, q, strict=True)]
    assert gradient[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_equal_networks_are_at_no_distance_and_the_teacher_gets_no_gradient():
    student, teacher = logits("student").requires_grad_(), logits("teacher").requires_grad_()
    for distance in (adaptive_alpha_divergence, kl_divergence):
        assert float(distance(teacher, teacher).detach()) == pytest.approx(0, abs=1e-9)
        distance(student, teacher).backward()
    assert teacher.grad is None
