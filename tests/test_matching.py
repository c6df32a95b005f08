import doctest
import random
import subprocess
import sys
from itertools import permutations

import pytest

from diffusers_r1 import matching
from diffusers_r1.matching import ACTION_SYNONYMS, exact, multiset_f1, normalize, soft_f1
from diffusers_r1.plan import Edit


WORDS = ("red", "blue", "the", "coat", "man", "Dog", "left", "")


def random_items(rng):
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 3))) for _ in range(rng.randint(0, 4))]


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(matching).failed == 0


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("The  red\tcoat.", "red coat"),
        ("an apple & a pear", "apple pear"),
        ("top-left", "top left"),
        ("the man’s hat", "mans hat"),
        ("theatre", "theatre"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("लाल टोपी", "लाल टोपी"),
        ("红色。", "红色"),
        ("A", "a"),
        ("the ?", "the"),
        ("?!", "?!"),
        ("❤", "❤"),
        ("  ", ""),
    ],
)
def test_normalize(item, expected):
    assert normalize(item) == expected
    assert normalize(normalize(item)) == expected


def test_normalize_twice_is_once():
    rng = random.Random(0)
    for _ in range(300):
        item = "".join(rng.choices("aAnteh '-.;?❤ß’ \n", k=rng.randint(0, 8)))
        assert normalize(normalize(item)) == normalize(item)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Colour", "recolor"),
        ("change the color of", "recolor"),
        ("re-paint", "re paint"),
        ("repaint", "recolor"),
        ("take away", "remove"),
        ("get rid of", "remove"),
        ("Insert", "add"),
        ("swap", "replace"),
        ("blur", "blur"),
    ],
)
def test_synonyms_of_actions(said, meant):
    assert multiset_f1([said], [meant], ACTION_SYNONYMS) == 1.0


def test_synonyms_name_a_canonical_action():
    assert not set(ACTION_SYNONYMS) & set(ACTION_SYNONYMS.values())
    assert all(normalize(said) == said for said in ACTION_SYNONYMS)


def test_a_user_adds_synonyms():
    mine = {**ACTION_SYNONYMS, "The Zap!": "Remove"}
    assert multiset_f1(["zap"], ["erase"], mine) == 1.0
    assert multiset_f1(["zap"], ["erase"], ACTION_SYNONYMS) == 0.0
    assert multiset_f1(["erase"], ["remove"]) == 0.0


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ([], [], 1.0),
        (["a dog"], [], 0.0),
        ([], ["a dog"], 0.0),
        (["the dog"], ["Dog."], 1.0),
        (["dog", "cat"], ["cat", "dog"], 1.0),
        (["dog", "dog"], ["dog"], 2 / 3),
        (["dog"], ["dog", "dog"], 2 / 3),
        (["dog"] * 99, ["dog"], 2 / 100),
        (["dog", "cat", "cow"], ["dog"], 0.5),
        (["cow"], ["dog"], 0.0),
        ([""], ["dog"], 0.0),
        ([""], [], 0.0),
    ],
)
def test_multiset_f1(predicted, true, expected):
    assert multiset_f1(predicted, true) == pytest.approx(expected)
    assert multiset_f1(tuple(true), tuple(predicted)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ([], [], 1.0),
        (["dog"], [], 0.0),
        ([], ["dog"], 0.0),
        (["red coat"], ["coat"], 2 / 3),
        (["coat coat coat"], ["coat"], 0.5),
        (["red coat", "coat"], ["coat", "the red coat"], 1.0),
        (["coat"], ["coat", "man"], 2 / 3),
        (["coat"] * 3, ["coat"], 0.5),
        (["red"], ["blue"], 0.0),
    ],
)
def test_soft_f1(predicted, true, expected):
    assert soft_f1(predicted, true) == pytest.approx(expected)


def test_soft_f1_takes_the_best_pairing():
    rng = random.Random(1)
    for _ in range(200):
        one, other = sorted((random_items(rng), random_items(rng)), key=len)
        if not one:
            continue
        best = max(sum(soft_f1([a], [b]) for a, b in zip(one, order)) for order in permutations(other))
        assert soft_f1(one, other) == pytest.approx(2 * best / (len(one) + len(other)))


def test_properties_on_random_lists():
    rng = random.Random(2)
    for _ in range(500):
        one, other = random_items(rng), random_items(rng)
        strict, soft = multiset_f1(one, other), soft_f1(one, other)
        assert 0.0 <= strict <= soft + 1e-9 <= 1.0 + 2e-9
        assert strict == multiset_f1(other, one) and soft == pytest.approx(soft_f1(other, one))
        assert multiset_f1(one, one[::-1]) == 1.0 and soft_f1(one, one[::-1]) == pytest.approx(1.0)
        if one:
            assert multiset_f1([*one, "something else"], one) < 1.0
            assert multiset_f1([*one, one[0]], one) < 1.0


@pytest.mark.parametrize("function", [multiset_f1, soft_f1])
def test_a_single_string_is_no_list(function):
    with pytest.raises(TypeError, match="single string 'dog'"):
        function("dog", ["dog"])


HAT, MAN = Edit("recolor", "the hat", "red"), Edit("remove", "man", "nothing")


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        ([HAT, MAN], True),
        ((MAN, HAT), True),
        ([Edit("Recolor", "hat", "Red."), MAN], True),
        ([HAT], False),
        ([HAT, MAN, MAN], False),
        ([], False),
        ([Edit("recolor", "hat", "blue"), MAN], False),
        ([Edit("recolor", "man", "red"), Edit("remove", "the hat", "nothing")], False),
        ([Edit("paint", "hat", "red"), MAN], False),
    ],
)
def test_exact(predicted, expected):
    assert exact(predicted, [HAT, MAN]) is expected


def test_exact_with_synonyms_and_without_edits():
    assert exact([Edit("paint", "hat", "red"), Edit("erase", "man", "nothing")], [HAT, MAN], ACTION_SYNONYMS)
    assert exact([], ())


def test_importing_it_stays_light():
    program = "import sys, diffusers_r1.matching; sys.exit(bool({'torch', 'scipy', 'numpy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)
