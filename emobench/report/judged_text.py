"""The tables of generators and editors: a judged section as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emobench.report.board import Check, Entry, hardware
from emobench.report.judged import JudgedSection
from emobench.report.markdown import code, escape, table
from emobench.report.readable import cost, listed, score, signed
from emobench.report.verdicts import KEPT

TITLES = {
    "generation": "Generation: an emotion in, faces out",
    "editing": "Editing: a face and an emotion in, the same person out",
    "stylization": "Stylization: a face in, the same face in the style of its emotion out",
}
_SAMPLES = {  # metric -> heading, in the order of the table
    "fid": "FID ↓", "kid": "KID ↓", "is": "IS ↑", "fed": "FED ↓", "es": "ES ↑", "memorisation": "copies",
}  # fmt: skip
_HEADINGS = {
    "identity": "identity ↑", "ssim": "SSIM ↑", "lpips": "LPIPS ↓", "truth_psnr": "truth: PSNR, dB ↑",
    "truth_ssim": "truth: SSIM ↑", "content_loss": "content loss ↓", "style_loss": "style loss ↓",
    "total_loss": "total loss ↓",
}  # fmt: skip

Pictures = Mapping[tuple[str, ...], str]


def verdict(section: JudgedSection) -> str:
    """Which generator obeys best and which looks most like real faces, and whether that is certain: one sentence."""
    entries = section.measured("generation")
    if not entries:
        return f"No generator is measured on {code(section.dataset)} yet."
    best, metric = entries[0], f"generation:{section.ranked_by('generation')}"
    said = score(best.numbers.get((metric, "macro")))
    told = f"Generation on {code(section.dataset)}: **{escape(best.name)}** obeys best, control {said}"
    pairs = [pair for pair in section.comparisons["generation"] if pair.first == 0]
    names = section.compared["generation"]
    tied = [escape(names[pair.second]) for pair in pairs if not pair.certain]
    if tied:
        told += f", not told apart from {listed(tied)}"
    elif pairs:
        told += " (certain)" if all(pair.seeds_known for pair in pairs) else " (certain for these networks only)"
    distance = section.distance("generation")
    near = next(
        (entry for entry in entries if section.ranks.get(("generation", "fidelity", entry.name), (0,))[0] == 1), None
    )
    if near is not None:
        found = near.numbers[f"generation:{distance}", ""]
        told += f"; **{escape(near.name)}** is nearest to real faces, {distance.upper()} {score(found)}"
        told += " (order only)" if "generation" in section.order_only else ""
    short = [escape(entry.name) for entry in entries if "under-trained" in entry.flags]
    if short:
        told += f"; {listed(short)} {'is' if len(short) == 1 else 'are'} under-trained, so not judged"
    return told + "."


def judged(section: JudgedSection, pictures: Pictures) -> list[str]:
    """All tracks of a section, its controls and its pictures."""
    lines = []
    for track in TITLES:
        entries = section.measured(track)
        if entries:
            lines += [
                "",
                f"### {TITLES[track]}",
                "",
                *_track(section, track, entries),
                "",
                *_notes(section, track, entries),
            ]
            lines += ["", *_emotions(section, track, entries)]
            lines += _shown(section, track, entries, pictures)
    if section.panel:
        lines += ["", "### Panel", "", *_panel(section), "", "### Controls of the panel", "", *_checks(section)]
    return lines


def _track(section: JudgedSection, track: str, entries: Sequence[Entry]) -> list[str]:
    """The models, the best control first, then real faces and other controls."""

    def there(metric: str, emotion: str = "") -> bool:
        return any((f"{track}:{metric}", emotion) in entry.numbers for entry in entries)

    metrics = [name for name in _SAMPLES if there(name)]
    kept = [name for name in KEPT[track] if there(name)]
    controls = [("control_calibrated", "macro"), ("control", "macro")]
    by = ["control"] if track == "stylization" else ["control", "fidelity"]
    named = {"control": "rank: control", "fidelity": f"rank: {section.distance(track).upper()}"}
    header = [*(named[each] for each in by), "model", "control, calibrated", "control, raw"]
    if there("control_start", "macro"):
        controls.append(("control_start", "macro"))
        header.append("raw, at the start")
    header += ["worst emotion", *(_SAMPLES[name] for name in metrics), *(_HEADINGS[name] for name in kept)]
    header += ["params", "FLOPs/face", "training", "faces/s", "of the recipe", "seeds", "flags"]
    rows = []
    for entry in entries:
        single = {emotion: entry.value(f"{track}:control", emotion) for emotion in section.emotions}
        values = {emotion: value for emotion, value in single.items() if value is not None}
        worst = min(values, key=lambda emotion: values[emotion], default=section.emotions[0])
        ranks = [_range(section.ranks.get((track, each, entry.name))) for each in by]
        if track in section.order_only:
            ranks[-1] = f"({ranks[-1]})"
        cells = [*ranks, escape(entry.name)]
        cells += _scores(entry, track, controls)
        cells += [f"{escape(worst)} {score(entry.numbers.get((f'{track}:control', worst)))}"]
        cells += _scores(entry, track, [(name, "") for name in (*metrics, *kept)])
        cells += [cost(entry.numbers[name, ""]) for name in ("params", "flops", "fit_seconds")]
        cells += [cost(entry.numbers[f"{track}:faces_per_s", ""]), score(entry.numbers.get(("recipe_share", "")))]
        rows.append([*cells, str(len(entry.seeds)), ", ".join(entry.flags)])
    for entry in section.controls:
        numbers = [key for key in entry.numbers if key[0].startswith(f"{track}:")]
        if numbers:
            cells = [*[""] * len(by), escape(entry.name), *_scores(entry, track, controls)]
            cells += ["", *_scores(entry, track, [(name, "") for name in (*metrics, *kept)])]
            rows.append([*cells, *[""] * (len(header) - len(cells))])
    return table(header, rows, left=(len(by), -1))


def _scores(entry: Entry, track: str, places: Sequence[tuple[str, str]]) -> list[str]:
    found = [entry.numbers.get((f"{track}:{metric}", emotion)) for metric, emotion in places]
    return ["" if number is None else "n/a" if number.value is None else score(number) for number in found]


def _notes(section: JudgedSection, track: str, entries: Sequence[Entry]) -> list[str]:
    """What the table leaves to be said."""
    lines = []
    counts = {entry.numbers[f"{track}:control", "macro"].n or 0 for entry in entries}
    lines += [f"- n = {', '.join(f'{n:,}' for n in sorted(counts))} faces for control. {_resampled(section, track)}"]
    if track in section.left_out:
        lines += [f"- Calibrated control is without {escape(section.left_out[track])}."]
    for control in section.controls:
        numbers = [n for n in control.numbers.values() if n.track == track and n.metric in KEPT[track] and n.reason]
        for reason in dict.fromkeys(number.reason for number in numbers if number.value is not None):
            lines += [f"- {escape(control.name)} is {escape(reason)}."]
    reasons = {
        name: next(
            (
                n.reason
                for entry in entries
                for n in [entry.numbers.get((f"{track}:{name}", ""))]
                if n is not None and n.value is None
            ),
            None,
        )
        for name in (*_SAMPLES, *KEPT[track])
    }
    for reason in dict.fromkeys(reason for reason in reasons.values() if reason):
        names = [name for name, why in reasons.items() if why == reason]
        lines += [f"- n/a: {listed([name.upper() if len(name) < 6 else name for name in names])}: {escape(reason)}."]
    results = {row.row: row.result or {} for row in section.usable}
    if track == "stylization":
        lines += [
            "- Control: the share of the faces that the panel reads as the emotion that the face shows; at the start,"
            " the same before the style."
        ]
        networks = [f"{escape(entry.name)} in {_loss_network(results[entry.name])}" for entry in entries]
        lines += [
            f"- Losses: {'; '.join(networks)}. The total is at the document's weights, 1 and 400,000. Faces per second"
            " at 256 px, 16 at a time."
        ]
    if track in section.order_only:
        lines += [f"- {section.distance(track).upper()} orders only: fewer than three seeds give no interval, no rank."]
    given = [
        escape(entry.name) for entry in entries if track == "generation" and not results[entry.name].get("draws", True)
    ]
    if given:
        lines += [f"- {listed(given)} cannot draw a face: here it edits validation faces that the runner picks."]
    other = [
        f"{escape(entry.name)} {results[entry.name]['own_size']} px"
        for entry in entries
        if results[entry.name].get("own_size", section.size) != section.size
    ]
    if other:
        lines += [f"- Made at another size and resized: {listed(other)}."]
    machines = dict.fromkeys(hardware(result.get("fitted_on")) for result in results.values() if result)
    batches = dict.fromkeys(str((result.get("cost") or {}).get("batch", "unknown")) for result in results.values())
    lines += [f"- Hardware: {escape('; '.join(machines))}."]
    return (
        lines if track == "stylization" else [*lines[:-1], f"{lines[-1]} Batch {listed(list(batches))} when drawing."]
    )


def _resampled(section: JudgedSection, track: str) -> str:
    """What the 95 % intervals of a track are over."""
    found = {name: units for (of, name), units in section.units.items() if of == track}
    said = [f"{count:,} {unit}" for count, unit in dict.fromkeys(found.values())]
    count, unit = section.calibrating
    told = f"95 % intervals: over {listed(said)}, each with all its faces"
    return f"{told}; of calibrated control also over the {count:,} {unit} that calibrate."


def _emotions(section: JudgedSection, track: str, entries: Sequence[Entry]) -> list[str]:
    """Raw control of each emotion: the share of the faces asked for as it that the panel reads as it."""
    lines = []
    for metric, title in (("control", "control, raw"), ("control_calibrated", "control, calibrated")):
        rows = [
            [escape(entry.name), *_scores(entry, track, [(metric, emotion) for emotion in section.emotions])]
            for entry in (*entries, *section.controls)
            if (f"{track}:{metric}", section.emotions[0]) in entry.numbers
        ]
        lines += [*table([title, *(escape(emotion) for emotion in section.emotions)], rows), ""]
    own = [entry for entry in entries if (f"{track}:control_self", "macro") in entry.numbers]
    if own:
        places = [(metric, "macro") for metric in ("control_self", "control", "adversarial_gain")]
        header = ["self-graded, never ranked", "its guide says", "the panel says", "adversarial gain"]
        lines += [*table(header, [[escape(entry.name), *_scores(entry, track, places)] for entry in own]), ""]
    return lines[:-1]


def _shown(section: JudgedSection, track: str, entries: Sequence[Entry], pictures: Pictures) -> list[str]:
    """The faces themselves."""
    lines = []
    if track == "generation":
        for entry in entries:
            if (section.dataset, entry.name, "samples") in pictures:
                path = pictures[section.dataset, entry.name, "samples"]
                lines += [
                    "",
                    f"**{escape(entry.name)}**: a row an emotion ({', '.join(map(escape, section.emotions))})",
                    "",
                ]
                lines += [f"![faces drawn by {escape(entry.name)}]({path})"]
        if (section.dataset, "curves") in pictures:
            rising = [
                [escape(entry.name), *_scores(entry, track, [("intensity_spearman", ""), ("intensity_slope", "")])]
                for entry in entries
            ]
            lines += ["", "Intensity asked for, from neutral to the emotion:", ""]
            lines += table(["intensity", "Spearman", "slope"], rising)
            lines += ["", f"![panel probability over intensity]({pictures[section.dataset, 'curves']})"]
        for entry in entries:
            if (section.dataset, entry.name, "intensity") in pictures:
                path = pictures[section.dataset, entry.name, "intensity"]
                lines += ["", f"![intensity from 0 to 1, {escape(entry.name)}]({path})", "", f"*{escape(entry.name)}*"]
    elif track == "stylization":
        for entry in entries:
            if (section.dataset, entry.name, "styles") in pictures:
                path = pictures[section.dataset, entry.name, "styles"]
                said = f"a source of each emotion, then in every style ({', '.join(map(escape, section.emotions))})"
                lines += ["", f"**{escape(entry.name)}**: {said}", "", f"![stylized by {escape(entry.name)}]({path})"]
    elif (section.dataset, "edits") in pictures:
        lines += ["", "The same sources, every emotion, every model:", ""]
        lines += [f"![edits of the same faces by all models]({pictures[section.dataset, 'edits']})"]
    return lines


def _panel(section: JudgedSection) -> list[str]:
    """Who judges, and how well each judge reads real test faces."""
    rows = []
    for judge, confusion in zip(section.panel, section.confusions, strict=True):
        recall = np.diagonal(confusion)
        worst = int(np.nanargmin(recall))
        wrong = np.nan_to_num(confusion * (1 - np.eye(len(confusion))))
        shown, seen = divmod(int(wrong.argmax()), len(confusion))
        most = (
            f"{escape(section.emotions[shown])} as {escape(section.emotions[seen])}, {100 * wrong[shown, seen]:.0f} %"
        )
        cells = [f"{np.nanmean(recall):.3f}", f"{escape(section.emotions[worst])} {recall[worst]:.3f}", most]
        card = [escape(judge["architecture"]), str(judge["seed"]), code(judge["sha256"][:12])]
        rows.append([escape(judge["row"]), *cells, *card])
    header = ["judge", "recall on real faces", "worst emotion", "most often misread", "architecture", "seed", "weights"]
    reader = section.reader
    said = f"FED and ES are measured by the reader {escape(reader['row'])}, weights {code(reader['sha256'][:12])}."
    lines = [*table(header, rows, left=(0, 3, 4, 6)), "", f"n = {section.real:,} test faces. {said}"]
    if section.without_weights:
        named = [f"{escape(card['row'])} ({code(card['sha256'][:12])})" for card in section.without_weights]
        why = "Weights that are not committed, so that a clone is small"
        lines += ["", f"{why}: {listed(named)}. The command at the end of this page trains them again."]
    return lines


def _checks(section: JudgedSection) -> list[str]:
    rows = [
        [
            escape(check.name),
            check.what,
            "n/a" if check.value is None else signed(check.value),
            check.bounds,
            _outcome(check),
        ]
        for check in section.checks
    ]
    return table(["control", "what", "value", "must be", "outcome"], rows, left=(0, 1, -1))


def _outcome(check: Check) -> str:
    if check.value is None:
        return f"n/a ({escape(check.reason)})"
    return "as it should be" if check.passed else "**FAILS**"


def _range(rank: tuple[int, int] | None) -> str:
    if rank is None:
        return "–"
    return str(rank[0]) if rank[0] == rank[1] else f"{rank[0]}–{rank[1]}"


def _loss_network(result: dict[str, Any]) -> str:
    """Whose features style losses are measured in."""
    if result["arguments"]["perceptual"] != "guide":
        return "VGG16's features, as trained on ImageNet"
    keys = result["cell"]["needs"]["guide"]
    named = [escape(card["row"]) for card in result["guides"] if card["fit_key"] in keys]
    return f"the features of {listed(named)}, an emotion classifier of this suite and not VGG16 as trained on ImageNet"
