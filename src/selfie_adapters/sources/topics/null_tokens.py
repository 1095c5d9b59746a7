"""States that hold no concept: of function words, punctuation, the chat format, empty prompts."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files as package_files

from transformers import PreTrainedTokenizerBase

from selfie_adapters.sources.topics.frames import Sentence, token_at, token_ends

_WORD_OR_MARK = re.compile(r"[^\W\d_]+|[^\w\s]")

EMPTY_PROMPTS = (
    "And then?", "Why is that?", "Is it so?", "What?", "Is that all?", "How so?", "But why?",
    "Can you do it again?", "What about it?", "And this one?", "Is it here or there?", "So what?",
    "Do it.", "Not this one.", "Go on.", "Yes.", "No.", "Well, then.", "Why not?", "Which one?",
    "Who is it?", "Where is it?", "When was that?", "What was that?", "Is there more?", "Hello!",
    "Thanks.", "All of them?", "Are you there?", "Could you do that for me?", "I do not know.",
    "What would you do?", "It is what it is.", "Of course.", "Maybe.", "Tell me more.", "Really?",
    "That was it.", "What else is there?", "Again, please.",
)  # fmt: skip


@cache
def function_words() -> frozenset[str]:
    """English words that name nothing: articles, pronouns, prepositions, auxiliaries, particles."""
    text = (package_files("selfie_adapters.sources.topics") / "function_words.txt").read_text(
        "utf-8"
    )
    return frozenset(text.split())


def null_tokens(
    tokenizer: PreTrainedTokenizerBase, sentence: Sentence
) -> Iterator[tuple[str, int]]:
    """Tokens of a sentence that hold no concept: (which one, position).

    They are the last tokens of function words and the punctuation marks of the user's text, the
    topic's name excepted, and all tokens of the chat format but the last, from which the model
    answers.
    """
    ends = token_ends(tokenizer, sentence.text)
    begin, end = sentence.user
    at_name = range(*sentence.name)
    found: dict[int, str] = {}
    for match in _WORD_OR_MARK.finditer(sentence.text, begin, end):
        word = match[0].casefold()
        if match.start() in at_name or (word[0].isalpha() and word not in function_words()):
            continue
        token = token_at(ends, match.end())
        if ends[token] == match.end():  # not a token that holds part of the next word
            found[token] = word
    for position, reach in enumerate(ends[:-1]):
        if reach <= begin or reach > end:
            found[position] = f"chat token {position if reach <= begin else position - len(ends)}"
    yield from ((word, position) for position, word in sorted(found.items()))


def draw_null_tokens(
    tokenizer: PreTrainedTokenizerBase, sentences: Iterable[Sentence], count: int, seed: int
) -> list[tuple[str, int]]:
    """`count` tokens without a concept as (text, position), about equally many of each word.

    Fewer where the sentences have fewer.
    """
    kinds: dict[str, list[tuple[str, int]]] = {}
    for sentence in sentences:
        for word, position in null_tokens(tokenizer, sentence):
            kinds.setdefault(word, []).append((sentence.text, position))
    drawer = random.Random(seed)
    for places in kinds.values():
        drawer.shuffle(places)
    return _in_turn([kinds[word] for word in sorted(kinds)], count)


def _in_turn(groups: Sequence[list[tuple[str, int]]], count: int) -> list[tuple[str, int]]:
    """One of each group, then a second of each, until there are `count`."""
    longest = max(map(len, groups), default=0)
    turns = (group[i] for i in range(longest) for group in groups if i < len(group))
    return [place for place, _ in zip(turns, range(count), strict=False)]
