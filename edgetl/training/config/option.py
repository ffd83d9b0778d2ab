"""What one option of a training run takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgetl.errors import TrainingError

_KINDS = {str: "text", bool: "True or False", int: "a whole number", float: "a number"}
_MOST = 1e9  # the limit of numbers without another one: far above, something overflows


@dataclass(frozen=True)
class Option:
    """What a field of ``TrainSettings`` takes.

    group    heading in the command's help
    help     one line
    choices  the strings it takes, or () for any value of its type
    low      smallest number; ``above`` instead: every number must be larger than it; ``least``
             instead: smallest number but 0, which turns it off
    high     largest number
    needs    (other field, values): it has an effect only where that field has one of these values
    common   among the few that most people need
    """

    group: str
    help: str
    choices: tuple[str, ...] = ()
    low: float | None = None
    above: float | None = None
    least: float | None = None
    high: float = _MOST
    needs: tuple[str, tuple[str, ...]] | None = None
    common: bool = False

    def check(self, name: str, value: Any, kind: type, parts: int) -> None:
        """Raise TrainingError, naming the option of field ``name``, if ``value`` can't be used.

        kind, parts  the type of the value; if it is a tuple, of each of so many parts
        """
        numbers = value if isinstance(value, tuple) else (value,)
        if len(numbers) != parts or not all(_is_a(kind, number) for number in numbers):
            pair = "a pair, each " if parts > 1 else ""
            raise TrainingError(f"{flag(name)} is {value!r}; it takes {pair}{_KINDS[kind]}.")
        if self.choices and value not in self.choices:
            raise TrainingError(f"{flag(name)} is {value!r}; it takes {', '.join(self.choices)}.")
        if kind in (int, float) and not all(self._allows(number) for number in numbers):
            raise TrainingError(f"{flag(name)} is {value}; it must be {self._limits}.")
        if list(numbers) != sorted(numbers):
            raise TrainingError(f"{flag(name)} is {value}; the smaller number comes first.")

    def _allows(self, number: float) -> bool:
        return (
            (self.low is None or number >= self.low)
            and (self.above is None or number > self.above)
            and (self.least is None or number >= self.least or number == 0)
            and number <= self.high
        )

    @property
    def _limits(self) -> str:
        if self.least is not None:
            return f"0 or at least {self.least:g}, and at most {self.high:g}"
        lowest = f"at least {self.low:g}" if self.above is None else f"above {self.above:g}"
        return f"{lowest} and at most {self.high:g}"


def _is_a(kind: type, value: Any) -> bool:
    """Whole numbers are taken as floats; True and False are not numbers."""
    kinds = (int, float) if kind is float else kind
    return isinstance(value, kinds) and isinstance(value, bool) == (kind is bool)


def flag(name: str, value: Any = None) -> str:
    """The command's option for field ``name``: ``--no-…`` where it was given as False."""
    return ("--no-" if value is False else "--") + name.replace("_", "-")


def flags(given: Mapping[str, Any]) -> str:
    """Several options (name → value), for use in a sentence."""
    return ", ".join(flag(name, value) for name, value in given.items())
