import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boundnas.pareto import hypervolume, mean_over_log_cost, non_dominated

COARSE = st.tuples(st.integers(1, 6), st.integers(0, 5))  # full of ties
FINE = st.tuples(st.floats(1, 1e9), st.floats(-1, 1))
POINTS = st.lists(COARSE, max_size=40) | st.lists(FINE, max_size=40)


def dominates(a, b):
    return a[0] <= b[0] and a[1] >= b[1] and a != b


def columns(points):
    return [c for c, _ in points], [s for _, s in points]


@given(POINTS)
def test_the_front_is_what_a_quadratic_search_finds(points):
    expected = [
        i
        for i, point in enumerate(points)
        if not any(dominates(other, point) for other in points) and point not in points[:i]
    ]
    front = non_dominated(*columns(points))
    assert sorted(front) == expected
    assert [points[i] for i in front] == sorted(points[i] for i in front)


@given(POINTS)
def test_every_point_is_on_the_front_or_beaten_or_matched_by_one_that_is(points):
    front = [points[i] for i in non_dominated(*columns(points))]
    for point in points:
        assert point in front or any(dominates(other, point) for other in front)


@given(POINTS)
def test_the_front_of_a_front_is_itself(points):
    front = [points[i] for i in non_dominated(*columns(points))]
    assert non_dominated(*columns(front)) == list(range(len(front)))


@given(points=st.lists(COARSE, max_size=12), reference=COARSE)
def test_hypervolume_counts_the_dominated_unit_squares(points, reference):
    cost, score = reference
    squares = sum(
        any(c <= x and s >= y + 1 for c, s in points) for x in range(cost) for y in range(score, 6)
    )
    assert hypervolume(*columns(points), cost, score, log_cost=False) == squares


@given(points=st.lists(FINE, max_size=12), reference=FINE)
def test_log_hypervolume_is_that_of_the_logarithms(points, reference):
    costs, scores = columns(points)
    logs = [math.log(c) for c in costs]
    expected = hypervolume(logs, scores, math.log(reference[0]), reference[1], log_cost=False)
    assert hypervolume(costs, scores, *reference) == pytest.approx(expected)


@given(points=st.lists(COARSE, min_size=1, max_size=12), more=COARSE)
def test_hypervolume_never_falls_with_a_point_more_and_needs_the_front_only(points, more):
    whole = hypervolume(*columns(points), 7, 0)
    front = [points[i] for i in non_dominated(*columns(points))]
    assert hypervolume(*columns(front), 7, 0) == pytest.approx(whole)
    assert hypervolume(*columns([*points, more]), 7, 0) >= whole - 1e-12


@given(
    front=st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 1)), max_size=8),
    lower=st.floats(0.5, 5),
    factor=st.floats(1.5, 20),
)
def test_the_score_of_a_front_is_the_mean_of_its_staircase(front, lower, factor):
    costs, accuracies = [c for c, _ in front], [a for _, a in front]
    points = 20_000
    grid = [lower * factor ** ((i + 0.5) / points) for i in range(points)]
    steps = np.zeros(points)
    for cost, accuracy in front:
        steps = np.where(np.array(grid) >= cost, np.maximum(steps, accuracy), steps)
    found = mean_over_log_cost(costs, accuracies, lower, lower * factor)
    assert found == pytest.approx(steps.mean(), abs=9 / points)
