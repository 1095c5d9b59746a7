"""Whether a label only repeats words of the text read so far.

Attention carries earlier words to later tokens, so that a label made of them reveals little about
the state it was read from. The word that the token itself belongs to does not count as repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

from selfie_adapters.reading.plan import PromptToken
from selfie_adapters.words import word_spans, words_of


class TextSoFar:
    """The words of a prompt, by token. tokens: how many it has.

    Special tokens hold no words; a character over several tokens belongs to the first of them.
    """

    def __init__(self, tokens: Sequence[PromptToken]) -> None:
        self.tokens = len(tokens)
        self._starts: list[int] = []
        text = ""
        for token in tokens:
            self._starts.append(len(text))
            if token.special:
                text += " "
            elif token.part is None or token.part.startswith("1/"):
                text += token.text
        self._starts.append(len(text))
        self._words = list(word_spans(text))

    def repeats(self, label: str, position: int) -> bool:
        """Whether every word of `label` is in the text before the word of token `position`."""
        first, last = self._starts[position], self._starts[position + 1]
        own = {word for start, end, word in self._words if start < last and end > first}
        before = {word for _, end, word in self._words if end <= first} - own
        words = set(words_of(label))
        return bool(words) and words <= before
