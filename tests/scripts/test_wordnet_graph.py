"""WordNet's `data.noun` becomes the text that the package reads."""

from __future__ import annotations

from wordnet_graph import graph_text

from selfie_adapters.sources.topics.wordnet import read_nouns

DATA = """  1 the licence
00000100 05 n 01 bird 0 001 ~ 00000200 n 0000 | a feathered animal
00000200 05 n 02 bird_of_prey 0 raptor 0 002 @ 00000100 n 0000 #m 00000100 n 0000 | x
00000300 05 n 02 Owl 0 hooter 1 002 @ 00000200 n 0000 + 00000200 v 0101 | hoots
00000400 15 n 01 Hooterville 0 002 @i 00000100 n 0000 @ 00000300 n 0000 | a place
"""


def test_the_graph_of_a_miniature(tmp_path):
    (tmp_path / "data.noun").write_text(DATA)
    first = {"bird": "00000100", "bird_of_prey": "00000200", "owl": "00000300", "hooter": "9"}
    text = graph_text(tmp_path / "data.noun", first, {"axes": ("axe", "axis")})
    assert text == (
        "bird*\n"
        "bird_of_prey* raptor\t1\n"
        "Owl* hooter\t1\n"
        "Hooterville\t3\t1\n"
        "\n"
        "axes axe axis\n"
    )  # fmt: skip
    nouns = read_nouns(text)
    assert nouns.hypernyms == [(), (0,), (1,), (0, 2)]
    assert (nouns.first_senses("owls"), nouns.first_senses("hooter")) == ({2}, set())
