"""Interpreter: objects, dictionaries, strings, floats and calls, as Python programs have them.

A ledger: accounts that are looked up by name and pay each other, with a heap of a program that has data.
Usage: ledger.py ACCOUNTS TURNS. Prints a sum that depends on every turn. Needs no module but `sys`, and
nothing that differs between versions of Python.
"""

import sys


class Account:
    """What somebody has, and the last payments."""

    def __init__(self, name, balance):
        self.name = name
        self.balance = balance
        self.payments = []

    def pay(self, other, amount):
        """Gives `amount` to the other, or as much as is there; how much that was."""
        amount = min(amount, self.balance)
        self.balance -= amount
        other.balance += amount
        self.payments.append(-amount)
        other.payments.append(amount)
        if len(self.payments) > 8:
            self.payments = self.payments[4:]
        return amount


def main(count, turns):
    """The sum of all turns."""
    accounts = {}
    for number in range(count):
        name = f"account-{number:06d}"
        accounts[name] = Account(name, 100 + number % 17)
    total = 0
    x = 0.5
    for turn in range(1, turns + 1):
        x = 3.9999 * x * (1.0 - x)
        giver = accounts[f"account-{int(x * 1e9) % count:06d}"]
        taker = accounts[f"account-{turn * 7919 % count:06d}"]
        paid = giver.pay(taker, turn % 23)
        total = (total * 31 + paid + giver.balance + sum(taker.payments)) % 1000000007
    return f"{total}-{sum(one.balance for one in accounts.values())}-{x.hex()}"


print(main(int(sys.argv[1]), int(sys.argv[2])))
