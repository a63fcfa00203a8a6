"""The model card beside an exported file: what it is, how to use it, its figures from the board, limits and misuse."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emobench.commands.origin import Control, Known
from emobench.errors import shown
from emobench.evaluation.tracks.track import Key, Track
from emobench.report.board import Number
from emobench.report.markdown import code, escape, table
from emobench.report.readable import score

if TYPE_CHECKING:
    from emobench.nn.provenance import Provenance

_DOES = {
    ("read",): ("reads emotions", "a face in, one of {k} emotions out"),
    ("draw",): ("draws faces", "an emotion and a seed in, a face out"),
    ("edit",): ("edits faces", "a face and an emotion in, the same face with that emotion out"),
    ("draw", "edit"): ("draws and edits faces", "an emotion and a seed, or a face and an emotion in, a face out"),
    ("stylize",): ("paints faces in a style", "a face and an emotion in, the face in the emotion's style out"),
}
_FORMS = {
    "onnx": "ONNX, for onnxruntime and its like; preprocessing is in the graph",
    "safetensors": "weights and description, for emobench",
    "hf": "for transformers",
}
_FRONT = (  # of what Hugging Face shows
    "---",
    "library_name: transformers",
    "pipeline_tag: image-classification",
    "tags: [facial-emotion, emobench]",
    "---",
    "",
)
_MEANING = {
    "macro_f1": "*Macro F1*: the mean of the F1 of all emotions.",
    "ece": "*ECE*: how far its probabilities are from how often it is right, 0 at best.",
    "control": "*Control, raw*: the share of faces in which a panel of classifiers, which had no part in making them, "
    "reads the emotion asked for.",
    "control_calibrated": "*Control, calibrated*: the same with the panel's own errors on real faces taken off: real "
    "faces score 1, faces that are easier to read more.",
    "fed": "*FED*: the Fréchet distance to real faces in the features of the board's reader; it compares models of one "
    "board, and is no FID.",
    "memorisation": "*Copies*: the share of faces that copy one of the training faces.",
    "ssim": "*SSIM*: how alike result and source are, 1 where they are one.",
}


def mark(said: Provenance) -> str:
    """The last line of a card, by which the card of one network is told from that of another."""
    return f"<!-- emobench model card of {said.fit_key} -->"


def model_card(
    known: Known, said: Provenance, does: Sequence[str], files: Mapping[str, tuple[str, Provenance]], parity: str
) -> str:
    """The whole card, as Markdown.

    Args:
        said: of the file that is written now.
        does: all that the network can do.
        files: what lies beside the card: file or folder -> "onnx", "safetensors" or "hf", and what it says of itself.
        parity: how far the new one is from the network.
    """
    lines = [*(_FRONT if said.inputs == ["pixel_values"] else ()), *_head(known, said, does), *_use(files, parity)]
    lines += [*_figures(known), *_data(known), *_limits(known, said), *_misuse(said), *_lineage(said), mark(said)]
    return "\n".join(lines) + "\n"


def _head(known: Known, said: Provenance, does: Sequence[str]) -> Iterator[str]:
    what, inout = _DOES.get(tuple(does), ("makes faces", "a face out"))
    yield from (f"# {escape(said.row)}: {what}", "")
    if failing := [each for each in known.controls or [] if not each.passed]:
        names = ", ".join(code(each.name) for each in failing)
        yield from (f"> **A control of its board fails ({names}): trust no figure of this card.**", "")
    yield (
        f"A {code(said.model)} that {what}: {inout.format(k=len(said.emotions))}. emobench {code(said.emobench)} "
        f"trained and measured it on {code(said.dataset)}, seed {said.seed}."
    )
    if known.drawn:
        yield "Those faces are drawn by a program: it has never seen a photograph."
    yield from ("", f"Emotions, in the order of the {_ordered(said)}: {', '.join(map(escape, said.emotions))}.", "")


def _ordered(said: Provenance) -> str:
    return "logits" if said.outputs == "logits" else "weights by which it is asked"


# How to use it


def _use(files: Mapping[str, tuple[str, Provenance]], parity: str) -> Iterator[str]:
    yield from ("## How to use it", "")
    for name, (form, said) in files.items():
        where = "This folder" if form == "hf" else code(name)
        yield from (f"{where}: {_FORMS[form]}.", "", "```python", *_snippet(said, name, form), "```", "")
    yield (
        f"Pictures are RGB, 0 to 255, upright, with one face that fills them as in the dataset. Compared with the "
        f"network that emobench trained, {parity}." + ("" if len(files) == 1 else " So were the other files.")
    )
    yield ""


def _snippet(said: Provenance, name: str, form: str) -> list[str]:
    """Five lines of Python that run beside the file, with a picture `face.png` where it takes one."""
    file, size, k = json.dumps(shown(name)), f"({said.size}, {said.size})", len(said.emotions)
    happy = "happy" if "happy" in said.emotions else said.emotions[0]
    place, happy = said.emotions.index(happy), json.dumps(happy)
    picture = f'picture = PIL.Image.open("face.png").convert("RGB").resize({size}, PIL.Image.Resampling.BILINEAR)'
    if form == "hf":
        return [
            "from transformers import pipeline",
            'read = pipeline("image-classification", model=".")  # this folder',
            'print(read("face.png"))',
        ]
    if form == "onnx":
        begin = ["import json, numpy, onnxruntime, PIL.Image", f"session = onnxruntime.InferenceSession({file})"]
        face = "numpy.asarray(picture).transpose(2, 0, 1)[None]"
        if said.does == ["read"]:
            known = 'json.loads(session.get_modelmeta().custom_metadata_map["emotions"])'
            logits = f'logits = session.run(None, {{"images": {face}}})[0][0]'
            return [*begin, picture, logits, f"print({known}[logits.argmax()])"]
        save = "PIL.Image.fromarray(session.run(None, {})[0][0].transpose(1, 2, 0)).save({})".format
        if said.noise is None:
            inputs = f'inputs = {{"faces": {face}, "emotions": numpy.eye({k}, dtype="float32")[[{place}]]}}'
            return [*begin, picture, f"{inputs}  # {happy}", save("inputs", '"edited.png"')]
        noise = f"noise = numpy.random.default_rng(0).standard_normal((1, {said.noise.dimensions}), numpy.float32)"
        weights = f'emotions = numpy.eye({k}, dtype="float32")[[{place}]]  # {happy}'
        return [*begin, noise, weights, save('{"emotions": emotions, "noise": noise}', '"drawn.png"')]
    begin = ["import emobench, numpy, torch, PIL.Image", f"model = emobench.load({file})"]
    save = "PIL.Image.fromarray(made.permute(1, 2, 0).numpy()).save({})".format
    if "draw" in said.does:
        return [*begin, f"made = model.sample([{happy}], seeds=[0])[0]", save('"drawn.png"')]
    begin += [picture, "face = torch.tensor(numpy.asarray(picture)).permute(2, 0, 1)[None]"]
    if said.does == ["read"]:
        return [*begin, "print(dict(zip(model.emotions, model(face).softmax(1)[0].tolist())))"]
    made = f"model.edit(face, [{happy}], seeds=[0])" if "edit" in said.does else f"model.stylize(face, [{happy}])"
    return [*begin, save('"made.png"').replace("made.permute", f"{made}[0].permute")]


# Figures and controls, as the board has them


def _figures(known: Known) -> Iterator[str]:
    yield from ("## Figures", "")
    if known.numbers is None or known.numbers.empty:
        yield from (f"None: {escape(known.missing or 'its board has none of this network')}.", "")
        return
    others = "" if known.seeds == 1 else f" The row has {known.seeds} seeds; these are of the one in the file."
    yield (
        f"From the board {code(known.board)}, test faces of {code(known.run.dataset)}, with 95 % intervals over faces, "
        f"or people where they are known. Another training would give other figures.{others}"
    )
    yield ""
    for track in known.tracks:
        yield from _of_track(known, track)
    shown_ = {column.key.metric for track in known.tracks for column, _ in known.columns(track)}
    yield from (f"- {text}" for metric, text in _MEANING.items() if metric in shown_)
    yield ""
    if known.flags:
        yield from (f"The board flags it: {', '.join(escape(flag) for flag in known.flags)}.", "")
    yield from _controls(known.controls)


def _of_track(known: Known, track: Track) -> Iterator[str]:
    columns = known.columns(track)
    rows = [
        [escape(column.heading), score(as_number(number), escape), "" if number.n != number.n else f"{int(number.n):,}"]
        for column, number in columns
        if number.value == number.value
    ]
    if not rows:
        return
    yield from (f"{escape(track.name.capitalize())}:", "", *table(["metric", "value", "faces"], rows), "")
    emotions = [] if known.evaluation is None else known.evaluation.dataset.emotions
    by_emotion = [
        [escape(heading), *(_of_emotion(known, track, metric, emotion) for emotion in emotions)]
        for metric, heading in track.by_emotion
        if any(known.number(track, Key(metric, emotion)) is not None for emotion in emotions)
    ]
    if by_emotion:
        yield from (*table(["of each emotion", *map(escape, emotions)], by_emotion), "")


def _of_emotion(known: Known, track: Track, metric: str, emotion: str) -> str:
    number = known.number(track, Key(metric, emotion))
    return "n/a" if number is None or number.value != number.value else f"{number.value:.3f}".replace("-", "−")


def as_number(row: Any) -> Number:
    """A row of metrics.csv as the board's own number."""
    values: list[Any] = [getattr(row, name, "") for name in Number._fields]
    return Number._make(None if value != value else value for value in values)


def _controls(controls: Sequence[Control] | None) -> Iterator[str]:
    if controls is None:
        yield from ("The board does not say how its controls ended.", "")
        return
    if not controls:
        yield from ("The board has no controls on this dataset.", "")
        return
    failed = sum(not each.passed for each in controls)
    said = "all passed" if not failed else f"**{failed} of {len(controls)} failed**"
    yield from (f"Controls of the board, whose outcome is known beforehand: {said}.", "")
    rows = [[code(each.name), escape(each.track), escape(each.what), *_outcome(each)] for each in controls]
    yield from (*table(["control", "track", "what", "value", "must be", "outcome"], rows, left=(0, 1, 2, -1)), "")


def _outcome(control: Control) -> list[str]:
    numbers = ["n/a" if each is None else f"{each:.3f}".replace("-", "−") for each in (control.value, control.low)]
    high = "" if control.high is None else f"{control.high:.3f}".replace("-", "−")
    must = "–" if control.low is None else f"at least {numbers[1]}" if not high else f"{numbers[1]}–{high}"
    why = "" if control.reason is None else f" ({escape(control.reason)})"
    return [numbers[0], must, f"passed{why}" if control.passed else f"**FAILED**{why}"]


# Data, limits, misuse


def _data(known: Known) -> Iterator[str]:
    yield from ("## Data", "")
    if known.evaluation is None:
        yield from (f"{code(known.run.dataset)}.", "")
        return
    data = known.evaluation.dataset
    yield f"{code(data.name)}, {data.size} × {data.size} px, fingerprint {code(data.fingerprint)}."
    yield ""
    rows = [
        [escape(split), *(f"{counts.get(emotion, 0):,}" for emotion in data.emotions), f"{sum(counts.values()):,}"]
        for split, counts in data.counts.items()
    ]
    yield from (*table(["faces", *map(escape, data.emotions), "all"], rows), "")
    notes = [*data.notes, *(f"{finding}: {n:,}" for finding, n in data.audit.items() if n and finding != "faces")]
    yield from (f"- {escape(note)}" for note in notes)
    if notes:
        yield ""


def _limits(known: Known, said: Provenance) -> Iterator[str]:
    yield from ("## Limits", "")
    sees = said.size if said.makes is None else said.makes
    if said.does == ["read"]:
        yield f"- It sees faces at {said.size} × {said.size} px; larger pictures are reduced to that, and say no more."
        yield (
            f"- It always answers with one of {len(said.emotions)} emotions: never 'none of these', 'several' or 'no "
            "face'. Its probabilities are of these alone."
        )
    else:
        yield f"- Faces are made at {sees} × {sees} px, and show one of {len(said.emotions)} emotions or a mixture."
    if known.drawn:
        yield (
            "- All faces behind its figures are drawn by a program, and the labels are what the program was told to "
            "draw. On photographs of people the figures say nothing."
        )
    else:
        yield (
            "- Its labels are what annotators saw in pictures, often posed, cropped and in poor light. Who is in the "
            "dataset, and who is not, decides for whom it errs most; the figures above do not tell groups apart."
        )
    yield "- The figures hold for faces like those of the dataset: another camera, crop or age is another task."
    yield ""


def _misuse(said: Provenance) -> Iterator[str]:
    yield from ("## What it must not be used for", "")
    yield (
        "- Deciding about people: hiring, firing, schooling, credit, insurance, policing, border control, courts, "
        "diagnosing or treating."
    )
    yield (
        "- Telling what somebody feels, means or will do. An emotion here is a name that annotators gave to a picture, "
        "or that a program was told to draw; a face does not show it reliably."
    )
    yield "- Watching people at work, at school or in public, or anybody who did not agree to it."
    if said.does != ["read"]:
        yield "- Passing off what it makes as photographs of somebody, or changing a person's face without consent."
    yield ""


def _lineage(said: Provenance) -> Iterator[str]:
    yield from ("## Where it comes from", "")
    rows = [
        [
            escape(each.row),
            code(each.model),
            code(key),
            "nothing is trained" if each.sha256 is None else code(each.sha256[:16]),
            "from scratch" if each.weights is None else code(each.weights),
        ]
        for key, each in said.lineage.items()
    ]
    yield from (*table(["network", "class", "fit", "sha256 of its weights", "began with"], rows, left=range(5)), "")
    yield "The file itself says the same, and more, in its metadata."
    yield from ("", escape(said.licence), "")
