"""A spelling control for retrieval: distractors that begin like the right name.

Whoever knows only the first letters of a name finds it among random others. Among names with the
same first token it has to be told apart by what it means.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from selfie_adapters.errors import DataError
from selfie_adapters.inference.label_batches import tokenize_labels
from selfie_adapters.sources.topics.noun_forms import noun_forms
from selfie_adapters.sources.topics.wordnet import packaged_nouns


@dataclass(frozen=True)
class SameStart:
    """Distractors of one query: names with its first token, `missing` fewer than requested."""

    names: tuple[str, ...]
    missing: int


def same_start_distractors(
    tokenizer: PreTrainedTokenizerBase,
    queries: Sequence[str],
    names: Sequence[str],
    k: int,
    seed: int = 0,
) -> list[SameStart]:
    """For each query, k of `names` with the same first token, sampled without repetition.

    The first token is that of the label as the model generates it, after the opening quote. A name
    is no distractor of a query that it equals in case, spelling or number (owl, Owls). Where fewer
    than k exist, all of them are returned, and `missing` states how many lack. A query's sample
    depends on the seed, the query and the names, not on the other queries. Raises DataError for
    k below 1 and for an empty query or name.
    """
    if k < 1:
        raise DataError(f"k is {k}; at least one distractor per query is expected.")
    irregular = packaged_nouns().irregular
    names = sorted(set(names))
    by_token: defaultdict[int, list[str]] = defaultdict(list)
    for name, token in zip(names, _first_tokens(tokenizer, names), strict=True):
        by_token[token].append(name)
    found: list[SameStart] = []
    for query, token in zip(queries, _first_tokens(tokenizer, queries), strict=True):
        own = noun_forms(query, irregular)
        free = [name for name in by_token[token] if not own & noun_forms(name, irregular)]
        chosen = random.Random(f"{seed} {query}").sample(free, min(k, len(free)))
        found.append(SameStart(tuple(chosen), k - len(chosen)))
    return found


def _first_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    tokens = tokenize_labels(tokenizer, texts, end_id=0)
    return tokens.ids[tokens.starts].tolist()
