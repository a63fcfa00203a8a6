"""Cuts a text into words, and finds cues of one or more words in them.

A cue is written in base forms ("break up"), which also find inflected words ("broke up", "breaking up"). A word
that ends in * is a stem, `_` stands for one to three words, and articles, pronouns and forms of "be" and "have" may
stand between the words of a phrase: "lose temper" finds "lost his temper".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Words, numbers, emoji (one each) and the marks that end a clause; everything else is a gap between words.
_TOKEN = re.compile(
    r"[^\W\d_]+(?:'[^\W\d_]+)*|\d+|[\u2600-\u27bf\U0001f300-\U0001faff]|[!?]{2,}|[.!?;:,()\u2026\u2013\u2014]|\n+|--+"
)
_APOSTROPHES = str.maketrans({"\u2019": "'", "\u2018": "'", "\u02bc": "'", "`": "'", "\u00b4": "'"})
_UNMARKED = re.compile(r"\b(do|does|did|is|was|were|could|would|should|have|has|had|are|need|must)nt\b")  # didnt
_CONTRACTED = re.compile(r"(\w+)n't\b")
_SHORTENED = re.compile(r"'(?:s|m|re|ve|ll|d)\b")  # she's, I'm, they'll: the verb says nothing about a feeling
_ONE_WORD = {"cannot": "can not", "noone": "nobody"}
_ONE_WORD_PATTERN = re.compile(r"\b(?:" + "|".join(_ONE_WORD) + r")\b|\bno[ -]one\b")
_FULL = {"wo": "will", "ca": "can", "sha": "shall", "ai": "is"}  # before "n't"

_IRREGULAR = """
be: am is are was were been being; have: has had having; do: does did done; say: said; go: goes went gone
become: became; begin: began begun; bend: bent; bite: bitten; bleed: bled; blow: blew blown; break: broke broken
bring: brought; build: built; burn: burnt; buy: bought; can: could; catch: caught; choose: chose chosen
come: came coming; creep: crept; die: dying; draw: drew drawn; dream: dreamt; drink: drank drunk; drive: drove driven
eat: ate eaten; fall: fell fallen; feed: fed; feel: felt; fight: fought; find: found; flee: fled; fling: flung
fly: flew flown; forget: forgot forgotten; forgive: forgave forgiven; freeze: froze frozen; get: got gotten
give: gave given; grow: grew grown; hang: hung; hear: heard; hide: hid hidden; hold: held; keep: kept
know: knew known; lay: laid; lead: led; learn: learnt; leave: left; lend: lent; lie: lying; lose: lost; make: made
mean: meant; meet: met; mistake: mistook mistaken; pay: paid; ride: rode ridden; ring: rang rung; run: ran
see: saw seen; seek: sought; sell: sold; send: sent; shake: shook shaken; shine: shone; shoot: shot; sing: sang sung
sink: sank sunk; sit: sat; sleep: slept; slide: slid; smell: smelt; speak: spoke spoken; spend: spent; spill: spilt
spit: spat; spoil: spoilt; stand: stood; steal: stole stolen; stick: stuck; sting: stung; stink: stank stunk
strike: struck stricken; swear: swore sworn; sweep: swept; swim: swam swum; take: took taken; teach: taught
tear: tore torn; tell: told; think: thought; throw: threw thrown; tread: trod; understand: understood
wake: woke woken; wear: wore worn; weep: wept; win: won; write: wrote written; child: children; foot: feet
knife: knives; life: lives; louse: lice; man: men; mouse: mice; thief: thieves; tooth: teeth; wife: wives
wolf: wolves; woman: women
"""
_COMPARED = """
happy: happier happiest; sad: sadder saddest; proud: prouder proudest; angry: angrier angriest; glad: gladder gladdest
lonely: lonelier loneliest; mad: madder maddest; gloomy: gloomier gloomiest; scary: scarier scariest
merry: merrier merriest; funny: funnier funniest; lucky: luckier luckiest; dirty: dirtier dirtiest; rude: ruder rudest
filthy: filthier filthiest; nasty: nastier nastiest; cruel: crueler cruelest; weak: weaker; better: better; worse: worse
calm: calmer calmest; lovely: lovelier loveliest; sweet: sweeter sweetest
"""
_BASE = {
    form: entry.split(":")[0].strip()
    for line in (_IRREGULAR + _COMPARED).strip().splitlines()
    if line
    for entry in line.split(";")
    for form in entry.split(":")[1].split()
}
_COMPARATIVES = frozenset(form for form in _COMPARED.replace(";", " ").split() if form.endswith(("er", "worse")))

# May stand between the words of a phrase without changing what it says.
_SMALL = """
a an the his her their my your our its this that these those some any all both own old new poor whole entire
him them me us it you he she they someone somebody just am is are was were be been being has have had
"""
# With those, the words through which a negation reaches without loss: "did not seem to be at all happy".
_FAINT = """
at in of for with to on about by as so very too really much more ever even seem feel look get become appear sound
show give sign reason bit trace least particularly exactly quite anything anybody anyone can could will would may
might must shall should do did does such always often yet there
"""
# Look inflected and are not: "evening" is no form of "even".
_UNINFLECTED = "evening morning ceiling wedding during news hundred indeed nothing something anything"
_PASSED_OVER = frozenset(_SMALL.split())
_LIGHT = _PASSED_OVER | frozenset(_FAINT.split())
_NO_FORMS = frozenset(_UNINFLECTED.split())
_MOST_PASSED_OVER = 3
_MOST_IN_GAP = 3  # words that `_` stands for: "put the old horse to sleep"
_LEAST_BASE = 3  # letters that must remain when an ending is cut off, so that "bed" is no form of "b"
LEAST_STEM = 3  # letters of a stem


@dataclass(frozen=True)
class Word:
    """A word of the text, or a mark that ends a clause.

    Attributes:
        text: as written, in lower case.
        forms: its base forms as far as endings tell them: more than one where they do not.
    """

    text: str
    forms: frozenset[str]

    @property
    def is_light(self) -> bool:
        """Whether it says so little that a negation reaches through it."""
        return self.text in _LIGHT or not self.forms.isdisjoint(_LIGHT)

    @property
    def is_comparative(self) -> bool:
        """Whether it compares, such as "happier", among the words for feelings."""
        return self.text in _COMPARATIVES

    @property
    def is_mark(self) -> bool:
        """Whether it is a mark such as a comma, which ends a clause."""
        return not (self.text.isalnum() or "'" in self.text or ord(self.text[0]) >= 0x2600)


def words_of(text: str) -> list[Word]:
    """The words and marks of a text in lower case, with contractions written out ("didn't" gives "did", "not")."""
    text = unicodedata.normalize("NFKC", text).lower().translate(_APOSTROPHES)
    text = _ONE_WORD_PATTERN.sub(lambda found: _ONE_WORD.get(found[0], "nobody"), text)
    text = _CONTRACTED.sub(lambda found: f"{_FULL.get(found[1], found[1])} not", text)
    text = _UNMARKED.sub(r"\1 not", text)
    text = _SHORTENED.sub("", text)
    return [Word(found, _bases(found)) for found in _TOKEN.findall(text)]


def _bases(word: str) -> frozenset[str]:
    """What the word may be a form of, itself aside: "stopped" of "stopp" and "stop", "cries" of "cry" and "crie"."""
    if word in _BASE:
        return frozenset((_BASE[word],))
    if word in _NO_FORMS:
        return frozenset()
    found: set[str] = set()
    if word.endswith(("ies", "ied")):
        found |= {word[:-3] + "y", word[:-1]}
    elif word.endswith("s") and not word.endswith("ss"):
        found |= {word[:-1], word[:-2] if word.endswith("es") else word}
    for ending in ("ed", "ing"):
        if word.endswith(ending):
            stem = word[: -len(ending)]
            found |= {stem, stem + "e"}
            if len(stem) > 2 and stem[-1] == stem[-2]:
                found.add(stem[:-1])
    return frozenset(base for base in found - {word} if len(base) >= _LEAST_BASE)


@dataclass(frozen=True)
class Match:
    """A cue found in the words `start` to `end` (exclusive)."""

    cue: str
    start: int
    end: int


class Finder:
    """Finds cues in a list of words: the longest at each place, left to right, and none inside another.

    Among cues of as many words, one that stands there as written comes before a base form, and that before a stem.
    """

    def __init__(self, cues: Iterable[str]) -> None:
        self._by_first: dict[str, list[tuple[str, ...]]] = {}
        for cue in dict.fromkeys(cues):
            parts = tuple(cue.split())
            self._by_first.setdefault(parts[0], []).append(parts)

    def find(self, words: list[Word]) -> Iterator[Match]:
        """Yields the matches in the order of the text."""
        place = 0
        while place < len(words):
            best = max(self._at(words, place), key=lambda found: found[0], default=None)
            if best is None:
                place += 1
            else:
                yield best[1]
                place = best[1].end

    def _at(self, words: list[Word], place: int) -> Iterator[tuple[tuple[int, int, int], Match]]:
        """Every cue that begins at a place, with what ranks it: words, how exactly they fit, letters."""
        for first in _keys(words[place]):
            for parts in self._by_first.get(first, ()):
                found = _phrase(parts, words, place)
                if found is not None:
                    end, fit = found
                    cue = " ".join(parts)
                    yield (len(parts), fit, len(cue)), Match(cue, place, end)


def _keys(word: Word) -> Iterator[str]:
    """What a cue may begin with that finds the word."""
    yield word.text
    yield from word.forms
    for length in range(LEAST_STEM, len(word.text) + 1):
        yield word.text[:length] + "*"


def _fit(part: str, word: Word) -> int:
    """How exactly a word fits a part of a cue: 3 as written, 2 a base form, 1 a stem, 0 not at all."""
    if part == word.text:
        return 3
    if part in word.forms:
        return 2
    return int(part.endswith("*") and word.text.startswith(part[:-1]))


def _phrase(parts: tuple[str, ...], words: list[Word], place: int) -> tuple[int, int] | None:
    """Where the phrase that begins at a place ends (exclusive), and how exactly it fits; None where it is not there."""
    fit, gap = 0, 0
    for index, part in enumerate(parts):
        if part == "_":
            gap = _MOST_IN_GAP
            place += 1  # at least one word
            continue
        left = gap + (_MOST_PASSED_OVER if index else 0)
        while True:
            if place >= len(words):
                return None
            found = _fit(part, words[place])
            if found:
                break
            if words[place].is_mark:
                return None
            if words[place].text not in _PASSED_OVER:
                if not gap:
                    return None
                gap -= 1
            if not left:
                return None
            left -= 1
            place += 1
        fit, gap, place = fit + found, 0, place + 1
    return place, fit
