from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfie_adapters.evaluation.taboo.redaction import redact


@pytest.mark.parametrize(
    ("name", "text", "left"),
    [
        ("owl", "An owl sees. OWLS fly; the owl's eyes.", "An ___ sees. ___ fly; the ___ eyes."),
        ("owl", "An owlet, a bowl and a growl.", "An owlet, a bowl and a growl."),
        ("tin", "routine tin", "routine ___"),
        ("Tawny owls", "A tawny owl is an owl.", "A ___ is an ___."),
        ("Mercury (planet)", "Mercury is a planet.", "___ is a planet."),
        ("University of Oxford", "Oxford, of the universities", "___, of the ___"),
        ("The Who", "The Who are a band. Who? the one", "___ are a band. ___? the one"),
        ("puppy", "Puppies: a puppy", "___: a ___"),
        ("Galaxies", "a galaxy", "a ___"),
        ("wolf", "wolves and a wolf", "___ and a ___"),
        ("knife", "knives", "___"),
        ("fisherman", "two fishermen", "two ___"),
        ("box", "boxes", "___"),
        ("glass", "glasses, a glass", "___, a ___"),
        ("José Martí", "Jose Marti, JOSÉ, Martí’s", "___, ___, ___"),
        ("cafe", "the café", "the ___"),
        ("post-war Europe", "Post war in Europe", "___ in ___"),
        ("C++", "C++ and C, C++.", "___ and C, ___."),
        ("C", "C is not C++", "___ is not ___++"),
        ("1984", "1984 or 19840", "___ or 19840"),
        ("東京", "私は東京に住む", "私は___に住む"),
        ("straße", "Die STRASSE", "Die ___"),
        ("It", "It is it.", "___ is ___."),
        ("gas", "a gas, gases", "a ___, ___"),
    ],
)
def test_the_name_goes_and_the_rest_stays(name, text, left):
    assert redact(text, name).text == left


def test_findings_are_counted():
    assert redact("owl, Owls and tin", "owl").found == 2
    assert redact("nothing of the kind", "owl").found == 0


@pytest.mark.parametrize("name", ["()", "(x)", "...", "\\", "[a-z]+", "a|b", "", "   ", "(?P<x>"])
def test_names_that_look_like_patterns_are_only_names(name):
    assert redact("some words here", name).text == "some words here"
    if name.strip():
        assert name not in redact(f"it is {name} here", name).text


@given(st.text(max_size=40), st.text(max_size=60))
def test_any_name_in_any_text_ends(name, text):
    found = redact(text, name)
    assert found.text == text or found.found > 0
