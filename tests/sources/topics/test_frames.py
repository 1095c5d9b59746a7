from __future__ import annotations

import pytest

from selfie_adapters.errors import DataError
from selfie_adapters.model.tokens import begun_ids, encode
from selfie_adapters.sources.topics.frames import Framer, Frames, read_frames, token_at, token_ends
from tiny import golden_tokenizer


def test_every_fifth_sentence_is_for_held_out_topics_only():
    frames = Frames.of([f"{i} {{}}" for i in range(12)])
    assert frames.held_out == ("4 {}", "9 {}")
    assert len(frames.train) == 10
    assert not set(frames.train) & set(frames.held_out)


@pytest.mark.parametrize(("count", "train", "held_out"), [(1, 1, 1), (2, 1, 1), (4, 3, 1)])
def test_few_sentences(count, train, held_out):
    frames = Frames.of([f"{i} {{}}" for i in range(count)])
    assert (len(frames.train), len(frames.held_out)) == (train, held_out)


def test_the_package_brings_sixty_sentences():
    frames = read_frames()
    assert (len(frames.train), len(frames.held_out)) == (48, 12)
    assert all(one.count("{}") == 1 for one in (*frames.train, *frames.held_out))


def test_a_file_with_a_byte_mark_and_blank_lines(tmp_path):
    file = tmp_path / "frames.txt"
    file.write_bytes("\ufeffI saw {}.\r\n\r\nNo {}!\r\n".encode())
    assert read_frames(file) == Frames(("I saw {}.",), ("No {}!",))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"I saw {}.\nNothing here.\n", "line 2: 0 places for the name"),
        (b"{} and {}\n", "line 1: 2 places"),
        (b"\n \n", "no sentences"),
        (b"caf\xe9 {}\n", "line 1: not UTF-8 text"),
    ],
)
def test_sentences_that_hold_no_name(tmp_path, data, message):
    file = tmp_path / "frames.txt"
    file.write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_frames(file)


def test_a_name_is_in_different_sentences_half_of_them_chats():
    framer = Framer(golden_tokenizer(), "template", read_frames(), seed=0)
    drawn = [one for _ in range(40) for one in framer.draw("owl", held_out=False, count=3)]
    plain = [one for one in drawn if one.user == (0, len(one.text))]
    assert 40 < len(plain) < 80
    assert all(one.text[slice(*one.name)] == "owl" for one in drawn)
    texts = [one.text[slice(*one.user)] for one in drawn]
    assert all(len(set(texts[i : i + 3])) == 3 for i in range(0, len(texts), 3))
    held_out = {one.text[slice(*one.user)] for one in framer.draw("owl", True, 99)}
    assert len(held_out) == 12
    assert not held_out & set(texts)


def test_the_same_seed_draws_the_same_sentences():
    first, second, other = (
        Framer(golden_tokenizer(), "none", read_frames(), seed).draw("owl", False, 9)
        for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


@pytest.mark.parametrize("slow", [False, True])
def test_the_last_token_of_a_name_is_the_one_that_ends_it(slow, monkeypatch):
    tokenizer = golden_tokenizer()
    if slow:
        monkeypatch.setattr(type(tokenizer), "is_fast", False)
    text = "Did the owl see it?"
    ends = token_ends(tokenizer, text)
    ids = begun_ids(tokenizer, [text])[0]
    assert len(ends) == len(ids)
    at = token_at(ends, text.index(" see"))
    assert tokenizer.decode(ids[: at + 1], skip_special_tokens=True) == "Did the owl"


def test_an_added_begin_token_moves_the_position(monkeypatch):
    tokenizer = golden_tokenizer()
    own = len(encode(tokenizer, "an owl"))
    monkeypatch.setattr(
        "selfie_adapters.sources.topics.frames.begun_ids",
        lambda _tokenizer, texts: [[0, *encode(_tokenizer, text)] for text in texts],
    )
    ends = token_ends(tokenizer, "an owl")
    assert len(ends) == own + 1
    assert ends[0] == 0
    assert ends[-1] == len("an owl")
