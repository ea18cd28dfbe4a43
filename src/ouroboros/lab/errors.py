"""What can go wrong in a laboratory."""

from __future__ import annotations

from ouroboros.errors import OuroborosError


class LabError(OuroborosError):
    """Something cannot be done in this laboratory; the text says why."""


class DescriptionError(LabError, ValueError):
    """A description is wrong. The text names the line, if there are several, and the word."""

    def __init__(self, text: str, *, word: str = "", line: int = 0) -> None:
        where = f"line {line}: " if line else ""
        super().__init__(f"{where}{f'{word!r}: ' if word else ''}{text}")
        #: What is said of it, without the place.
        self.reason = text
        self.word = word
        self.line = line

    def at(self, line: int) -> DescriptionError:
        """The same, of a line of a file."""
        return DescriptionError(self.reason, word=self.word, line=line)


class UnavailableError(LabError):
    """This machine lacks what a clock needs. The text says what."""
