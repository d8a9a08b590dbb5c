"""Interpreter: integers, floats, strings, lists, dictionaries and calls, as Python programs have them.

Usage: loop.py TURNS. Prints a sum that depends on every turn. Needs no module but `sys`, and nothing
that differs between versions of Python.
"""

import sys


class Counter:
    """Counts words."""

    def __init__(self):
        self.counts = {}

    def add(self, word):
        """Counts `word` once more; how often it was there."""
        self.counts[word] = self.counts.get(word, 0) + 1
        return self.counts[word]


def collatz(n):
    """Steps from n to 1."""
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


def main(turns):
    """The sum of all turns."""
    counter = Counter()
    recent = [0] * 16
    total = 0
    x = 0.5
    for turn in range(1, turns + 1):
        x = 3.9 * x * (1.0 - x)
        word = f"w{turn * turn % 97:02d}{int(x * 50)}"
        recent[turn % 16] = counter.add(word) + collatz(turn)
        total = (total * 31 + sum(recent) + len(word)) % 1000000007
    return f"{total}-{len(counter.counts)}-{x.hex()}"


print(main(int(sys.argv[1])))
