"""Schedules: by hand at the places that matter, and what holds for all of them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo.training.schedules import cosine, linear, warmup_cosine, warmup_steps

values = st.floats(-10, 10, allow_nan=False)
totals = st.integers(1, 10_000)


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 4.0), (25, 2 + math.sqrt(2)), (50, 2.0), (75, 2 - math.sqrt(2)), (100, 0.0), (130, 0.0), (-5, 4.0)],
)
def test_cosine_by_hand(step: int, expected: float) -> None:
    assert cosine(step, 100, 4.0, 0.0) == pytest.approx(expected)


def test_cosine_goes_up_as_well() -> None:
    # The teacher's momentum and the weight decay rise.
    assert [cosine(step, 8, 0.04, 0.4) for step in (0, 4, 8)] == pytest.approx([0.04, 0.22, 0.4])


def test_cosine_of_no_steps_is_its_end() -> None:
    assert cosine(0, 0, 1.0, 0.25) == 0.25


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.0),
        (5, 0.5),
        (10, 1.0),  # the peak
        (35, 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2),
        (60, 0.6),  # half-way between peak and end
        (110, 0.2),
    ],
)
def test_warmup_cosine_by_hand(step: int, expected: float) -> None:
    assert warmup_cosine(step, 110, 10, 1.0, 0.2) == pytest.approx(expected)


def test_without_a_warmup_the_first_step_has_the_peak() -> None:
    assert warmup_cosine(0, 10, 0, 3.0, 0.0) == 3.0


@pytest.mark.parametrize(("step", "expected"), [(0, 0.04), (1, 0.05), (3, 0.07), (4, 0.07), (99, 0.07)])
def test_linear_by_hand(step: int, expected: float) -> None:
    assert linear(step, 3, 0.04, 0.07) == pytest.approx(expected)


@given(total=totals, start=values, end=values)
def test_cosine_moves_one_way_between_its_ends(total: int, start: float, end: float) -> None:
    steps = [cosine(total * i / 40, total, start, end) for i in range(41)]
    assert steps[0] == pytest.approx(start, abs=1e-9)
    assert steps[-1] == pytest.approx(end, abs=1e-9)
    sign = 1 if end >= start else -1
    assert all(sign * (b - a) >= -1e-9 for a, b in pairwise(steps))


@given(total=totals, start=values, end=values, share=st.floats(0, 1))
def test_cosine_is_symmetric(total: int, start: float, end: float, share: float) -> None:
    there, back = cosine(share * total, total, start, end), cosine((1 - share) * total, total, start, end)
    assert there + back == pytest.approx(start + end, abs=1e-9)


@given(total=st.integers(2, 2000), share=st.floats(0, 0.9), peak=st.floats(0, 1), final=st.floats(0, 1))
def test_warmup_cosine_climbs_to_the_peak_and_falls(
    total: int, share: float, peak: float, final: float
) -> None:
    warmup, end = share * total, peak * final
    rates = [warmup_cosine(step, total, warmup, peak, end) for step in range(total + 1)]
    assert all(0 <= rate <= peak + 1e-12 for rate in rates)
    top = math.ceil(warmup)  # the first step after the warm-up
    assert all(a <= b + 1e-12 for a, b in pairwise(rates[:top]))
    assert all(a >= b - 1e-12 for a, b in pairwise(rates[top:]))
    assert rates[-1] == pytest.approx(end)


@given(total=totals, start=values, end=values)
def test_linear_stays_between_its_ends(total: int, start: float, end: float) -> None:
    steps = [linear(step, total, start, end) for step in range(0, total + 2, max(1, total // 20))]
    assert steps[0] == start
    assert all(min(start, end) - 1e-9 <= value <= max(start, end) + 1e-9 for value in steps)
    assert linear(total, total, start, end) == end


@pytest.mark.parametrize(
    ("epochs", "per_epoch", "total", "expected"),
    [
        (10, 100, 30_000, 1000),  # 10 of 300 epochs, as asked
        (10, 100, 3000, 300),  # 10 of 30 epochs would be a third: capped to a tenth
        (10, 100, 10_000, 1000),  # exactly a tenth
        (0.5, 100, 1000, 50),
        (0, 100, 1000, 0),
        (40, 3, 6, 0.6),
    ],
)
def test_warmup_is_at_most_a_tenth_of_the_run(
    epochs: float, per_epoch: int, total: int, expected: float
) -> None:
    assert warmup_steps(epochs, per_epoch, total) == pytest.approx(expected)
