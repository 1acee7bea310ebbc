"""A little world whose texts have known probabilities: what the demo model was trained on.

An explicit probabilistic grammar of stories, translations, reviews and questions. It samples documents, gives
the exact probability of a text and of the next word, says which words decide an answer, and holds out
combinations of words that training never shows.
"""

from tokentape.world.document import (
    KINDS,
    Document,
    Kind,
    Split,
    held_out_combinations,
    log_probability,
    next_words,
    parse,
    sample,
)
from tokentape.world.question import question_program

__all__ = [
    "KINDS",
    "Document",
    "Kind",
    "Split",
    "held_out_combinations",
    "log_probability",
    "next_words",
    "parse",
    "question_program",
    "sample",
]
