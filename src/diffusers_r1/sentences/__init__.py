"""The world of sentences: instructions about photos in everyday English, each with the edits that it means. No pictures."""

from .tasks import KINDS, SEPARATOR, TEST_SEEDS, Sentence, kind_of, sample_sentence
from .wordings import ACTIONS


__all__ = [
    "ACTIONS",
    "KINDS",
    "SEPARATOR",
    "TEST_SEEDS",
    "Sentence",
    "kind_of",
    "sample_sentence",
]
