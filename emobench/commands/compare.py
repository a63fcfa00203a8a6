"""`emobench compare`: two rows of one board, or of two boards on the same faces, side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from emobench.commands.pictures import Sheet, check_new, note
from emobench.commands.report import boards
from emobench.commands.runs import best_by_control, best_by_validation
from emobench.errors import EmobenchError, StoreError, unknown
from emobench.evaluation.tracks.track import Name
from emobench.files import SCHEMA_VERSION, write_json, write_text
from emobench.report import terminal
from emobench.report.board import tracks_of
from emobench.report.compare import Apart, Compared, Face, Side, blocks, compared, plain
from emobench.report.html.faces import Allowance, drawn_faces, pictures
from emobench.report.markdown import markdown
from emobench.report.page import Block, Heading
from emobench.runner.store import Origin, StoredCell, load_board
from emobench.suite.catalog import tracks

if TYPE_CHECKING:
    from emobench.evaluation.tracks.track import Track

PAGE, VALUES = "compare.md", "compare.json"
_SHOWN = 8  # faces of each side that are printed
_BYTES = 2**24  # of the cells' own pictures, of which some faces are cut out


@dataclass(frozen=True)
class Named:
    """A row that was named: of one board, dataset and size."""

    board: str
    row: str
    cells: Sequence[StoredCell]

    @property
    def dataset(self) -> str:
        return self.cells[0].dataset

    @property
    def tracks(self) -> list[str]:
        """Those on which a seed of it was measured."""
        found = [track for cell in self.cells if cell.state == "done" for track in tracks_of(cell)]
        return list(dict.fromkeys(found))


def compare(first: str, second: str, on: str | None, results: Path, data: Path, out: Path, *, force: bool) -> int:
    """Print how two rows differ, and write it as Markdown and JSON, with a picture of the faces on which they disagree.

    Args:
        first, second: `<board>/<row>`, `<board>/<dataset>/<row>` or `best:<board>/<dataset>`; the second one without
            its board where that is the first one's.
        on: the dataset, where a board has the row on several.
        out: folder of what is written.

    Returns:
        The exit code.

    Raises:
        StoreError: there is no such row, it was not measured, or the two were not measured on the same faces.
    """
    one = named(results, first, on)
    other = named(results, second, on, one)
    if (one.board, one.row, one.dataset) == (other.board, other.row, other.dataset):
        raise StoreError(f"{first} and {second} are the same row. Name two")
    _use_plugins(results, [one.board, other.board])
    sides = _sides(one, other)
    found = [compared(track, *sides) for track in _tracks(one, other)]
    names = [f"faces-{each.section.track.name}.png" for each in found]
    check_new([out / PAGE, out / VALUES, *(out / name for name in names)], force)
    real_faces = all(_real_faces(results, board) for board in (one.board, other.board))
    title: Block = Heading(1, (Name(sides[0].label), " against ", Name(sides[1].label)))
    said, shown = [title], [title]
    for each, name in zip(found, names, strict=True):
        sheet = _sheet(each, real_faces, data)
        if sheet is not None:
            sheet.write(out / name)
        elif (out / name).exists():
            (out / name).unlink()  # of a comparison before, which --force overwrites
        picture = None if sheet is None else name
        said += blocks(each, picture)
        shown += blocks(each, None if picture is None else str(out / name), _SHOWN)
    write_text(out / PAGE, markdown(said))
    content = {"first": _plain(one), "second": _plain(other), "tracks": [plain(each) for each in found]}
    write_json(out / VALUES, {"schema_version": SCHEMA_VERSION, **content})
    terminal.show(shown)
    print(f"\n{out / PAGE}")
    return 0


def _plain(row: Named) -> dict[str, str]:
    return {"board": row.board, "dataset": row.dataset, "row": row.row}


# Which rows are meant


def named(results: Path, name: str, on: str | None, beside: Named | None = None) -> Named:
    """The row that a name means.

    Args:
        on: the dataset; None: the one that the name says, or the only one that has the row.
        beside: a row whose board is meant where the name has none, and whose dataset where there are several.

    Raises:
        StoreError: there is no such board or row, or it stands on several datasets.
    """
    if name.startswith("best:"):
        board, _, dataset = name.removeprefix("best:").partition("/")
        best = _best(results, board, dataset)
        return Named(board, best.row, _cells(results, board, best.dataset, best.row, best.size))
    board, _, rest = name.partition("/")
    if not (rest and (results / board / "suite.json").exists()):
        if beside is None:
            there = {f"{each}/ROW" for each in boards(results)}
            raise StoreError(f"{unknown('row', name, there)}. A row is named as BOARD/ROW or BOARD/DATASET/ROW")
        board, rest = beside.board, name
    cells = [cell for cell in load_board(results, board) if cell.part is None]
    places = {(cell.dataset, cell.row, cell.size) for cell in cells}
    mine = sorted(each for each in places if rest in (each[1], f"{each[0]}/{each[1]}"))
    if not mine:
        raise StoreError(unknown("row", name, {f"{board}/{dataset}/{row}" for dataset, row, _ in places}))
    chosen = [each for each in mine if on is None or each[0] == on]
    if len(chosen) > 1 and beside is not None:
        chosen = [each for each in chosen if each[0] == beside.dataset] or chosen
    datasets = sorted({dataset for dataset, *_ in mine})
    if not chosen:
        raise StoreError(f"--on {on}: {board}/{mine[0][1]} stands on {', '.join(datasets)}")
    if len(chosen) > 1:
        raise StoreError(f"{name} stands on several datasets: {', '.join(datasets)}. Choose one by --on")
    dataset, row, size = chosen[0]
    return Named(board, row, _cells(results, board, dataset, row, size))


def _cells(results: Path, board: str, dataset: str, row: str, size: int) -> list[StoredCell]:
    place = (dataset, row, size)
    cells = [cell for cell in load_board(results, board) if cell.part is None]
    return [cell for cell in cells if (cell.dataset, cell.row, cell.size) == place]


def _best(results: Path, board: str, dataset: str) -> StoredCell:
    """The best classifier by validation; where the board has none on the dataset, the best of what makes faces."""
    if any(cell.track == "recognition" and cell.dataset == dataset for cell in load_board(results, board)):
        return best_by_validation(results, board, dataset)[0]
    return best_by_control(results, board, dataset, "measured")[0]


def _sides(one: Named, other: Named) -> tuple[Side, Side]:
    """The rows, called as shortly as tells them apart."""
    for parts in (("row",), ("dataset", "row"), ("board", "row"), ("board", "dataset", "row")):
        labels = ["/".join(_plain(row)[part] for part in parts) for row in (one, other)]
        if labels[0] != labels[1]:
            break
    for row, label in zip((one, other), labels, strict=True):
        if not row.tracks:
            said = dict.fromkeys(f"{cell.state}: {cell.reason}" if cell.reason else cell.state for cell in row.cells)
            raise StoreError(f"{label} was not measured ({'; '.join(said)}). `emobench bench` runs it")
    return Side(labels[0], one.board, one.cells), Side(labels[1], other.board, other.cells)


def _tracks(one: Named, other: Named) -> list[Track]:
    """The tracks on which both were measured."""
    found = [track for name, track in tracks().items() if name in one.tracks and name in other.tracks]
    if not found:
        did = [f"{row.row} on {' and '.join(row.tracks)}" for row in (one, other)]
        raise StoreError(f"nothing is measured of both: {did[0]}, {did[1]}. Name two rows of one track")
    return found


def _use_plugins(results: Path, names: Sequence[str]) -> None:
    """Import what the boards' suites define; without it, their own tracks are not compared."""
    for board in dict.fromkeys(names):
        try:
            Origin.recorded(results, board).use_plugins(results)
        except (EmobenchError, OSError) as error:
            note(f"what {board} defines is not compared: {error}")


def _real_faces(results: Path, board: str) -> bool:
    try:
        return Origin.recorded(results, board).real_faces
    except (EmobenchError, OSError):
        return False


# The faces on which they disagree


def _sheet(found: Compared, real_faces: bool, data: Path) -> Sheet | None:
    """A picture of the faces; None: there are none, or they are real people's."""
    if found.apart is None:
        return None
    faces = [*found.apart.only_first, *found.apart.only_second]
    shown = _test_faces(found, faces, real_faces, data) if found.apart.what == "test faces" else None
    if found.apart.what != "test faces":
        shown = _made(found, faces, real_faces)
    if shown is None or not any(each is not None for each in shown):
        return None
    return _laid_out(found, found.apart, shown)


def _laid_out(found: Compared, apart: Apart, shown: Sequence[np.ndarray | None]) -> Sheet:
    sheet = Sheet()
    names = [entry.name for entry in found.entries]
    sides = [("only " + names[0], face) for face in apart.only_first]
    sides += [("only " + names[1], face) for face in apart.only_second]
    for (line, face), picture in zip(sides, shown, strict=True):
        if picture is not None:
            wrong = face.second if face.first == face.shown else face.first
            sheet.add(line, f"{face.number}: {face.shown}, not {wrong}", picture)
    return sheet


def _test_faces(
    found: Compared, faces: Sequence[Face], real_faces: bool, data: Path
) -> Sequence[np.ndarray | None] | None:
    """Test faces (3, h, w), drawn again; those of real people where the suites allow it and the data is at hand."""
    if not faces:
        return None
    labels = np.array([found.section.emotions.index(face.shown) for face in faces])
    drawn = drawn_faces(found.section, [face.name for face in faces], labels)
    if drawn is not None or not real_faces:
        return None if drawn is None else list(drawn)
    from emobench.runner.build import build_data

    record = found.section.records[0]
    try:
        module = build_data(record.planned, data)
        module.prepare()
    except EmobenchError as error:
        note(f"the faces are not shown: {error}")
        return None
    images = np.asarray(module.images[[face.number for face in faces]])
    return list(np.broadcast_to(images, (len(images), 3, *images.shape[2:])))


def _made(found: Compared, faces: Sequence[Face], real_faces: bool) -> Sequence[np.ndarray | None]:
    """What both rows made of a request, beside each other; None: one of them may not be seen, or has no picture."""
    sheets = {}
    for each in pictures(found.section, real_faces, Allowance(_BYTES)):
        if each.kind in ("samples", "edits") and each.sheet is not None:
            with Image.open(io.BytesIO(each.sheet.webp)) as opened:
                sheets[each.row] = np.asarray(opened.convert("RGB")).transpose(2, 0, 1), each.sheet.side
    shown: list[np.ndarray | None] = []
    for face in faces:
        cut = [_cut(sheets.get(entry.name), face.place) for entry in found.entries]
        both = [each for each in cut if each is not None]
        fits = len(both) == len(cut) and both[0].shape == both[1].shape
        shown.append(np.concatenate(both, 2) if fits else None)
    return shown


def _cut(sheet: tuple[np.ndarray, int] | None, place: tuple[int, int] | None) -> np.ndarray | None:
    """A face (3, side, side) of a picture, by its line and column; None: it is not in it."""
    if sheet is None or place is None:
        return None
    picture, side = sheet
    top, left = place[0] * side, place[1] * side
    face = picture[:, top : top + side, left : left + side]
    return face if face.shape[1:] == (side, side) else None
