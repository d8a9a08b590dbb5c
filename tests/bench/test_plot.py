"""The drawing and the bars show the points, to scale."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from bench import plot

POINTS = [(1, 2.5), (2, 3.0), (8, 12.0), (64, 96.0)]


def test_twice_the_length_of_a_bar_is_twice_the_time() -> None:
    lines = plot.text(POINTS).splitlines()[1:]
    lengths = [line.count("#") for line in lines]
    assert lengths[3] == pytest.approx(8 * lengths[2], abs=8)  # a bar has whole characters
    assert "1.50 s each" in lines[2]
    assert min(lengths) >= 1


def test_the_drawing_has_each_point_in_its_place() -> None:
    drawing = ElementTree.fromstring(plot.svg(POINTS))
    circles = drawing.findall("{http://www.w3.org/2000/svg}circle")
    places = [(float(one.get("cx", "")), float(one.get("cy", ""))) for one in circles]
    assert len(places) == len(POINTS)
    left, bottom = places[0][0] - 480 / 64, 330
    for (count, seconds), (x, y) in zip(POINTS, places, strict=True):
        assert x - left == pytest.approx(480 * count / 64, abs=0.2)
        assert bottom - y == pytest.approx(300 * seconds / 100, abs=0.2)


@pytest.mark.parametrize(
    ("value", "top"), [(96.0, 100.0), (100.0, 100.0), (101.0, 150.0), (0.07, 0.1), (351.0, 400.0)]
)
def test_the_axis_ends_at_a_number_with_few_digits(value: float, top: float) -> None:
    assert plot._round_up(value) == pytest.approx(top)
