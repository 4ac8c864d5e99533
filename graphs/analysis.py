"""What can be told of texts by counting, without a language model: key terms and the sentences that carry most of them.

TF-IDF over the sentences: a word counts for how often it is said, and for how few sentences say it.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

METHOD = "counting (no language model): word counts, and sentences and terms by TF-IDF"
_WORD = re.compile(r"\b[^\W\d_]+(?:['\u2019-][^\W\d_]+)*\b")
# A blank line, a line that begins a list, a heading or a table, and the end of a sentence; else a line only goes on.
_SENTENCE = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+|#>]|\d+[.)]\s))|(?<=[.!?\u3002])\s+")
_SHORTEST, _LONGEST = 30, 400
_MOST_SENTENCES, _MOST_TERMS = 8, 12
_ASKED_FOR = 3.0
# Words that say little by themselves.
_COMMON = frozenset(
    _WORD.findall(
        "a about after all also an and any are as at be been but by can could did do does for from had has have "
        "he her his how i if in into is it its may more most no not of on one only or other our out over she "
        "should so some such than that the their them then there these they this those to two under up was we "
        "were what when where which who will with would you your"
    )
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, the number of the text it is from, and the words that count."""

    text: str
    source: int
    words: tuple[str, ...]


def analyse(question: str, texts: Sequence[str]) -> dict[str, object]:
    """What counting tells of the texts, words of the question counting more. The same texts give the same answer."""
    sentences = [one for number, text in enumerate(texts) for one in _sentences(text, number)]
    found = Counter(word for one in sentences for word in set(one.words))
    weights = {word: math.log((1 + len(sentences)) / (1 + times)) + 1 for word, times in found.items()}
    for word in set(words_of(question)) & weights.keys():
        weights[word] *= _ASKED_FOR
    counts = [Counter(_all_words(text)) for text in texts]
    return {
        "method": METHOD,
        "words": [counted.total() for counted in counts],
        "terms": [_terms(counted, weights) for counted in counts],
        "key_terms": _terms(sum(counts, Counter[str]()), weights),
        "sentences": [{"source": one.source, "text": one.text} for one in _best(sentences, weights)],
    }


def words_of(text: str) -> list[str]:
    """The words of a text that count, in small letters."""
    return [word for word in _all_words(text) if len(word) > 2 and word not in _COMMON]  # noqa: PLR2004 letters


def _all_words(text: str) -> list[str]:
    return [found.lower() for found in _WORD.findall(text)]


def _sentences(text: str, number: int) -> Iterator[Sentence]:
    for piece in _SENTENCE.split(text):
        sentence = " ".join(piece.split())
        if _SHORTEST <= len(sentence) <= _LONGEST and (words := words_of(sentence)):
            yield Sentence(sentence, number, tuple(words))


def _terms(counted: Mapping[str, int], weights: Mapping[str, float]) -> list[str]:
    scored = [(-times * weights[word], word) for word, times in counted.items() if word in weights]
    return [word for _, word in sorted(scored)[:_MOST_TERMS]]


def _best(sentences: Sequence[Sentence], weights: Mapping[str, float]) -> list[Sentence]:
    """The weightiest sentences in the order of the sources; of sentences that say the same, the first."""
    firsts = {frozenset(one.words): one for one in reversed(sentences)}
    order = {id(one): place for place, one in enumerate(sentences)}
    ranked = sorted(
        firsts.values(),
        key=lambda one: (-sum(weights[word] for word in set(one.words)) / math.sqrt(len(one.words)), order[id(one)]),
    )
    return sorted(ranked[:_MOST_SENTENCES], key=lambda one: order[id(one)])
