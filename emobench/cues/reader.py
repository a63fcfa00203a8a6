"""Reads a sentence ("she just heard that she won") into emotion weights and an intensity.

Each cue of the lexicon that a text holds is evidence for its emotions. Degrees, negations, contrasts and turns of
events change that evidence; the rest is a sum. Evidence is -log(1 - weight), so that independent cues add up to the
probability that at least one of them tells the truth (a noisy or, Pearl 1988, section 4.3.2).
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from pathlib import Path

from emobench.cues.words import Finder, Match, Word, words_of
from emobench.emotions import EMOTIONS, SPELLINGS, canonical
from emobench.errors import EmobenchError

LEXICON = Path(__file__).with_name("lexicon.csv")
MODIFIERS = Path(__file__).with_name("modifiers.csv")
LONGEST = 2000  # characters: a long paragraph; more is no cue but a document, whose feelings differ within it

KINDS = {  # of modifiers, and what their value says
    "negation": 'denies what stands near ("not"); in [0, 1], how much what it leaves counts',
    "absence": 'denies all that follows in its clause ("no longer"); likewise',
    "never": 'as an absence ("never", "could not be"), but a record after it makes the feeling hold; likewise',
    "record": '"so", "such", "more" after "never": factor of the intensity',
    "intensifier": 'factor of at least 1 ("very"); with 1, an idiom whose "not" denies nothing ("not only")',
    "hedge": 'factor below 1 ("a little")',
    "turn": 'begins a clause that counts more ("but"); in [0, 1], how much all before it counts',
    "concession": 'begins a clause that counts less ("although"); in [0, 1], how much',
    "link": 'begins a clause, which ends the reach of negations and degrees ("because"); no meaning',
    "averted": 'what was bad before it is over ("false alarm"); in [0, 1], how much of that becomes joy',
    "ended": 'what was good in its clause is over ("called off"); in [0, 1], how much of that becomes sadness',
    "feared": 'what follows may come ("might"); in [0, 1], how much of its sadness becomes fear',
}

# What a denied feeling leaves, as shares of its evidence. Joy that fails to come is sadness; other feelings that
# fail to come leave a quiet face, and the absence of fear or grief a slightly cheerful one. Shares stay below 1, as
# a denial says less than a plain word.
_DENIED: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {"sad": 0.55, "neutral": 0.15},
    "sad": {"neutral": 0.5, "happy": 0.25},
    "surprise": {"neutral": 0.6},
    "fear": {"neutral": 0.5, "happy": 0.25},
    "disgust": {"neutral": 0.6},
    "anger": {"neutral": 0.6, "happy": 0.1},
    "contempt": {"neutral": 0.5, "happy": 0.1},
}
_BAD = ("sad", "fear", "disgust", "anger", "contempt")
_NEITHER = {emotion: {"neutral": 0.6} for emotion in EMOTIONS[1:]}  # where joy and a bad feeling are both denied
_REVERSED: dict[str, dict[str, dict[str, float]]] = {  # by kind of modifier; a little is lost in every turn
    "averted": {emotion: {"happy": 0.9} for emotion in _BAD},
    "ended": {"happy": {"sad": 0.9}},
    "feared": {"sad": {"fear": 0.9}},
}
_SUBJECTS = frozenset(("i", "he", "she", "we", "they"))  # cannot be objects, which "you" and "it" can
_NEGATION_REACH = 6  # words: "did not seem to be at all happy"; a clause's end stops it sooner
_DEGREE_REACH = 5  # words between a degree and what it measures: "a little bit of an old grudge"
_DEGREE_ON_WEIGHT = 0.3  # exponent: a degree says how strong a feeling is, and only a little how certain it is there
_PER_WORD = 0.5  # a negation's share is lost with each full word between: in "not want to enter the dark room"
_TWICE_DENIED = 0.7  # "not without joy" is less than joy
_SOFTENED = 0.6  # of a negation with a degree after it: "not very happy" is less than "not happy"
_COMPARED = 1.3  # "could not be happier" is stronger than "happy"
_EXCLAIMED = 1.15  # an exclamation mark raises the intensity of its sentence
_BESIDE = 0.5  # evidence beside the strongest cue of an emotion: cues of one event are not independent
_AGAIN = 0.5  # of a cue each time that it comes again
# Everyday things beside a feeling are its background ("pushed in a queue"); a neutral cue from this weight on speaks
# of a face or a manner ("expressionless", "as usual") and stands on its own.
_BACKGROUND = 0.4
_EVERYDAY_BELOW = 0.65
_PRIOR = 0.1  # evidence for a neutral face before anything is read: one vague word makes no strong face
_SHARPER = 2.0  # exponent of the probabilities: a face shows the leading feelings, not all that is conceivable
_PLAIN = 0.75  # intensity of a clear word without a degree; leaves room for "very"
_LARGEST = 0.97  # of a weight, for a finite logarithm


@dataclass(frozen=True)
class Found:
    """A cue that was found.

    Attributes:
        words: of the text, in lower case.
        emotion: to which the lexicon says that they point.
        weight: how clearly, in [0, 1], before anything modified it.
        modified: what changed it, such as "denied by 'not'"; empty where nothing did.
    """

    words: str
    emotion: str
    weight: float
    modified: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cue:
    """What a text says about a feeling.

    Attributes:
        weights: of the eight emotions, in [0, 1], with sum 1.
        intensity: in [0, 1]; 0 is a neutral face.
        found: the cues in the order of the text, one entry per emotion that a cue points to.
        says_nothing: no cue was found; neutral then has weight 1, and the intensity is 0.
    """

    weights: dict[str, float]
    intensity: float
    found: tuple[Found, ...]
    says_nothing: bool

    @property
    def emotion(self) -> str:
        """The emotion with the largest weight; the first in canonical order among equals."""
        return max(EMOTIONS, key=lambda emotion: self.weights[emotion])


@dataclass
class _Evidence:
    """For one emotion by one cue.

    Attributes:
        amount: -log(1 - weight).
        strength: in [0, 1], becomes intensity.
        place: number of the word by which it holds: the cue's, or that of what reversed it.
        everyday: a neutral thing or act, no neutral face.
    """

    emotion: str
    amount: float
    strength: float
    place: int
    everyday: bool = False


@dataclass
class _Reading:
    """A cue of the lexicon in the text while modifiers act on it."""

    match: Match
    found: list[Found]
    evidence: list[_Evidence]
    modified: list[str] = field(default_factory=list)

    def scale(self, on_amount: float, on_strength: float, how: str, first: int = 0, last: int | None = None) -> None:
        """Scales what holds by the words from `first` to `last` (exclusive; None: to the end)."""
        scaled = [each for each in self.evidence if first <= each.place and (last is None or each.place < last)]
        for each in scaled:
            each.amount *= on_amount
            each.strength = min(each.strength * on_strength, 1.0)
        if scaled:
            self.modified.append(how)

    def turn(
        self, leaves: Mapping[str, Mapping[str, float]], share: float, force: float = 1.0, place: int | None = None
    ) -> bool:
        """Takes a share of the evidence that the lexicon gave, and leaves other evidence in its place.

        Args:
            leaves: for each emotion that is turned, the emotions that it leaves, and how much of its evidence.
            share: in [0, 1], how much is taken.
            force: in [0, 1], of what is left in its place.
            place: number of the word by which that holds; None: the cue's own.

        Returns:
            Whether anything was turned.
        """
        turned = [each for each in self.evidence[: len(self.found)] if each.emotion in leaves]
        for each in turned:
            for emotion, left in leaves[each.emotion].items():
                part = share * force * left
                at = each.place if place is None else place
                self.evidence.append(_Evidence(emotion, each.amount * part, each.strength * part, at))
            each.amount, each.strength = each.amount * (1 - share), each.strength * (1 - share)
        return bool(turned)


@dataclass(frozen=True)
class _Modifier:
    """A word or phrase of the text that changes what cues say; `value` means what its kind says."""

    match: Match
    kind: str
    value: float


@dataclass(frozen=True)
class _Text:
    """A text while it is read.

    Attributes:
        words: of the text, with the marks between them.
        readings: of the lexicon's cues, in the order of the text.
        modifiers: likewise.
        clauses: the number of each word's clause.
    """

    words: list[Word]
    readings: list[_Reading]
    modifiers: list[_Modifier]
    clauses: list[int]

    def kinds(self, *kinds: str) -> list[_Modifier]:
        return [each for each in self.modifiers if each.kind in kinds]

    def together(self, one: Match, other: Match) -> bool:
        """Whether two matches stand in one clause."""
        return self.clauses[one.start] == self.clauses[other.start]

    def said(self, match: Match) -> str:
        return " ".join(word.text for word in self.words[match.start : match.end])


class CueReader:
    """Reads texts with a lexicon of cues and a list of words that modify them.

    Args:
        lexicon: a CSV file with the columns cue, emotion, weight (in [0, 1]).
        modifiers: a CSV file with the columns cue, kind, value, of the kinds in `KINDS`.
    """

    def __init__(self, lexicon: Path = LEXICON, modifiers: Path = MODIFIERS) -> None:
        self._weights: dict[str, dict[str, float]] = {}
        for cue, emotion, weight in _rows(lexicon):
            self._weights.setdefault(cue, {})[canonical(emotion)] = float(weight)
        self._kinds: dict[str, dict[str, float]] = {}
        for cue, kind, value in _rows(modifiers):
            self._kinds.setdefault(cue, {})[kind] = float(value)
        self._finder = Finder([*self._weights, *self._kinds])

    def read(self, text: str) -> Cue:
        """Reads one text of at most `LONGEST` characters.

        Raises:
            EmobenchError: the text is empty or too long.
        """
        words = words_of(_checked(text))
        matches = list(self._finder.find(words))
        modifiers = [
            _Modifier(match, kind, value) for match in matches for kind, value in self._kinds.get(match.cue, {}).items()
        ]
        readings = [_reading(words, match, self._weights[match.cue]) for match in matches if match.cue in self._weights]
        whole = _Text(words, readings, modifiers, _clauses(words, modifiers))
        for change in (_measure, _deny, _reverse, _contrast, _exclaim):
            change(whole)
        return _sum(readings)


class NamesOnly:
    """The baseline: knows nothing but the emotions' names and usual spellings, and no word around them."""

    def __init__(self) -> None:
        self._names = {" ".join(spelling.split("-")): canonical(spelling) for spelling in SPELLINGS}
        self._finder = Finder(self._names)

    def read(self, text: str) -> Cue:
        """As `CueReader.read`."""
        words = words_of(_checked(text))
        return _sum([_reading(words, match, {self._names[match.cue]: 1.0}) for match in self._finder.find(words)])


def _rows(file: Path) -> Iterator[list[str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        reader = csv.reader(lines)
        next(reader)
        yield from reader


def _checked(text: str) -> str:
    if not text.strip():
        raise EmobenchError('the cue is empty. Give a sentence, such as "she just heard that she won"')
    if len(text) > LONGEST:
        raise EmobenchError(f"the cue has {len(text):,} characters, more than {LONGEST:,}. Give one or two sentences")
    return text


def _reading(words: list[Word], match: Match, weights: Mapping[str, float]) -> _Reading:
    said = " ".join(word.text for word in words[match.start : match.end])
    evidence = [
        _Evidence(
            emotion,
            -math.log1p(-min(weight, _LARGEST)),
            _PLAIN * weight,
            match.start,
            everyday=emotion == "neutral" and weight < _EVERYDAY_BELOW,
        )
        for emotion, weight in weights.items()
    ]
    return _Reading(match, [Found(said, emotion, weight) for emotion, weight in weights.items()], evidence)


def _clauses(words: list[Word], modifiers: list[_Modifier]) -> list[int]:
    """The number of each word's clause; marks, contrasts, linking words and a new subject begin one.

    A subject is new after a full word: "instead of laughing she cried", but not "perhaps she is sad".
    """
    begins = {place for place, word in enumerate(words) if word.is_mark}
    modifying = {place for each in modifiers for place in range(each.match.start, each.match.end)}
    for place, (before, word) in enumerate(pairwise(words), start=1):
        if word.text in _SUBJECTS and not (before.is_light or before.is_mark or place - 1 in modifying):
            begins.add(place)
    begins |= {each.match.start for each in modifiers if each.kind in ("turn", "concession", "link")}
    return list(accumulate(place in begins for place in range(len(words))))


def _measure(text: _Text) -> None:
    """A degree scales the next cue of its clause; the last one before it where none follows ("hurt a little")."""
    for degree in text.kinds("intensifier", "hedge"):
        near = [
            each
            for each in text.readings
            if text.together(each.match, degree.match) and _apart(each.match, degree.match) <= _DEGREE_REACH
        ]
        after = [each for each in near if each.match.start >= degree.match.end]
        before = [each for each in near if each.match.end <= degree.match.start]
        for each in after[:1] or before[-1:]:
            sign = "raised" if degree.value > 1 else "kept" if degree.value == 1 else "lowered"
            each.scale(degree.value**_DEGREE_ON_WEIGHT, degree.value, f"{sign} by '{text.said(degree.match)}'")


def _deny(text: _Text) -> None:
    """A negation turns the cues after it in its clause; a second one turns them back."""
    denials = [(each, _denials(text, each)) for each in text.readings]
    denied = {one.emotion for each, by in denials if len(by) % 2 for one in each.found}
    leaves = _NEITHER if "happy" in denied and not denied.isdisjoint(_BAD) else _DENIED
    for each, by in denials:
        if not by:
            continue
        nearest, said = by[-1], " and ".join(f"'{text.said(one.match)}'" for one in by)
        record = _record(text, each, nearest)
        if record is not None:
            each.scale(1.0, record, f"raised by {said}")
        elif len(by) % 2 == 0:
            each.scale(_TWICE_DENIED, _TWICE_DENIED, f"denied twice by {said}")
        else:
            degrees = [
                one.match
                for one in text.kinds("intensifier", "hedge")
                if nearest.match.end <= one.match.start < each.match.start
            ]
            between = set(range(nearest.match.end, each.match.start))
            between -= {place for degree in degrees for place in range(degree.start, degree.end)}
            full = sum(not text.words[place].is_light for place in between) if nearest.kind == "negation" else 0
            each.turn(leaves, _PER_WORD**full, nearest.value * (_SOFTENED if degrees else 1.0))
            each.modified.append(f"denied by {said}")


def _denials(text: _Text, reading: _Reading) -> list[_Modifier]:
    """The negations that reach a cue, the nearest last."""
    return [
        each
        for each in text.kinds("negation", "absence", "never")
        if text.together(each.match, reading.match) and 0 <= reading.match.start - each.match.end < _NEGATION_REACH
    ]


def _record(text: _Text, reading: _Reading, denial: _Modifier) -> float | None:
    """The factor of a feeling stronger than ever: "never laughed so much", "could not be happier"; None for others."""
    if denial.kind != "never":
        return None
    if any(word.is_comparative for word in text.words[reading.match.start : reading.match.end]):
        return _COMPARED
    after = [each for each in text.kinds("record") if each.match.start >= denial.match.end]
    return next((each.value for each in after if text.together(each.match, denial.match)), None)


def _contrast(text: _Text) -> None:
    """What stands before "but" counts less, and so does a clause of "although" up to the next mark or turn."""
    turns = {each.match.start for each in text.kinds("turn")}
    for each in text.kinds("turn", "concession"):
        first, last = 0, each.match.start
        if each.kind == "concession":
            first = each.match.end
            ends = (place for place in range(first, len(text.words)) if text.words[place].is_mark or place in turns)
            last = next(ends, len(text.words))
        for reading in text.readings:
            reading.scale(each.value, each.value, f"counts less by '{text.said(each.match)}'", first, last)


def _reverse(text: _Text) -> None:
    """What was bad and is over leaves relief; what was good and is lost, grief; what may become sad, fear."""
    denials = text.kinds("negation", "absence", "never")
    for each in text.kinds("averted", "ended", "feared"):
        if any(text.together(no.match, each.match) and no.match.end <= each.match.start for no in denials):
            continue  # "it did not stop"
        for reading in text.readings:
            inside = text.together(reading.match, each.match)
            before, after = reading.match.start < each.match.start, reading.match.start > each.match.start
            reached = {"averted": before, "ended": inside and (before or after), "feared": inside and after}
            if reached[each.kind] and reading.turn(_REVERSED[each.kind], each.value, place=each.match.start):
                reading.modified.append(f"{each.kind} by '{text.said(each.match)}'")


def _exclaim(text: _Text) -> None:
    """An exclamation mark raises the intensity of its sentence."""
    first = 0
    for place, word in enumerate(text.words):
        if word.is_mark and set(word.text) <= set(".!?\u2026"):
            for each in text.readings if "!" in word.text else ():
                each.scale(1.0, _EXCLAIMED, "raised by '!'", first, place)
            first = place


def _apart(one: Match, other: Match) -> int:
    """Words between two matches."""
    return max(one.start - other.end, other.start - one.end)


def _sum(readings: list[_Reading]) -> Cue:
    """Adds the evidence up."""
    if not readings:
        return Cue({emotion: float(emotion == "neutral") for emotion in EMOTIONS}, 0.0, (), True)
    feeling = any(each.amount > 0 for one in readings for each in one.evidence if each.emotion != "neutral")
    amounts: dict[str, list[float]] = {emotion: [0.0] for emotion in EMOTIONS}
    unfelt = dict.fromkeys(EMOTIONS, 1.0)  # probability that none of the cues is felt
    times: Counter[str] = Counter()
    for reading in readings:
        again = _AGAIN ** times[reading.match.cue]
        times[reading.match.cue] += 1
        for each in reading.evidence:
            amounts[each.emotion].append(each.amount * again * (_BACKGROUND if each.everyday and feeling else 1.0))
            unfelt[each.emotion] *= 1 - each.strength * again
    totals = {emotion: max(each) * (1 - _BESIDE) + sum(each) * _BESIDE for emotion, each in amounts.items()}
    totals["neutral"] += _PRIOR
    chances = {emotion: (-math.expm1(-total)) ** _SHARPER for emotion, total in totals.items()}
    weights = {emotion: chance / sum(chances.values()) for emotion, chance in chances.items()}
    felt = max(1 - unfelt[emotion] for emotion in EMOTIONS if emotion != "neutral")
    found = tuple(replace(each, modified=tuple(one.modified)) for one in readings for each in one.found)
    return Cue(weights, felt * (1 - weights["neutral"]), found, False)
