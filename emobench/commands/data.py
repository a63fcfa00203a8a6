"""`emobench data`: a dataset's audit as a report, its faces with their labels as a picture, a list of its faces."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emobench.data.audit import FINDINGS
from emobench.data.manifest import Manifest
from emobench.errors import DatasetError, StoreError
from emobench.files import check_out, replacing, write_text
from emobench.report.markdown import code, escape, table
from emobench.suite.overrides import apply, parsed
from emobench.suite.rows import data_module

_LISTED = 20  # faces of each finding that the report names


def check(name: str, data_root: Path, given: Sequence[str], *, pixels: bool, out: Path | None) -> int:
    """Audit a dataset and print the report, or write it as Markdown or JSON; also where training would be refused.

    Args:
        given: arguments of the dataset, as `--set` takes them.
        pixels: whether faces are decoded.

    Returns:
        The exit code: 1 where more of its faces than `max_bad` allows cannot be read, or the others cannot be split.

    Raises:
        DatasetError: it is missing or malformed.
        SuiteError: there is none of this name, or it has no such argument.
    """
    module, _ = data_module(f"data check {name}", name, _arguments(given), data_root)
    if out is not None:
        check_out(out)
    allowed, module.max_bad = module.max_bad, 1.0  # the report comes first
    manifest = module.examine(pixels=pixels)
    good = bool(manifest.audit["excluded"] <= allowed * manifest.audit["faces"])
    text = _report(name, manifest, pixels)
    if out is None:
        print(text)
    else:
        written = json.dumps({"dataset": name, "notes": manifest.notes, **manifest.audit}, indent=1)
        write_text(out, written if out.suffix == ".json" else text)
        print(f"The report is {out}")
    if not good:
        print(f"{manifest.audit['excluded']} faces cannot be read: more than max_bad = {allowed:g} allows")
    if manifest.refused is not None:
        print(f"No split, so nothing can be trained: {manifest.refused}")
    return 0 if good and manifest.refused is None else 1


def _arguments(given: Sequence[str]) -> dict[str, Any]:
    """`--set order=fer2013` as arguments of a dataset; values are TOML, a bare word is a string."""
    found: dict[str, Any] = {}
    apply(found, parsed(given, "order=fer2013"))
    return found


def _report(name: str, manifest: Manifest, pixels: bool) -> str:
    """The audit of a dataset as Markdown."""
    found = manifest.audit
    how = "Every face decoded" if pixels else "By names and sizes only: duplicates are equal names of equal size"
    lines = [f"# Audit of {escape(name)}", "", f"{how}.", ""]
    splits = list(found["classes"])
    emotions = list(manifest.emotions)
    rows = [[emotion, *(f"{found['classes'][split][emotion]:,}" for split in splits)] for emotion in emotions]
    rows.append(["all", *(f"{sum(found['classes'][split].values()):,}" for split in splits)])
    if "subjects" in found:
        rows.append(["subjects", *(f"{found['subjects'].get(split, 0):,}" for split in splits)])
    lines += [*table(["faces", *splits], rows), ""]
    lines += [*table(["finding", "n"], [[text, f"{found[key]:,}"] for key, text in FINDINGS.items() if key in found])]
    if "sizes" in found:
        lines += ["", _sizes(found["sizes"])]
    lines += ["", *(f"- {escape(note)}" for note in manifest.notes)]
    for title, faces in (
        ("Why faces cannot be read", [f"{n:,}: {escape(reason)}" for reason, n in found["reasons"].items()]),
        ("Cannot be read", [escape(problem) for problem in found["excluded_faces"].values()]),
        ("Of one colour", [code(face) for face in found.get("constant_faces", [])]),
        ("Exact duplicates with contradicting labels", _contradicting(found, emotions)),
    ):
        if faces:
            more = ["- … (`--out audit.json` lists more)"] if len(faces) > _LISTED else []
            lines += ["", f"## {title}", "", *(f"- {face}" for face in faces[:_LISTED]), *more]
    return "\n".join(lines) + "\n"


def _sizes(found: Mapping[str, Any]) -> str:
    (least_x, most_x), (least_y, most_y) = found["width"], found["height"]
    if found["different"] == 1:
        return f"All faces have {most_x} x {most_y} px."
    return (
        f"Faces have {found['different']:,} different sizes, from {least_x} to {most_x} px wide and from {least_y} to "
        f"{most_y} px high; {found['not_square']:,} are not square. All are resized to one square."
    )


def _contradicting(found: Mapping[str, Any], emotions: Sequence[str]) -> list[str]:
    groups = [group for group in found.get("duplicate_faces", []) if len(set(group["labels"])) > 1]
    return [
        "; ".join(
            f"{code(face)} ({emotions[label]}, {split})"
            for face, label, split in zip(group["faces"], group["labels"], group["splits"], strict=True)
        )
        for group in groups
    ]


def show(name: str, data_root: Path, given: Sequence[str], *, split: str, each: int, seed: int, out: Path) -> None:
    """Write a picture of a dataset's faces: a row for each emotion, named, with `each` random faces of a split.

    Raises:
        DatasetError: the split has no faces.
    """
    from PIL import Image, ImageDraw, ImageFont

    module, _ = data_module(f"data show {name}", name, _arguments(given), data_root)
    check_out(out)
    if out.suffix.lower() not in Image.registered_extensions():
        raise StoreError(f"--out {out}: no kind of picture ends in '{out.suffix}'; choose .png or .jpg")
    module.prepare()
    faces = module.faces[module.faces["split"] == split]
    if faces.empty:
        raise DatasetError(f"{name}: no faces in the split {split!r}. There are: {', '.join(module.counts())}")
    random, side, margin = np.random.default_rng(seed), max(module.size, 48), 120  # px
    canvas = Image.new("RGB", (margin + each * side, len(module.emotions) * side), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for k, emotion in enumerate(module.emotions):
        of = faces.index[faces["label"] == k].to_numpy()
        pen.text((6, k * side + side // 2), f"{emotion} ({len(of):,})", "black", font, anchor="lm")
        for column, row in enumerate(random.permutation(of)[:each]):
            pixels = np.broadcast_to(module.images[row], (3, module.size, module.size)).transpose(1, 2, 0)
            face = Image.fromarray(np.ascontiguousarray(pixels)).resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(face, (margin + column * side, k * side))
    canvas.save(out)
    print(f"{split} faces of {name} are in {out}")


def faces(name: str, data_root: Path, given: Sequence[str], *, split: str, out: Path, pictures: Path | None) -> None:
    """List the faces of a split as `predictions:` files name them; the faces too, as they lie there, if wanted.

    Columns: `id`; `path`, its file below the dataset's folder, or `source_row`, its row of the original table from 0;
    `emotion`; and `picture`, its file among `pictures`.

    Args:
        pictures: a folder for the faces, PNG at their own size; None: none are written.

    Raises:
        DatasetError: the dataset is missing, or the split has no faces.
        StoreError: something lies there already.
    """
    from PIL import Image

    module, _ = data_module(f"data faces {name}", name, _arguments(given), data_root)
    check_out(out)
    module.plan()
    split = {"validation": "val"}.get(split, split)
    chosen = module.faces[module.faces["split"] == split]
    if chosen.empty:
        raise DatasetError(f"{name}: no faces in the split {split!r}. There are: {', '.join(module.counts())}")
    table_ = pd.DataFrame({"id": chosen["id"]})
    if chosen["id"].str.isdecimal().all():
        table_["source_row"] = chosen["id"].astype(int)
    elif module.expects:
        table_["path"] = chosen["source"]
    table_["emotion"] = [module.emotions[label] for label in chosen["label"]]
    if pictures is not None:
        if pictures.is_dir() and any(pictures.iterdir()):
            raise StoreError(f"--pictures {pictures}: is not empty. Name a new folder")
        pictures.mkdir(parents=True, exist_ok=True)
        table_["picture"] = [f"{place:06d}.png" for place in range(len(chosen))]
        for file, face in zip(table_["picture"], module.source_faces(chosen), strict=True):
            Image.fromarray(face[0] if len(face) == 1 else face.transpose(1, 2, 0)).save(pictures / file)
    with replacing(out) as temporary:
        table_.to_csv(temporary, index=False, lineterminator="\n")
    print(f"{len(chosen):,} {split} faces of {name} are listed in {out}")
