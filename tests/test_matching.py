import doctest
import random
import subprocess
import sys
from collections import Counter
from itertools import permutations

import pytest

from diffusers_r1 import matching
from diffusers_r1.languages import PACKS
from diffusers_r1.matching import (
    ACTION_SYNONYMS,
    ACTIONS,
    action_f1,
    action_name,
    exact,
    language_of,
    likeness,
    multiset_f1,
    normalize,
    same_edits,
    soft_f1,
)
from diffusers_r1.plan import Edit


WORDS = ("red", "blue", "the", "coat", "man", "Dog", "left", "")


def random_items(rng, words=WORDS):
    return [" ".join(rng.choices(words, k=rng.randint(1, 3))) for _ in range(rng.randint(0, 4))]


def test_the_examples_in_the_docstrings():
    assert doctest.testmod(matching).failed == 0


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ("The  red\tcoat.", "red coat"),
        ("an apple & a pear", "apple and pear"),
        ("vitamin A", "vitamin a"),
        ("l'arbre", "arbre"),
        ("der Hund", "hund"),
        ("el perro", "perro"),
        # numbers, signs, units, symbols
        ("+1 stop", "+ 1 stop"),
        ("-1 stop", "-1 stop"),
        ("\u22121 stop", "-1 stop"),
        ("a - 1 stop", "1 stop"),
        ("1,000 lamps", "1000 lamps"),
        ("1,5 stops", "1.5 stops"),
        ("1.5 stops.", "1.5 stops"),
        ("16:9", "16:9"),
        ("3/4", "3/4"),
        ("2½", "2 1/2"),
        ("rot,blau", "rot blau"),
        ("50%", "50 %"),
        ("5°C", "5 ° c"),
        ("$5", "$ 5"),
        ("C#", "c #"),
        ("C++", "c + +"),
        ("**red**", "red"),
        ("`red`", "red"),
        ("😀", "😀"),
        ("❤️ and 😡", "❤ and 😡"),
        ("👍🏽", "👍 🏽"),
        ("👍🏻", "👍 🏻"),
        ("👍🏿", "👍 🏿"),
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
        item = "".join(rng.choices("aAnteh '-.;?❤ß’ \n01,+#%&½:/l", k=rng.randint(0, 8)))
        assert normalize(normalize(item)) == normalize(item)


@pytest.mark.parametrize(
    "pair",
    [
        ("+1 stop", "-1 stop"),
        ("C#", "C++"),
        ("😀", "😡"),
        ("50%", "50"),
        ("$5", "€5"),
        ("1.5", "15"),
        ("👍🏻", "👍🏿"),
    ],
    ids=str,
)
def test_what_changes_the_meaning_stays(pair):
    assert normalize(pair[0]) != normalize(pair[1])
    assert multiset_f1(pair[:1], pair[1:]) == 0.0 and soft_f1(pair[:1], pair[1:]) < 0.5


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Colour", "recolor"),
        ("change the color of", "recolor"),
        ("re-paint", "recolor"),
        ("repaint", "recolor"),
        ("dyed", "recolor"),
        ("colour change", "recolor"),
        ("change hair colour", "recolor"),
        ("take away", "remove"),
        ("taking out", "remove"),
        ("got rid of", "remove"),
        ("removing", "remove"),
        ("erased", "remove"),
        ("remove person", "remove"),
        ("remove text", "remove"),
        ("delete object", "remove"),
        ("removal", "remove"),
        ("Insert", "add"),
        ("puts", "add"),
        ("swap", "replace"),
        ("swapped out", "replace"),
        ("swap with", "replace"),
        ("stylize", "restyle"),
        ("stylising", "restyle"),
        ("stylise", "restyle"),
        ("applying style", "restyle"),
        ("applied style", "restyle"),
        ("cartoonise", "restyle"),
        ("minimise", "resize down"),
        ("magnified", "resize up"),
        ("style transfer", "restyle"),
        ("change background", "background"),
        ("relighting", "lighting"),
        ("change texture", "material"),
        ("rewrite", "text"),
        ("change posture", "pose"),
        ("shift", "move"),
        ("move to the left", "move left"),
        ("scaling", "resize"),
        ("make it bigger", "resize up"),
        ("reduce size", "resize down"),
        ("make the sky brighter", "lighting up"),
        ("dimmed", "lighting down"),
        ("tweak", "adjust"),
        ("turn up the saturation", "adjust saturation up"),
        ("deblur", "adjust sharpness up"),
        ("trimming", "crop"),
        ("mirrored", "flip"),
        ("entfernen", "remove"),
        ("Farbe ändern", "recolor"),
        ("añade", "add"),
        ("cambiar el fondo", "background"),
        ("supprimez", "remove"),
        ("changer l'arrière-plan", "background"),
        ("去掉", "remove"),
        ("换背景", "background"),
        # no action that is known
        ("levitate", "levitate"),
        ("turn red", "turn red"),
        ("recolor remove add replace", "recolor remove add replace"),
        ("", ""),
    ],
)
def test_names_of_actions(said, meant):
    assert action_name(said) == meant
    assert action_f1([said], [meant]) == 1.0


@pytest.mark.parametrize(("said", "meant"), [("entfernte", "remove"), ("quitando", "remove"), ("enlevant", "remove")])
def test_inflections_of_other_languages_with_simplemma(said, meant):
    pytest.importorskip("simplemma")
    assert action_name(said) == meant


@pytest.fixture
def without_simplemma(monkeypatch):
    caches = matching._lemmas, matching._known_action
    monkeypatch.setitem(sys.modules, "simplemma", None)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("removes person", "remove"),
        ("erased", "remove"),
        ("got rid of", "remove"),
        ("swapped out", "replace"),
        ("dimmed", "lighting down"),
        ("relighting", "lighting"),
        ("applied style", "restyle"),
        ("stylising", "restyle"),
        ("cartoonise", "restyle"),
        ("minimise", "resize down"),
        ("magnified hat", "resize up"),
        ("trimming", "crop"),
        ("levitating person", "levitating person"),
        ("turning person", "turning person"),
    ],
)
@pytest.mark.usefixtures("without_simplemma")
def test_english_inflections_need_no_package(said, meant):
    assert action_name(said) == meant


def test_the_packs_name_the_same_actions_in_every_language():
    fourteen = (
        "add remove replace recolor restyle background lighting material text pose move resize adjust crop".split()
    )
    for code, pack in PACKS.items():
        assert set(fourteen) <= set(pack.actions), code
        for name, phrases in pack.actions.items():
            assert name.split()[0] in {*fourteen, "rotate", "flip"}, (code, name)
            for phrase in phrases.split(","):
                assert normalize(phrase) == phrase.strip(), (code, phrase)
        listed = [phrase.strip() for phrases in pack.actions.values() for phrase in phrases.split(",")]
        assert len(listed) == len(set(listed)), code
    assert set(ACTION_SYNONYMS.values()) <= ACTIONS
    assert all(action_name(name) == name for name in ACTIONS)


def test_a_user_adds_synonyms():
    assert action_f1(["zap"], ["erase"], {"The Zap!": "Delete"}) == 1.0
    assert action_f1(["zap"], ["erase"]) == 0.0
    assert action_f1(["erase"], ["erase"], {"erase": "zap"}) == 1.0
    assert action_f1(["erase"], ["remove"], {"erase": "zap"}) == 0.0  # the user's words go before ours


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ([], [], 1.0),
        (["add"], [], 0.0),
        (["erase", "erase"], ["remove"], 2 / 3),
        (["enlarge"], ["resize"], 1.0),
        (["resize"], ["enlarge"], 1.0),
        (["shrink"], ["enlarge"], 0.0),
        (["resize", "enlarge"], ["enlarge", "shrink"], 1.0),
        (["resize", "resize"], ["enlarge"], 2 / 3),
        (["resize"], ["enlarge", "shrink"], 2 / 3),
        (["sharpen"], ["adjust"], 1.0),
        (["sharpen"], ["blur"], 0.0),
        (["sharpen"], ["saturate"], 0.0),
        (["recolor remove"], ["recolor"], 0.0),
    ],
)
def test_action_f1(predicted, true, expected):
    assert action_f1(predicted, true) == pytest.approx(expected)
    assert action_f1(true, predicted) == pytest.approx(expected)


def related(one, other):
    return one == other or any(a in ACTIONS and a.startswith(f"{b} ") for a, b in ((one, other), (other, one)))


def test_related_actions_go_one_to_one_whatever_their_order():
    rng = random.Random(3)
    names = sorted({name for name in ACTIONS for other in ACTIONS if name != other and related(name, other)})
    for _ in range(500):
        lists = [rng.choices(names, k=rng.randint(1, 4)) for _ in range(2)]
        one, other = (Counter(each) for each in lists)
        few, many = sorted([[*(one - other).elements()], [*(other - one).elements()]], key=len)
        best = (one & other).total() + max(sum(map(related, few, order)) for order in permutations(many))
        assert action_f1(*lists) == pytest.approx(2 * best / len([*lists[0], *lists[1]]))
        edits = [[Edit(name, "hat", "red") for name in each] for each in lists]
        assert exact(*edits) is (len(lists[0]) == len(lists[1]) == best)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("coats", "coat", 1.0),
        ("the men", "man", 1.0),
        ("boxes", "a box", 1.0),
        ("berries", "berry", 1.0),
        ("dress", "dresses", 1.0),
        ("glass", "glasses", 0.0),
        ("two dogs", "2 dogs", 1.0),
        ("two dogs", "three dogs", 0.25),
        ("man in the red jacket", "man", (1 + 2 * 1 / 4) / 2),
        ("man in the red jacket", "red jacket", (2 * 2 / 5) / 2),
        ("man wearing a red jacket", "man with the red jacket", 1.0),
        ("man on the left", "left man", 1.0),
        ("the left one of the dogs", "left dog", 1.0),
        ("the bride's veil", "veil of the bride", 1.0),
        ("colour of the coat", "coat", 1.0),
        ("car door", "car", (2 * 1 / 3) / 2),
        ("dog house", "house dog", 0.5),
        ("red car", "blue car", 0.25),
        ("dark blue", "light blue", 0.25),
        ("man with a hat", "man without a hat", (2 * 2 / 5) / 2),
        ("man", "man without a hat", (1 + 2 * 1 / 4) / 2),
        ("book on the table", "book under the table", (2 * 2 / 5) / 2),
        ("next to the car", "beside the car", 1.0),
        ('signs "the" and "of"', 'signs "the" and "of"', 1.0),
        ('red "sale" sign', '"sale" red sign', 1.0),
        ('red "sale" sign', "sale red sign", 1.0),
        ('red "sale" sign', 'red "sail" sign', (2 * 2 / 6) / 2),
        ("ps logo", "p logo", (2 * 1 / 4) / 2),
        ("the whole picture", "image", 1.0),
        ('signs "the" and "of"', 'signs "the" and "off"', (2 * 2 / 6) / 2),
        ("nothing", "removed", 1.0),
        ("", "", 1.0),
        ("", "dog", 0.0),
        ("the 车 %", "车 %", 1.0),  # equal by `normalize`, though not word by word
        ('“the" open', "“the open", 1.0),
        ("die rote Jacke", "Jacken mit rot", 1.0),
        ("der Mann mit Hut", "Männer", (1 + 2 * 1 / 3) / 2),
        ("el coche rojo", "los coches rojos", 1.0),
        ("el sombrero del hombre", "hombre", (2 * 1 / 3) / 2),
        ("le manteau rouge", "manteau", (1 + 2 * 1 / 3) / 2),
        ("les chevaux blancs", "le cheval blanc", 1.0),
        ("红色的外套", "外套", (1 + 2 * 2 / 5) / 2),
        ("车门", "车", (2 * 1 / 3) / 2),
    ],
)
def test_likeness(one, other, expected):
    assert likeness(one, other) == pytest.approx(expected)
    assert likeness(other, one) == pytest.approx(expected)


def test_languages_are_told_apart():
    texts = {
        "en": ["man in the red coat"],
        "de": ["der Mann mit dem roten Hut"],
        "es": ["el hombre del sombrero rojo"],
        "fr": ["l'homme au chapeau rouge", "le chien"],
        "zh": ["red 外套"],
    }
    assert {code: language_of(said) for code, said in texts.items()} == {code: code for code in texts}
    assert language_of(["xyz"]) == "en"
    assert language_of(["one 一"]) == language_of(["last \u9fff"]) == "zh"
    assert language_of(["\u3400"]) == language_of(["カ"]) == "en"


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
        (["red coat"], ["coat"], 5 / 6),
        (["coat coat coat"], ["coat"], 3 / 4),
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
        one, other = (random_items(rng, (*WORDS, "车", "%", '"')) for _ in range(2))
        strict, soft = multiset_f1(one, other), soft_f1(one, other)
        assert 0.0 <= strict <= soft + 1e-9 <= 1.0 + 2e-9
        assert strict == multiset_f1(other, one) and soft == pytest.approx(soft_f1(other, one))
        assert multiset_f1(one, one[::-1]) == 1.0 and soft_f1(one, one[::-1]) == pytest.approx(1.0)
        if one:
            assert multiset_f1([*one, "something else"], one) < 1.0
            assert multiset_f1([*one, one[0]], one) < 1.0


@pytest.mark.parametrize("function", [multiset_f1, soft_f1, action_f1])
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
        ([Edit("paint", "hat", "red"), MAN], True),
        ([Edit("adjust", "hat", "red"), MAN], False),
        ([HAT, Edit("remove", "man", "removed")], False),
    ],
)
def test_exact(predicted, expected):
    assert exact(predicted, [HAT, MAN]) is expected


def test_exact_with_synonyms_and_without_edits():
    zapped = [Edit("paint", "hat", "red"), Edit("zap", "man", "nothing")]
    assert exact(zapped, [HAT, MAN], {"zap": "erase"}) and not exact(zapped, [HAT, MAN])
    assert exact([], ())
    assert exact([Edit("enlarge", "hat", "large")], [Edit("resize", "hat", "large")])
    assert not exact([Edit("enlarge", "hat", "large")], [Edit("resize", "coat", "large")])
    # The same words about another thing are half alike, and half is not enough.
    assert not exact([Edit("recolor", "dog house", "red")], [Edit("recolor", "house dog", "red")])
    assert not exact([Edit("replace", "hat", "dog house")], [Edit("replace", "hat", "house dog")])


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (Edit("dye", "hats", "the red"), True),
        (Edit("recolor", "old hat", "red"), True),  # a part of the description finds it
        (Edit("recolor", "hat", "dark red"), True),
        (Edit("recolor", "hat", "blue"), False),
        (Edit("recolor", "coat", "red"), False),
        (Edit("remove", "hat", "red"), False),
    ],
)
def test_same_edits(edit, expected):
    assert same_edits([MAN, edit], [HAT, MAN]) is expected
    assert not same_edits([edit], [HAT, MAN]) and not same_edits([MAN, MAN, edit], [HAT, MAN])


def test_same_edits_of_what_is_added_and_of_half_alike_words():
    assert same_edits([], [])
    assert same_edits([Edit("add", "red hats", "on the head")], [Edit("insert", "the red hat", "on the head")])
    assert not same_edits([Edit("add", "hat", "on the head")], [Edit("add", "red hat", "on the head")])
    assert not same_edits([Edit("recolor", "dog house", "red")], [Edit("recolor", "house dog", "red")])
    assert not same_edits([Edit("replace", "hat", "dog house")], [Edit("replace", "hat", "house dog")])
    assert same_edits([Edit("zap", "man", "nothing")], [MAN], {"zap": "erase"})


def test_importing_it_stays_light():
    program = "import sys, diffusers_r1.matching; sys.exit(bool({'torch', 'scipy', 'numpy'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", program], check=True)
