from __future__ import annotations

from selfie_adapters.model.tokens import begun_ids
from selfie_adapters.sources.topics.frames import Framer, Frames, Sentence
from selfie_adapters.sources.topics.null_tokens import draw_null_tokens, function_words, null_tokens
from tiny import golden_tokenizer


def _words(tokenizer, sentence: Sentence) -> dict[str, str]:
    """Which null token: the text that ends with it."""
    ids = begun_ids(tokenizer, [sentence.text])[0]
    return {
        word: tokenizer.decode(ids[: position + 1], skip_special_tokens=False)
        for word, position in null_tokens(tokenizer, sentence)
    }


def test_function_words_and_marks_but_neither_names_nor_content_words():
    tokenizer = golden_tokenizer()
    text = "I saw the of, yesterday?"
    found = _words(tokenizer, Sentence(text, (0, len(text)), (10, 12)))
    assert set(found) == {"i", "the", ",", "?"}  # "of" is the name here
    ends = {word: said[-len(word) :].casefold() for word, said in found.items()}
    assert ends == {"i": "i", "the": "the", ",": ",", "?": "?"}


def test_a_function_word_inside_a_longer_word_is_none():
    tokenizer = golden_tokenizer()
    text = "There theorem {}"
    found = _words(tokenizer, Sentence(text, (0, len(text)), (14, 16)))
    assert set(found) <= {"there"}


def test_chat_tokens_count_except_the_one_that_answers():
    tokenizer = golden_tokenizer()
    (sentence,) = Framer(tokenizer, "template", Frames.of(["owl {}"]), 0).draw("x", False, 1)
    while sentence.user[0] == 0:  # half of the sentences are plain
        (sentence,) = Framer(tokenizer, "template", Frames.of(["owl {}"]), 1).draw("x", False, 1)
    positions = [position for _, position in null_tokens(tokenizer, sentence)]
    length = len(begun_ids(tokenizer, [sentence.text])[0])
    assert length - 1 not in positions
    assert length - 2 in positions
    assert 0 in positions


def test_each_word_gets_about_as_many():
    tokenizer = golden_tokenizer()
    texts = ["the a the the the the."] * 6
    sentences = [Sentence(text, (0, len(text)), (0, 0)) for text in texts]
    drawn = draw_null_tokens(tokenizer, sentences, 12, seed=0)
    assert len(drawn) == 12
    word_at = {position: word for word, position in null_tokens(tokenizer, sentences[0])}
    which = [word_at[position] for _, position in drawn]
    assert {word: which.count(word) for word in set(which)} == {"the": 4, "a": 4, ".": 4}


def test_the_list_holds_no_word_that_names_something():
    assert {"the", "of", "behind", "with", "over", "was"} <= function_words()
    assert not {"owl", "city", "run", "red"} & function_words()
