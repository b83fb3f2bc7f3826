import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boundnas.search.pareto import chosen, mean_over_log_cost, non_dominated

COARSE, FINE = st.integers(1, 6), st.floats(1, 1e9)  # full of ties, and without
POINTS = st.one_of(  # with one, two or three costs, the score last
    st.lists(st.tuples(*[cost] * costs, score), max_size=40)
    for cost, score in ((COARSE, st.integers(0, 5)), (FINE, st.floats(-1, 1)))
    for costs in (1, 2, 3)
)


def dominates(a, b):
    return all(x <= y for x, y in zip(a[:-1], b[:-1], strict=True)) and a[-1] >= b[-1] and a != b


def columns(points):
    return [point[:-1] for point in points], [point[-1] for point in points]


@given(POINTS)
def test_the_front_is_what_a_quadratic_search_finds(points):
    expected = [
        i
        for i, point in enumerate(points)
        if not any(dominates(other, point) for other in points) and point not in points[:i]
    ]
    front = non_dominated(*columns(points))
    assert sorted(front) == expected
    assert [points[i][:-1] for i in front] == sorted(points[i][:-1] for i in front)


@given(POINTS)
def test_every_point_is_on_the_front_or_beaten_or_matched_by_one_that_is(points):
    front = [points[i] for i in non_dominated(*columns(points))]
    for point in points:
        assert point in front or any(dominates(other, point) for other in front)


@given(POINTS)
def test_the_front_of_a_front_is_itself(points):
    front = [points[i] for i in non_dominated(*columns(points))]
    assert non_dominated(*columns(front)) == list(range(len(front)))


# Range 1 to 16; costs, validation and test accuracies; what each quarter of its logarithm gives.
SCORES = {
    "a network for each quarter": ([1, 2, 4, 8], [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], 0.25),
    "validation keeps the first, whatever test says": ([1, 2], [0.5, 0.4], [0.4, 0.8], 0.4),
    "nothing below the cheapest": ([4], [0.5], [0.8], 0.4),
    "the order of the networks is nothing": ([4, 1, 2], [0.9, 0.5, 0.7], [0.6, 0.8, 0.4], 0.6),
    "of two equal ones the cheaper": ([1, 4], [0.5, 0.5], [0.2, 1.0], 0.2),
    "of two of one cost the better": ([1, 1], [0.5, 0.6], [0.2, 1.0], 1.0),
    "one at the upper end comes too late": ([1, 16], [0.5, 0.9], [0.2, 1.0], 0.2),
    "one beyond the upper end is no choice": ([1, 17], [0.5, 0.9], [0.2, 1.0], 0.2),
    "a cheaper one than asked for stands in": ([0.5, 4], [0.6, 0.7], [0.2, 1.0], 0.6),
    "and only until one inside is there": ([0.5, 4], [0.9, 0.7], [0.2, 1.0], 0.6),
    "only cheaper ones": ([0.25, 0.5], [0.6, 0.7], [0.2, 0.3], 0.3),
    "none at all": ([], [], [], 0.0),
}


@pytest.mark.parametrize(("costs", "validation", "test", "score"), SCORES.values(), ids=SCORES)
def test_the_score_is_what_validation_chooses_averaged_over_log_cost(
    costs, validation, test, score
):
    assert mean_over_log_cost(costs, validation, test, 1, 16) == pytest.approx(score, abs=1e-12)


NETWORK = st.tuples(st.floats(0.1, 100), st.floats(0, 1), st.floats(0, 1))


@given(
    front=st.lists(NETWORK, max_size=8, unique_by=lambda network: network[0]),
    lower=st.floats(0.5, 5),
    factor=st.floats(1.5, 20),
)
def test_the_score_of_a_front_is_the_mean_of_its_staircase(front, lower, factor):
    points, steps = 1_000, []
    for k in range(points):
        affordable = [n for n in front if n[0] <= lower * factor ** ((k + 0.5) / points)]
        inside = [n for n in affordable if n[0] >= lower]
        ranked = sorted(inside or affordable, key=lambda n: (-n[1], n[0]))
        steps.append(ranked[0][2] if ranked else 0)
    found = mean_over_log_cost(*([n[i] for n in front] for i in range(3)), lower, lower * factor)
    assert found == pytest.approx(np.mean(steps), abs=9 / points)


def test_nothing_is_chosen_below_the_cheapest_network():
    assert chosen([2, 3], [0.5, 0.6], 1.9, 1) is None
    assert [chosen([2, 3], [0.5, 0.6], budget, 1) for budget in (2, 2.9, 3, 99)] == [0, 0, 1, 1]
