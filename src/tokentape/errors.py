"""Everything tokentape refuses, in one tree; each branch has one exit code.

::

    TokentapeError                      1  failed
    ├── UsageError                      2  the request contradicts itself or asks for what does not exist
    │   ├── UnsupportedDecoding            a decoding method that is not recorded (beam search, assisted decoding, ...)
    │   ├── PromptError                    empty, out of the vocabulary, longer than the model's positions
    │   └── TapeExists                     the file to be written is already there
    ├── ModelError                      1  the model cannot be used: not causal, corrupt, remote code, no tokenizer
    │   └── OutOfMemory                    with the numbers
    ├── RuleError                       1  the rules left no token to choose
    ├── RecordingError                  1  the tape could not be written to its end
    ├── StudyError                      1  the tape does not hold what the question needs
    │   ├── TooFewPoints                   fewer, or less varied, measurements than the figure needs
    │   └── NotComparable                  two tapes whose Settings differ in what matters
    ├── ExplainError                    1  the model or the tape does not give what an explanation needs
    │   └── ReplayError                    a tape cannot be replayed, or the replay computes something else
    ├── MissingExtra                    4  an optional package or a device is not there
    ├── Unreachable                     5  offline, not cached, gated
    └── TapeError                       6  the file is no readable tape
        ├── NotATape                       some other kind of file
        ├── NewerTape                      written by a later version
        ├── DamagedTape                    truncated or altered
        └── TapeBusy                       another process is recording into it

An error says what was wrong (``what``), why (``why``) and what to do about it (``fix``, to be copied).
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "DamagedTape",
    "ExplainError",
    "MissingExtra",
    "ModelError",
    "NewerTape",
    "NotATape",
    "NotComparable",
    "OutOfMemory",
    "PromptError",
    "RecordingError",
    "ReplayError",
    "RuleError",
    "StudyError",
    "TapeBusy",
    "TapeError",
    "TapeExists",
    "TokentapeError",
    "TooFewPoints",
    "Unreachable",
    "UnsupportedDecoding",
    "UsageError",
]


class TokentapeError(Exception):
    """Base of every error raised on purpose; ``str(error)`` gives the three lines ``what / why / fix``, none of them empty."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}\nwhy: {self.why}\nfix: {self.fix}"


class UsageError(TokentapeError, ValueError):
    """The request contradicts itself, or names something that does not exist."""

    exit_code = 2


class UnsupportedDecoding(UsageError):
    """A decoding method whose steps are not recorded, refused by its name."""


class PromptError(UsageError):
    """A prompt that the model cannot read: empty, out of the vocabulary, longer than its positions."""


class TapeExists(UsageError):
    """The path to record into is taken; nothing was overwritten."""


class ModelError(TokentapeError):
    """The model was found but cannot be recorded."""


class OutOfMemory(ModelError):
    """The model or its cache does not fit; the message carries the numbers."""


class RuleError(TokentapeError):
    """The rules left no token to choose from."""


class RecordingError(TokentapeError):
    """The tape could not be written to its end; the message says where what was recorded is kept."""


class StudyError(TokentapeError):
    """The tape does not hold what the question needs; the message says what would be needed."""


class TooFewPoints(StudyError):
    """Fewer measurements, or less varied ones, than the figure needs."""


class NotComparable(StudyError):
    """Two tapes whose Settings differ in what matters, so that their difference has no meaning."""


class ExplainError(TokentapeError):
    """The model or the tape does not give what the explanation needs, such as attention weights of a model without attention."""


class ReplayError(ExplainError):
    """A tape cannot be replayed, or its replay computes something else than what was recorded."""


class MissingExtra(TokentapeError, ImportError):
    """An optional package or a device is not there."""

    exit_code = 4


class Unreachable(TokentapeError):
    """Something beyond this machine is needed and cannot be had: offline, not cached, gated."""

    exit_code = 5


class TapeError(TokentapeError):
    """The file is no readable tape."""

    exit_code = 6


class NotATape(TapeError):
    """Some other kind of file."""


class NewerTape(TapeError):
    """Written by a later version of tokentape, with a schema that this one does not know."""


class DamagedTape(TapeError):
    """Truncated or altered since it was written."""


class TapeBusy(TapeError):
    """Another process is recording into the file."""
