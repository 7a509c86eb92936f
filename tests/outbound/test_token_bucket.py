"""One arithmetic of rates: for what we ask of others, which waits, and for what others ask of us, which is refused."""

import pytest

from outbound.transport import Tokens


def test_a_burst_is_free_and_then_the_rate_holds() -> None:
    tokens = Tokens(rate=2, burst=3, now=0)
    assert [tokens.take(0) for _ in range(4)] == [0, 0, 0, 0.5]
    assert tokens.take(0.25) == 0.25, "a refusal takes nothing"
    assert tokens.take(0.5) == 0


def test_those_that_borrow_wait_one_after_the_other() -> None:
    tokens = Tokens(rate=2, burst=1, now=0)
    assert [tokens.borrow(0) for _ in range(4)] == [0, 0.5, 1, 1.5]
    assert tokens.borrow(10) == 0, "time pays the debt, and never more than the burst"
    assert tokens.borrow(10) == 0.5


def test_a_clock_that_steps_back_gives_nothing() -> None:
    tokens = Tokens(rate=1, burst=1, now=100)
    assert (tokens.take(100), tokens.take(50)) == (0, 1)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0.5)])
def test_a_rate_that_lets_nothing_through_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="lets nothing through"):
        Tokens(rate, burst, 0)
