"""Predictions as a table on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgetl.cli.terminal.terminal_text import padded, width
from edgetl.system.message_text import printable

if TYPE_CHECKING:
    from edgetl.runtime.bundle.model_card import ModelCard
    from edgetl.runtime.inference.prediction import Result

_UNSURE = "unsure ({})"


class PredictionTable:
    """Prints each result as it comes. The photo is the last column, since its name can be long."""

    def __init__(self, card: ModelCard, top: int, level: float | None, unknown: str) -> None:
        """Shows the ``top`` best classes, or those of the prediction set of ``level``.

        ``unknown`` stands before the label of an unknown photo, which is then in brackets.
        """
        self._unknown = printable(unknown).replace("{", "{{").replace("}", "}}") + " ({})"
        patterns = [_UNSURE] * card.has_sure_answers + [self._unknown] * bool(card.unknown)
        longest = max(width(printable(label)) for label in card.labels)
        longest += max((width(pattern.format("")) for pattern in patterns), default=0)
        self._column = max(5, longest)
        self._top, self._level = top, level
        self._begun = False

    def show(self, result: Result) -> None:
        if not self._begun:
            click.echo(f"confidence  {padded('label', self._column)}  photo")
            self._begun = True
        if isinstance(result, Exception):
            from edgetl.runtime.results.records import as_record

            message = f"{result.source}: {as_record(result)['error']}"
            click.echo(f"{'error':>10}  {printable(message)}")
            return
        photo, pattern = printable(result.source), "{}"
        if result.is_unknown:
            pattern = self._unknown
        elif result.is_sure is False:
            pattern = _UNSURE
        count = self._top if self._level is None else len(result.prediction_set(self._level))
        for label, confidence in result.top(count):
            text = padded(pattern.format(printable(label)), self._column)
            click.echo(f"{confidence:>10.2%}  {text}  {photo}".rstrip())
            photo, pattern = "", "{}"
