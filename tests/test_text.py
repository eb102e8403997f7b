"""Numbers in sentences and tables."""

from __future__ import annotations

from reportgen.text import counted, signed


def test_numbers_have_a_sign_for_minus_that_is_one() -> None:
    assert signed(-0.0274) == "−0.027"
    assert signed(-0.0001) == "0.000"
    assert signed(-1.78e-06, ".2g") == "−1.8e−06"
    assert signed(12.0, ".1f") == "12.0"


def test_one_of_a_thing_is_no_more() -> None:
    assert counted(1, "image") == "1 image"
    assert counted(0, "image") == "0 images"
