"""What a board says of models that emobench did not train, and of figures that somebody claimed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from emobench.evaluation.tracks.track import Key, Name
from emobench.report.page import Block, Heading, Paragraph, Score, Table, Text, joined
from emobench.report.unranked import outside_of
from emobench.runner.record import LabelOrder, Outside
from emobench.runner.store import StoredCell


def blocks(named: Sequence[tuple[str, Sequence[StoredCell]]]) -> list[Block]:
    """How outside models were asked, and whether their classes are named rightly.

    Args:
        named: rows with numbers, each with its cells.
    """
    shown = [(name, cells, found) for name, cells in named if (found := outside_of(cells)) is not None]
    if not shown:
        return []
    header: list[Text] = [("outside model",), ("its faces",), ("its classes",), ("their order",), ("trained on",)]
    rows: list[list[Text]] = []
    for name, cells, found in shown:
        if found.pictures:
            continue
        claim = cells[0].declared.trained_on
        known: Text = ("not known",) if claim is None else (Name(claim), " (a claim)")
        asked = found.preprocessing or "its answers were given as a file"
        rows.append([(Name(name),), (Name(asked),), _classes(found), _order(cells[0], found), known])
    tables = [Table(header, rows, left=range(5))] if rows else []
    return [Heading(3, ("Outside models",)), *tables, *_dropped(shown), *_pictures(shown)]


def _pictures(shown: Sequence[tuple[str, Sequence[StoredCell], Outside]]) -> Iterator[Block]:
    """How many pictures there are of each set, and of which size."""
    for name, cells, found in shown:
        if found.pictures:
            of = "; ".join(f"{what} {there:,} of {asked:,}" for what, (there, asked) in found.pictures.items())
            record = cells[0].record
            side = None if record is None or record.evaluation is None else record.evaluation.own_size
            yield Paragraph((Name(name), f" is pictures of {side} px that somebody made: {of} faces asked for."))


def _classes(found: Outside) -> Text:
    said: list[Text] = [joined(Name(label) for label in found.labels)]
    if found.lacking:
        said.append(("without ", *joined(Name(each) for each in found.lacking)))
    return tuple(part for place, text in enumerate(said) for part in (*(("; ",) if place else ()), *text))


def _order(cell: StoredCell, found: Outside) -> Text:
    order = found.order
    if order is None:
        return ("not checked",)
    earlier: Text = (
        ("; **changed after an audit** did not believe ", Name("; ".join(", ".join(each) for each in found.earlier)))
        if found.earlier
        else ()
    )
    where = f"{order.faces:,} {'validation' if order.split == 'val' else 'test'} faces"
    if order.renamed:
        confirmed = "; confirmed by the suite" if cell.declared.labels_confirmed else ""
        return (
            "**seem exchanged**: ",
            *_renamed(order),
            f" (+{order.gain:.3f} balanced accuracy{confirmed})",
            *earlier,
        )
    if not order.checkable:
        return (f"not checkable on {where}: power {order.power:.2f}", *earlier)
    return (f"not beaten on {where}, power {order.power:.2f}", *earlier)


def _renamed(order: LabelOrder) -> Text:
    pairs = [
        (Name(label), " rather tells ", Name(emotion) if emotion else "none of these")
        for label, emotion in order.renamed.items()
    ]
    return tuple(part for place, pair in enumerate(pairs) for part in (*((", ",) if place else ()), *pair))


def _dropped(shown: Sequence[tuple[str, Sequence[StoredCell], Outside]]) -> Iterator[Block]:
    for name, _, found in shown:
        if found.dropped:
            much = f"; {found.elsewhere:,} faces that it read so count as wrong" if found.elsewhere else ""
            rest = "" if found.by_class else ", and the other probabilities sum to 1 again"
            said: Text = (" has classes that the dataset lacks: ", *joined(Name(label) for label in found.dropped))
            yield Paragraph((Name(name), *said, f"; they are dropped{rest}{much}."))
        if found.missing:
            yield Paragraph((Name(name), f" says nothing of {found.missing:,} test faces, which count as wrong."))


def claims(named: Sequence[tuple[str, Sequence[StoredCell], dict[Key, object]]]) -> list[Block]:
    """Claimed figures beside those that were measured.

    Args:
        named: rows with numbers, each with its cells and its numbers.
    """
    rows: list[list[Text]] = []
    for name, cells, numbers in named:
        claim = cells[0].declared.claimed
        for metric, value in (claim.figures if claim is not None else {}).items():
            number: object = numbers.get(Key(metric))
            rows.append([(Name(name),), (metric.replace("_", " "),), (f"{value:.3f}",), *_beside(number, value)])
            rows[-1].append((Name("" if claim is None else claim.source),))
    if not rows:
        return []
    header: list[Text] = [
        ("claimed",), ("what",), ("claim",), ("measured",), ("difference",), ("within the interval",), ("source",),
    ]  # fmt: skip
    return [Heading(3, ("Claimed and measured",)), Table(header, rows, left=(0, 1, -1))]


def _beside(number: object, claim: float) -> list[Text]:
    value, low, high = (getattr(number, name, None) for name in ("value", "low", "high"))
    if value is None:
        return [("n/a",), ("n/a",), ("n/a",)]
    within = "n/a" if low is None or high is None else "yes" if low <= claim <= high else "**no**"
    return [(Score(number),), (f"{value - claim:+.3f}".replace("-", "−"),), (within,)]  # type: ignore[arg-type]


def ordinal(place: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st.

    >>> [ordinal(place) for place in (1, 2, 3, 11, 22)]
    ['1st', '2nd', '3rd', '11th', '22nd']
    """
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"
