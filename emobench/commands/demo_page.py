"""The page of `emobench demo`: its tabs, and how answers look on it."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from emobench.commands.demo_answers import Answers, Reading
from emobench.commands.pictures import as_image
from emobench.cues.reader import LONGEST
from emobench.errors import EmobenchError

_ONE_AT_A_TIME = {"concurrency_id": "networks", "concurrency_limit": 1, "api_visibility": "private"}
_MOST = 16  # faces that are drawn at once
_EXAMPLE = "she just heard that she won"
TRAINS = "`emobench bench demo`"
STYLE = """
.gradio-container { width: 100%; max-width: 1180px !important; margin: 0 auto !important; }
.said { margin: 2px; }
.wrong { color: var(--body-text-color); border-left: 3px solid var(--color-accent); padding: 4px 10px; }
.readings { display: flex; flex-wrap: wrap; gap: 20px; }
.reading { display: flex; gap: 16px; align-items: center; margin: 0; }
.among { flex-direction: column; align-items: start; overflow-x: auto; }
.among .bar { width: 64px; }
.reading img { width: 128px; height: 128px; image-rendering: pixelated; border-radius: 6px; }
.bars, .bars tr, .bars th, .bars td { border: none !important; }
.bars th { font-weight: 400; text-align: left; padding: 2px 10px 2px 0; }
.bars thead th { font-weight: 600; padding-bottom: 6px; }
.bars td { padding: 2px 14px 2px 0; white-space: nowrap; }
.bars .bar { display: inline-block; width: 90px; height: 10px; margin-right: 8px; border-radius: 5px;
  background: var(--neutral-200); overflow: hidden; }
.dark .bars .bar { background: var(--neutral-700); }
.bars .bar i { display: block; height: 100%; background: var(--neutral-400); }
.bars .best .bar i { background: var(--color-accent); }
.bars .best { font-weight: 600; }
.faces img { image-rendering: pixelated; }
.faces .grid-wrap { min-height: 0; max-height: none; }
.faces .caption-label { padding: 1px 6px; font-size: 11px; }
"""


def page(answers: Answers, title: str) -> Any:
    """The page, as gradio's Blocks.

    Args:
        answers: whom it asks.
        title: of which board or files the networks are.
    """
    import gradio as gr

    with gr.Blocks(title="emobench", analytics_enabled=False, delete_cache=(60, 3600)) as blocks:
        gr.HTML(f"<h1>emobench</h1><p>{escape(title)}. Nothing leaves this machine.</p>", padding=True)
        with gr.Tabs():
            for label, verb, build, lacking in (
                ("Read a face", "read", _read, "reads faces"),
                ("Draw a face", "draw", _draw, "draws faces"),
                ("Edit a face", "edit", _edit, "edits faces"),
            ):
                with gr.Tab(label):
                    if answers.offered[verb]:
                        build(answers)
                    else:
                        gr.Markdown(f"No network here {lacking}. {TRAINS} trains some.")
            with gr.Tab("Compare networks"):
                _compare(answers)
    blocks.queue(api_open=False)
    # What gradio's own launch sets, and mounting does not: only files that were uploaded are taken for pictures.
    blocks.has_launched = True
    return blocks


# Tabs


def _read(answers: Answers) -> None:
    import gradio as gr

    def ask(picture: Path | None, reader: str, find: bool) -> tuple[str, str]:
        readings, said = answers.read(picture, reader, find)
        return _cards(readings), _said(said)

    with gr.Row():
        with gr.Column(scale=2):
            picture, find = _picture(), _find()
            reader = _network(answers, "read", "Classifier")
            button = gr.Button("Read", variant="primary")
        with gr.Column(scale=3):
            found, said = gr.HTML(), gr.HTML()
    button.click(_answered(ask, ""), [picture, reader, find], [found, said], **_ONE_AT_A_TIME)


def _draw(answers: Answers) -> None:
    import gradio as gr

    known = answers.emotions("draw")
    first = next(iter(answers.offered["draw"].values()))

    def ask(maker: str, intensity: float, seed: int | None, n: int, *shares: float) -> tuple[list[Any], str]:
        pictures, said = answers.draw(maker, dict(zip(known, shares, strict=True)), intensity, seed, n)
        return _gallery(pictures), _said(said)

    def ask_text(maker: str, text: str, seed: int | None, n: int) -> tuple[Any, ...]:
        pictures, said, cue = answers.draw_text(maker, text, seed, n)
        moved = (round(cue.weights.get(emotion, 0.0), 2) for emotion in known)
        return round(cue.intensity, 2), *moved, _gallery(pictures), _said(said)

    def show(maker: str) -> list[Any]:
        emotions = answers.offered["draw"][maker].emotions
        return [gr.update(visible="neutral" in emotions), *(gr.update(visible=each in emotions) for each in known)]

    with gr.Row():
        with gr.Column(scale=2):
            maker = _network(answers, "draw", "Generator")
            with gr.Row():
                sliders = [_slider(each, float(each == "happy"), each in first.emotions) for each in known]
            intensity = _intensity("neutral" in first.emotions)
            seed, n = _seed_and_number(8)
            button = gr.Button("Draw the mixture", variant="primary")
            text = gr.Textbox(label="Or a sentence", placeholder=_EXAMPLE, submit_btn="Draw it", max_length=LONGEST)
        with gr.Column(scale=3):
            faces, said = _faces(), gr.HTML()
    maker.change(show, maker, [intensity, *sliders], api_visibility="private")
    button.click(_answered(ask, []), [maker, intensity, seed, n, *sliders], [faces, said], **_ONE_AT_A_TIME)
    unmoved = [gr.skip() for _ in (intensity, *sliders)]
    text.submit(
        _answered(ask_text, *unmoved, []),
        [maker, text, seed, n],
        [intensity, *sliders, faces, said],
        **_ONE_AT_A_TIME,
    )


def _edit(answers: Answers) -> None:
    import gradio as gr

    known = answers.emotions("edit")
    first = next(iter(answers.offered["edit"].values()))

    def ask(
        picture: Path | None, editor: str, emotions: Sequence[str], intensity: float, seed: int | None, find: bool
    ) -> tuple[list[Any], str]:
        pictures, said = answers.edit(picture, editor, emotions, intensity, seed, find)
        return _gallery(pictures), _said(said)

    def show(editor: str) -> tuple[Any, Any]:
        emotions = list(answers.offered["edit"][editor].emotions)
        return gr.update(choices=emotions), gr.update(visible="neutral" in emotions)

    with gr.Row():
        with gr.Column(scale=2):
            picture, find = _picture(), _find()
            editor = _network(answers, "edit", "Editor")
            to = gr.CheckboxGroup(list(first.emotions), value=[each for each in known if each == "happy"], label="To")
            intensity = _intensity("neutral" in first.emotions)
            seed = gr.Number(0, precision=0, label="seed")
            button = gr.Button("Edit", variant="primary")
        with gr.Column(scale=3):
            faces, said = _faces(), gr.HTML()
    editor.change(show, editor, [to, intensity], api_visibility="private")
    button.click(_answered(ask, []), [picture, editor, to, intensity, seed, find], [faces, said], **_ONE_AT_A_TIME)


def _compare(answers: Answers) -> None:
    import gradio as gr

    with gr.Tabs():
        for label, verb, build in (("Classifiers", "read", _compare_readers), ("Generators", "draw", _compare_makers)):
            with gr.Tab(label):
                if len(answers.offered[verb]) > 1:
                    build(answers)
                else:
                    gr.Markdown(f"Here are fewer than two {label.lower()} to compare. {TRAINS} trains some.")


def _compare_readers(answers: Answers) -> None:
    import gradio as gr

    def ask(picture: Path | None, readers: Sequence[str], find: bool) -> tuple[str, str]:
        readings, said = answers.read_by_all(picture, readers, find)
        return _table(readings), _said(said)

    with gr.Row():
        with gr.Column(scale=2):
            picture, find = _picture(), _find()
            readers = _networks(answers, "read", "Classifiers")
            button = gr.Button("Compare", variant="primary")
        with gr.Column(scale=3):
            found, said = gr.HTML(), gr.HTML()
    button.click(_answered(ask, ""), [picture, readers, find], [found, said], **_ONE_AT_A_TIME)


def _compare_makers(answers: Answers) -> None:
    import gradio as gr

    known = answers.emotions("draw")

    def ask(makers: Sequence[str], emotion: str, intensity: float, seed: int | None, n: int) -> tuple[Any, str]:
        sheet, said = answers.draw_by_all(makers, emotion, intensity, seed, n)
        return as_image(sheet), _said(said)

    with gr.Row():
        with gr.Column(scale=2):
            makers = _networks(answers, "draw", "Generators")
            emotion = gr.Dropdown(known, value="happy" if "happy" in known else known[0], label="Emotion")
            intensity = _intensity("neutral" in known)
            seed, n = _seed_and_number(4)
            button = gr.Button("Compare", variant="primary")
        with gr.Column(scale=3):
            sheet = gr.Image(show_label=False, format="png", buttons=["download", "fullscreen"], interactive=False)
            said = gr.HTML()
    button.click(_answered(ask, None), [makers, emotion, intensity, seed, n], [sheet, said], **_ONE_AT_A_TIME)


# Fields


def _picture() -> Any:
    """A picture to choose or to take; what is asked is given its file, for emobench to read as it reads all others."""
    import gradio as gr

    picture = gr.Image(label="Picture", sources=["upload", "webcam", "clipboard"], height=300, buttons=[])
    picture.preprocess = lambda given: None if given is None else Path(given.path)
    return picture


def _find() -> Any:
    import gradio as gr

    return gr.Checkbox(label="Find the face first", info="Else the whole picture is taken for a face.")


def _network(answers: Answers, verb: str, label: str) -> Any:
    import gradio as gr

    names = list(answers.offered[verb])
    return gr.Dropdown(names, value=names[0], label=label)


def _networks(answers: Answers, verb: str, label: str) -> Any:
    import gradio as gr

    names = list(answers.offered[verb])
    return gr.Dropdown(names, value=names[:4], label=label, multiselect=True)


def _intensity(visible: bool) -> Any:
    return _slider("intensity, from neutral", 1.0, visible)


def _slider(label: str, value: float, visible: bool) -> Any:
    import gradio as gr

    return gr.Slider(0, 1, value, step=0.01, label=label, min_width=150, visible=visible, buttons=[])


def _seed_and_number(faces: int) -> tuple[Any, Any]:
    import gradio as gr

    with gr.Row():
        return (
            gr.Number(0, precision=0, label="seed", min_width=100),
            gr.Slider(1, _MOST, faces, step=1, label="faces", min_width=150, buttons=[]),
        )


def _faces() -> Any:
    import gradio as gr

    return gr.Gallery(
        show_label=False,
        columns=4,
        format="png",
        object_fit="contain",
        height="auto",
        buttons=["download", "fullscreen"],
        elem_classes=["faces"],
    )


# How answers look


def _answered(ask: Callable[..., tuple[Any, ...]], *nothing: Any) -> Callable[..., tuple[Any, ...]]:
    """What an event calls: what cannot be answered is said in the page, and `nothing` stands in the answer's place."""

    def answer(*given: Any) -> tuple[Any, ...]:
        try:
            return ask(*given)
        except EmobenchError as error:
            return *nothing, _said(str(error), wrong=True)

    return answer


def _said(text: str, *, wrong: bool = False) -> str:
    return f"<p class='said{' wrong' if wrong else ''}' role='status'>{escape(text)}</p>" if text else ""


def _gallery(pictures: Iterable[tuple[np.ndarray, str]]) -> list[tuple[Image.Image, str]]:
    return [(as_image(picture), caption) for picture, caption in pictures]


def _cards(readings: Sequence[Reading]) -> str:
    """Each face with its bars."""
    cards = (f"<figure class='reading'>{_face(each)}{_bars([each])}</figure>" for each in readings)
    return f"<div class='readings'>{''.join(cards)}</div>"


def _table(readings: Sequence[Reading]) -> str:
    """One face, and beside it the bars of each classifier."""
    return f"<figure class='reading among'>{_face(readings[0])}{_bars(readings)}</figure>"


def _face(reading: Reading) -> str:
    file = io.BytesIO()
    as_image(reading.face).save(file, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return f"<img alt='the face as it is read' src='{source}'>"


def _bars(readings: Sequence[Reading]) -> str:
    """A line an emotion, a column a reading."""
    names = [escape(each.name) for each in readings]
    head = f"<thead><tr><th></th>{''.join(f'<th>{name}</th>' for name in names)}</tr></thead>" if any(names) else ""
    lines = []
    for emotion in dict.fromkeys(emotion for each in readings for emotion in each.shares):
        cells = "".join(_bar(each.shares.get(emotion), emotion == each.emotion) for each in readings)
        lines.append(f"<tr><th>{escape(emotion)}</th>{cells}</tr>")
    return f"<table class='bars'>{head}<tbody>{''.join(lines)}</tbody></table>"


def _bar(share: float | None, best: bool) -> str:
    if share is None:
        return "<td>does not know it</td>"
    bar = f"<span class='bar'><i style='width: {100 * share:.1f}%'></i></span>"
    return f"<td{' class=best' if best else ''}>{bar}{100 * share:.0f} %</td>"
