"""The held-out sentences by which readers of cues are judged: written before these, by somebody else."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from emobench.cues.reader import LEXICON, MODIFIERS

SENTENCES = Path(__file__).with_name("sentences.csv")


@dataclass(frozen=True)
class Sentence:
    """A sentence, the emotion that is meant, and what is hard about it ("negation", "hedge", "situation", ...)."""

    emotion: str
    kind: str
    text: str


def sentences(emotions: Sequence[str], each: int | None = None) -> list[Sentence]:
    """The sentences that mean one of some emotions, the first `each` of every kind and emotion; None: all."""
    found: list[Sentence] = []
    counts: Counter[tuple[str, str]] = Counter()
    with open(SENTENCES, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            place = row["emotion"], row["kind"]
            if row["emotion"] in emotions and (each is None or counts[place] < each):
                counts[place] += 1
                found.append(Sentence(row["emotion"], row["kind"], row["sentence"]))
    return found


def digest() -> str:
    """SHA-256 of the sentences, and of what the reader knows: what lies in files and not in code."""
    found = hashlib.sha256()
    for path in (SENTENCES, LEXICON, MODIFIERS):
        found.update(path.read_bytes())
    return found.hexdigest()
