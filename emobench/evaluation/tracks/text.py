"""Text: a sentence in, a face with the emotion that it means out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from emobench.evaluation.protocol import CHOICE_SEED, FIRST_SEED
from emobench.evaluation.tracks.generation import CONTROL_RANKING
from emobench.evaluation.tracks.panel import (
    NORMAL,
    WHAT,
    JudgedFaces,
    PanelTrack,
    checked,
    control_of,
    known_faces,
    units,
)
from emobench.evaluation.tracks.track import Check, Column, ControlRow, Estimates, Key, Metric, means
from emobench.evaluation.values import Value

if TYPE_CHECKING:
    from emobench.cues.reader import Cue
    from emobench.cues.sentences import Sentence
    from emobench.evaluation.task import Task

PICTURED = 8  # faces of each emotion in the picture
METRICS: tuple[Metric, ...] = ()
# Kinds of faces beside those of the track, and what their control is called.
BESIDE = {"text_named": "control_named", "text_names_only": "control_names_only", "text_shuffled": "control_shuffled"}
READ = {
    "text": "understood",
    "text_names_only": "understood_names_only",
}  # how often the emotion was found that is meant


def measure(task: Task) -> dict[str, Value]:
    """Draws a face for every held-out sentence as its reader understands it, and records what every judge reads.

    Beside them, from the same noise: faces asked for by the name of the emotion that is meant, as a reader understands
    that knows the names alone, and of sentences that mean another face.

    Raises:
        NotFinite: a face or a feature is NaN or infinite; names it by its index.
    """
    from emobench.cues.reader import CueReader, NamesOnly
    from emobench.cues.request import weights_of
    from emobench.cues.sentences import sentences

    chosen = sentences(task.emotions, task.settings["cues"]["each"])
    meant = np.array([task.emotions.index(each.emotion) for each in chosen])
    named = np.eye(task.classes)[meant]
    order = np.random.default_rng(CHOICE_SEED).permutation(len(chosen))
    cues = {"text": read_all(CueReader(), chosen), "text_names_only": read_all(NamesOnly(), chosen)}
    asked, plain = (np.stack([weights_of(cue, task.emotions) for cue in of]) for of in cues.values())
    requests = {"text": asked, "text_named": named, "text_names_only": plain, "text_shuffled": asked[order]}
    number = np.arange(len(chosen))
    for kind, rows in requests.items():
        faces = task.sampler.sample(rows, FIRST_SEED["text"] + number, kind)
        columns = {}
        if kind in READ:
            right = [cue.emotion == each.emotion for cue, each in zip(cues[kind], chosen, strict=True)]
            columns = {READ[kind]: np.array(right, np.float64)}
        task.judge(kind, faces, meant, seed=FIRST_SEED["text"] + number, sentence=number, **columns)
        if kind == "text":
            lines = [faces[meant == k][:PICTURED] for k in range(task.classes)]
            short = [np.pad(line, [(0, PICTURED - len(line)), *[(0, 0)] * 3], constant_values=127) for line in lines]
            task.pictures["text"] = np.stack(short), False
    return {}


def read_all(reader: Any, chosen: Sequence[Sentence]) -> list[Cue]:
    """What a reader says of sentences."""
    return [reader.read(each.text) for each in chosen]


class Text(PanelTrack):
    """Sentences that mean an emotion without naming it, the same for every row."""

    name = "text"
    judged = "text"
    title = "Text: a sentence in, a face with the emotion that it means out"
    measure = staticmethod(measure)
    metrics = METRICS
    rankings = (CONTROL_RANKING,)
    columns = (
        Column("control, calibrated", Key("control_calibrated", "macro")),
        Column("asked by name", Key("control_named", "macro")),
        Column("understood", Key("understood")),
        Column("control, raw", Key("control", "macro")),
        Column("names only", Key("control_names_only", "macro")),
        Column("shuffled", Key("control_shuffled", "macro")),
        Column("understood, names only", Key("understood_names_only")),
        Column("worst emotion", Key("control"), shows="worst"),
    )
    pictures: ClassVar[dict[str, str]] = {"text": "faces of sentences that mean an emotion, a row each"}
    meaning = (
        "Text: held-out sentences that mean an emotion without naming it are read by emobench's lexicon (*understood*: "
        "how often it finds the emotion), the generator is asked for what was read, and the panel judges whether the "
        "face shows what is meant. Beside it calibrated control of the same generator asked by the emotion's name, as "
        "read by one that knows the names alone, and for the faces of other sentences, drawn by lot, which must be no "
        "better than chance.",
    )

    @classmethod
    def measures(cls, model: type) -> bool:
        return hasattr(model, "sample") and not hasattr(model, "given")

    def estimates(self, cells: Sequence[JudgedFaces]) -> list[list[Estimates]]:
        return [
            [control_of(faces, "text"), *(_renamed(faces, *each) for each in BESIDE.items()), *_read(faces)]
            for faces in cells
        ]

    def controls(self, cells: Sequence[JudgedFaces]) -> list[ControlRow]:
        """Real faces, shuffled requests, one emotion for all, and of one row the faces of shuffled sentences."""
        first = cells[0]
        rows = checked(first, known_faces(first, ()))
        return [*rows, _shuffled(first)]


def _renamed(faces: JudgedFaces, kind: str, metric: str) -> Estimates:
    """Calibrated control of the faces of another kind under a name of its own."""
    macro = Key("control_calibrated", "macro")
    found = control_of(faces, kind).only([macro])
    return replace(found, keys=(Key(metric, "macro"),))


def _read(faces: JudgedFaces) -> list[Estimates]:
    """How often readers find the emotion that is meant: the same for every row of a dataset."""
    found = []
    for kind, name in READ.items():
        part = faces.part(kind)
        unit, which = units(part)
        found.append(means(part, np.unique(which, return_inverse=True)[1], unit, [Metric(name, "text", _none)]))
    return found


def _none(made: Any) -> None:
    return None


def _shuffled(faces: JudgedFaces) -> ControlRow:
    """Sentences that mean another face tell nothing: control as of requests by lot."""
    found = control_of(faces, "text_shuffled")
    place = found.keys.index(Key("control_calibrated", "macro"))
    value, draws = float(found.values[place]), found.draws[:, place]
    half = NORMAL * float(np.nanstd(draws))
    chance = 1 / len(faces.emotions)
    name = "control:shuffled_sentences"
    if not np.isfinite([value, half]).all():
        return ControlRow(name, checks=[Check(name, faces.cell.seed, WHAT, None, None, None, found.notes[place])])
    check = Check(name, faces.cell.seed, WHAT, value, chance - half, chance + half, chance=chance)
    return ControlRow(name, checks=[check])
