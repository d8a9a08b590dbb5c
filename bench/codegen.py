"""Makes C for the row `compiler`: many functions with loops, branches, switches and arrays.

All arithmetic is unsigned and all shifts are short of the word, so what the program prints is the same
with every compiler on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

_OPERATIONS = ("+", "-", "*", "^", "&", "|")
_HEAD = """\
#include <stdio.h>

struct record { unsigned key, value, weight; };
static struct record records[64];
static unsigned table[256];

"""


def source(functions: int) -> str:
    """A program of so many functions that prints a word which depends on all of them."""
    random = _Random(f"{functions} functions")
    bodies = "\n".join(_function(random, number) for number in range(functions))
    calls = "\n".join(
        f"    sum = sum * 31 + f{number}(sum, {number}u);" for number in range(functions)
    )
    return (
        f"{_HEAD}{bodies}\nint main(void)\n{{\n    unsigned sum = 1;\n{calls}\n"
        '    printf("%08x\\n", sum);\n    return 0;\n}\n'
    )


class _Random:
    """Numbers that follow from a text on every host."""

    def __init__(self, text: str) -> None:
        self._words = self._stream(text)

    def below(self, limit: int) -> int:
        return next(self._words) % limit

    def of(self, choices: tuple[str, ...]) -> str:
        return choices[self.below(len(choices))]

    @staticmethod
    def _stream(text: str) -> Iterator[int]:
        block = 0
        while True:
            digest = hashlib.shake_256(f"{text} {block}".encode()).digest(4096)
            yield from (int.from_bytes(digest[i : i + 4], "big") for i in range(0, 4096, 4))
            block += 1


def _function(random: _Random, number: int) -> str:
    statements = "\n".join(_statement(random, 1) for _ in range(4 + random.below(5)))
    return f"""\
static unsigned f{number}(unsigned a, unsigned b)
{{
    unsigned c = {random.below(1 << 16)}u, d = a ^ b, i;
    struct record *r = &records[a & 63];
{statements}
    table[d & 255] += c;
    return a + b * 3 + c * 5 + d * 7;
}}
"""


def _statement(random: _Random, depth: int) -> str:
    kind = random.below(6) if depth < 3 else 0
    indent = "    " * depth
    if kind == 1:
        inner = "\n".join(_statement(random, depth + 1) for _ in range(1 + random.below(3)))
        return (
            f"{indent}for (i = 0; i < {2 + random.below(7)}; i++) {{\n"
            f"{inner}\n{indent}    c += i;\n{indent}}}"
            if depth == 1  # one counter, so no loop in a loop
            else inner
        )
    if kind == 2:
        return (
            f"{indent}if ({_expression(random, 2)} > {_expression(random, 1)}) {{\n"
            f"{_statement(random, depth + 1)}\n{indent}}} else {{\n"
            f"{_statement(random, depth + 1)}\n{indent}}}"
        )
    if kind == 3:
        cases = "\n".join(
            f"{indent}case {case}: {_assignment(random)} break;"
            for case in range(3 + random.below(6))
        )
        return (
            f"{indent}switch ({_expression(random, 1)} & 7) {{\n{cases}\n"
            f"{indent}default: {_assignment(random)}\n{indent}}}"
        )
    if kind == 4:
        field = random.of(("key", "value", "weight"))
        return (
            f"{indent}r->{field} = {_expression(random, 2)};\n"
            f"{indent}r = &records[(r->{field} >> 3) & 63];"
        )
    return indent + _assignment(random)


def _assignment(random: _Random) -> str:
    return f"{random.of(('a', 'b', 'c', 'd'))} = {_expression(random, 3)};"


def _expression(random: _Random, depth: int) -> str:
    kind = random.below(8)
    if depth == 0 or kind < 2:
        return random.of(("a", "b", "c", "d", "r->key", "r->value", f"{random.below(9999)}u"))
    left, right = _expression(random, depth - 1), _expression(random, depth - 1)
    if kind == 2:
        return f"({left} >> {1 + random.below(31)})"
    if kind == 3:
        return f"table[{left} & 255]"
    if kind == 4:
        return f"({left} < {right} ? {right} : {left} % 1021u)"
    return f"({left} {random.of(_OPERATIONS)} {right})"
