"""The draw of the sample: shares, order, and what an image more changes."""

from __future__ import annotations

from collections import Counter

from reportgen.sample import Drawable, draw_sample


def images(*sizes: int) -> list[Drawable]:
    """So many images of each stratum; the name tells the stratum."""
    return [Drawable(f"{s}-{i}", f"{s:02}{i:04}", s) for s, size in enumerate(sizes) for i in range(size)]


def test_every_stratum_has_its_share() -> None:
    drawn = draw_sample(images(500, 300, 190, 10), 64)
    assert len(set(drawn)) == 64
    assert Counter(name[0] for name in drawn) == {"0": 32, "1": 19, "2": 12, "3": 1}


def test_all_are_drawn_where_there_are_no_more_and_equal_files_once() -> None:
    few = images(3, 2)
    assert sorted(draw_sample(few, 64)) == sorted(one.name for one in few)
    twin = Drawable("copy", few[0].digest, 0)
    assert len(draw_sample([*few, twin], 64)) == 5
    assert draw_sample([], 64) == ()


def test_the_draw_depends_on_the_seed_alone() -> None:
    many = images(100, 100)
    assert draw_sample(many, 20) == draw_sample(many[::-1], 20)
    assert draw_sample(many, 20, seed=1) != draw_sample(many, 20)


def test_an_image_more_changes_at_most_two_places() -> None:
    many = images(100, 100)
    before = set(draw_sample(many, 20))
    after = set(draw_sample([*many, Drawable("new", "zz", 1)], 20))
    assert len(before - after) <= 2


def test_its_beginning_is_no_stratum_by_itself() -> None:
    drawn = draw_sample(images(200, 200), 64)
    assert 2 < sum(name.startswith("0") for name in drawn[:16]) < 14
