"""Is a generated label right, related, or wrong? Decided by WordNet, without a model.

right     It is a name of the topic: the topic's name, one of its labels that is no gloss, or a
          synonym. A synonym is a noun that has the same first sense in WordNet as the topic's name.
          Compared are the words: case, whitespace, hyphens, apostrophes, full stops, a leading
          article and a plural's ending make no difference, since they change nothing about what is
          named. "An Owl." is right for owl; "shoe-stores" is right for shoe store.
related   It is not right, and a noun of WordNet one of whose senses is the first sense of the
          topic's name, or a direct hypernym, a direct hyponym or a sibling of it (which shares a
          direct hypernym). For owl: hooter, bird of prey, barn owl, hawk.
wrong     Everything else: other words, descriptions and glosses ("owl, a bird that …"), however
          true they may be.

Plurals are recognized by their endings and WordNet's list of irregular ones, so "goods" is right
for good. A topic whose name is no noun of WordNet has no related labels.
"""

from __future__ import annotations

from typing import Literal

from selfie_adapters.sources.topics.noun_forms import noun_forms, words_of
from selfie_adapters.sources.topics.topic import Topic
from selfie_adapters.sources.topics.wordnet import Nouns, packaged_nouns
from selfie_adapters.words import plain

Correctness = Literal["right", "related", "wrong"]
_ARTICLES = ("a", "an", "the")


def names_of(topic: Topic) -> list[str]:
    """All names of a topic: its name, its labels without glosses, and WordNet's synonyms.

    A gloss is a label that begins with the topic's title and a comma. A topic without a name has
    its labels alone.
    """
    names = [topic.name] if topic.name else []
    names += [label for label in topic.labels if not _is_gloss(label, topic)]
    nouns = packaged_nouns()
    for synset in sorted(nouns.first_senses(topic.name or "")):
        names += nouns.names(synset)
    return list(dict.fromkeys(names))


def is_exact(label: str, topic: Topic) -> bool:
    """Whether `label` is exactly a name of the topic, case and whitespace aside."""
    return _is_one_of(label, names_of(topic))


def judge(label: str, topic: Topic) -> Correctness:
    """Whether `label` is right, related or wrong for `topic`, as this module defines it."""
    nouns, names = packaged_nouns(), names_of(topic)
    forms = _forms(label, nouns)
    if _is_one_of(label, names) or any(forms & _forms(name, nouns) for name in names):
        return "right"
    own = nouns.first_senses(topic.name or "")
    senses = nouns.senses(label) | nouns.senses(_without_article(label))
    return "related" if senses & (own | nouns.related(own)) else "wrong"


def shares_first_letter(label: str, topic: Topic) -> bool:
    """Whether label and title begin with the same letter or digit, case and article aside.

    Of wrong labels this is frequent if the label is spelled from the vector, not understood.
    """
    one, other = _without_article(label), _without_article(topic.title)
    return bool(one and other) and one[0] == other[0]


def _is_gloss(label: str, topic: Topic) -> bool:
    return plain(label).startswith(f"{plain(topic.title)},") and "," not in topic.title


def _is_one_of(label: str, names: list[str]) -> bool:
    return plain(label) in {plain(name) for name in names} - {""}


def _without_article(text: str) -> str:
    words = words_of(text)
    return " ".join(words[1:] if len(words) > 1 and words[0] in _ARTICLES else words)


def _forms(text: str, nouns: Nouns) -> set[str]:
    return noun_forms(_without_article(text), nouns.irregular)
