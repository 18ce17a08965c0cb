"""How often one person may ask."""

from __future__ import annotations

import pytest

from services.catalog.api.limits import Limiter, Rate
from services.catalog.errors import TooManyRequestsError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_goes_through_and_the_next_waits_for_a_token() -> None:
    clock = Clock()
    limiter, rate = Limiter(clock), Rate(burst=3, per_s=2)
    for _ in range(3):
        limiter.take("ann", rate)
    with pytest.raises(TooManyRequestsError) as refused:
        limiter.take("ann", rate)
    assert refused.value.after_s == 0.5
    clock.now += 0.5
    limiter.take("ann", rate)


def test_one_person_leaves_the_others_alone() -> None:
    limiter, rate = Limiter(Clock()), Rate(burst=1, per_s=1)
    limiter.take("ann", rate)
    limiter.take("bob", rate)


def test_waiting_longer_gives_no_more_than_a_burst() -> None:
    clock = Clock()
    limiter, rate = Limiter(clock), Rate(burst=2, per_s=1)
    limiter.take("ann", rate)
    clock.now += 3600
    for _ in range(2):
        limiter.take("ann", rate)
    with pytest.raises(TooManyRequestsError):
        limiter.take("ann", rate)
