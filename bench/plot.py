"""Wall time of many VMs, as bars of text and as a drawing (SVG) for documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

#: Number of VMs and seconds.
Point = tuple[int, float]
#: From a number of VMs and seconds to a place in the drawing.
_Place = Callable[[float, float], tuple[float, float]]

_BAR_WIDTH = 60
#: The drawing, in its own units: the area of the points, and room for labels around it.
_WIDTH, _HEIGHT = 480, 300
_LEFT, _TOP, _RIGHT, _BOTTOM = 60, 30, 20, 50
_TICKS = 5


def text(points: Sequence[Point]) -> str:
    """A bar for each point; twice the length is twice the time."""
    most = max(seconds for _, seconds in points)
    lines = [
        f"{count:>4} VMs {seconds:8.1f} s {seconds / count:6.2f} s each "
        f" {'#' * max(1, round(_BAR_WIDTH * seconds / most))}"
        for count, seconds in points
    ]
    return "\n".join(["Wall time of many VMs", *lines])


def svg(points: Sequence[Point]) -> str:
    """The points, and the straight line from nothing to the last of them."""
    most_count, most_seconds = max(points)
    top = _round_up(max(seconds for _, seconds in points))

    def place(count: float, seconds: float) -> tuple[float, float]:
        return _LEFT + _WIDTH * count / most_count, _TOP + _HEIGHT * (1 - seconds / top)

    whole = f"{_LEFT + _WIDTH + _RIGHT} {_TOP + _HEIGHT + _BOTTOM}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        *_axes(place, [count for count, _ in points], top),
        _line(place(0, 0), place(most_count, most_seconds), "gray", dashes="4 4"),
    ]
    for point in points:
        x, y = place(*point)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="darkblue"/>')
    return "\n".join([*parts, "</svg>\n"])


def _axes(place: _Place, counts: Sequence[int], top: float) -> Iterator[str]:
    most = max(counts)
    yield _line(place(0, 0), place(most, 0), "black")
    yield _line(place(0, 0), place(0, top), "black")
    for tick in range(_TICKS + 1):
        seconds = top * tick / _TICKS
        x, y = place(0, seconds)
        yield f'<text x="{x - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{seconds:g}</text>'
    for count in (one for one in counts if one >= most / 16):
        x, y = place(count, 0)
        yield f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{count}</text>'
    x, y = place(most / 2, 0)
    yield f'<text x="{x:.1f}" y="{y + 38:.1f}" text-anchor="middle">VMs, booted and powered off</text>'
    yield f'<text x="{_LEFT}" y="18" text-anchor="middle">seconds</text>'


def _line(
    begin: tuple[float, float], end: tuple[float, float], colour: str, *, dashes: str = "none"
) -> str:
    (x1, y1), (x2, y2) = begin, end
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        f' stroke="{colour}" stroke-dasharray="{dashes}"/>'
    )


def _round_up(value: float) -> float:
    """The next number with one digit that is not zero and is divided by `_TICKS` without a rest."""
    unit = 1.0
    while unit * _TICKS < value:
        unit *= 10
    while unit * _TICKS / 10 >= value:
        unit /= 10
    steps = next(n for n in (1, 2, 3, 4, 5, 6, 8, 10) if unit * n / 10 * _TICKS >= value)
    return unit * steps / 10 * _TICKS
