"""A clock that moves only when a contender says so: these tests must hold on a machine of any speed."""

import pytest


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def taking(self, *seconds: float, then=lambda: None):
        """A callable that takes these seconds, one after the other, over and over."""
        calls = 0

        def run(*arguments):
            nonlocal calls
            self.now += seconds[calls % len(seconds)]
            calls += 1
            return then(*arguments)

        return run


@pytest.fixture
def clock():
    return FakeClock()
