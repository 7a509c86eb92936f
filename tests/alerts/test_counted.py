"""A number and its noun agree."""

import pytest

from alerts.alert import counted


@pytest.mark.parametrize(
    ("number", "noun", "told"),
    [
        (1, "alert", "1 alert"),
        (0, "alert", "0 alerts"),
        (2, "entry", "2 entries"),
        (1, "entry", "1 entry"),
        (3, "delivery", "3 deliveries"),
        (2, "match", "2 matches"),
        (2, "day", "2 days"),
        (2, "certificate authority", "2 certificate authorities"),
    ],
)
def test_one_is_one_and_the_rest_are_many(number: int, noun: str, told: str) -> None:
    assert counted(number, noun) == told
