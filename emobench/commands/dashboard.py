"""`emobench wandb dashboard`: a report on W&B of the runs of a board, grouped by model, a part for each dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emobench.errors import EmobenchError, StoreError
from emobench.files import check_out, write_text
from emobench.runner.store import Origin, StoredCell, load_board
from emobench.runner.tracking import board_name, shown_as
from emobench.runner.wandb import reachable_mode
from emobench.suite.catalog import tracks
from emobench.suite.file import Wandb, load, stem

_WIDE = 24  # columns of a grid of panels
_CURVES = (("train_loss", "val_loss"), ("val_macro_f1",), ("faces_per_s",))  # each in a panel of its own
_RATES = "lr-.*"  # as Lightning calls the learning rates of all optimisers


def dashboard(board: str, results: Path, *, entity: str | None, project: str | None, out: Path | None) -> int:
    """Write the report on W&B, or what it is made of into a file, and print where it is.

    Args:
        board: its name, its folder, or the file of its suite.
        entity, project: where its runs are; None: as the suite says, else the key's own, and emobench.
        out: a JSON file; nothing is asked of W&B then.

    Raises:
        StoreError: there is no such board.
        EmobenchError: `wandb-workspaces` is not installed, or W&B cannot be reached.
    """
    name = stem(board)
    cells = load_board(results, name)
    place = _place(results, name)
    if out is not None:
        check_out(out)
        report = report_of(cells, name, project or place.project, entity or place.entity or "")
        write_text(out, _spec(report))
        print(out)
        return 0
    mode, why = reachable_mode("online")
    if mode != "online":
        raise EmobenchError(f"{why}. `--out {name}.json` writes what the report is made of without asking W&B")
    report = report_of(cells, name, project or place.project, entity or place.entity)
    report.save()
    print(report.url)
    return 0


def _place(results: Path, name: str) -> Wandb:
    """Where the suite says that its runs are."""
    origin = Origin.recorded(results, name)
    try:
        return load(origin.path(results) or origin.file, origin.overrides).wandb or Wandb()
    except EmobenchError:  # its file is not here any more, or changed
        return Wandb()


def _spec(report: Any) -> str:
    """What the library sends to W&B of a report, as JSON."""
    text: str = report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True, indent=1)
    return text + "\n"


def report_of(cells: Sequence[StoredCell], suite: str, project: str, entity: str | None) -> Any:
    """The report of a board as an object of `wandb-workspaces`.

    Args:
        entity: None: the key's own, which W&B is asked for.

    Raises:
        EmobenchError: it is not installed, or a name is none that the runs can be told by.
        StoreError: no cell of the board is finished.
    """
    wr = _library()
    finished = [cell for cell in cells if cell.record is not None and cell.record.evaluation is not None]
    if not finished:
        raise StoreError(f"no cell of {suite} is finished, so there is nothing to show")
    for name in (suite, *(cell.dataset for cell in finished)):
        if "'" in name or "\\" in name:  # the library writes filters as text, and leaves these as they are
            raise EmobenchError(f"{name}: W&B finds no runs by a name with a quotation mark or a backslash; rename it")
    owner = {} if entity is None else {"entity": entity}
    title = f"{suite}: emobench"
    return wr.Report(project=project, title=title[:128], width="fluid", blocks=[*_blocks(wr, finished, suite)], **owner)


def _library() -> Any:
    try:
        import wandb_workspaces.reports.v2 as wr
    except ImportError as error:
        raise EmobenchError(
            f"wandb dashboard needs wandb-workspaces ({error}). Install it: pip install 'emobench[dashboard]'"
        ) from None
    return wr


def _blocks(wr: Any, cells: Sequence[StoredCell], suite: str) -> Iterator[Any]:
    """For each dataset its tracks: the leaderboard, the track's figures, and how the fits went."""
    from wandb_workspaces import expr

    mine = expr.Metric("Group") == suite
    for dataset, size in dict.fromkeys((cell.dataset, cell.size) for cell in cells):
        here = [cell for cell in cells if (cell.dataset, cell.size) == (dataset, size)]
        on_it = (mine, expr.Config("dataset") == dataset, expr.Config("size") == size)
        yield wr.H2(text=f"{dataset}, {size} px")
        for track, metrics in _figures(here).items():
            yield wr.H3(text=tracks()[track].title)
            table = wr.WeavePanelSummaryTable(
                table_name=board_name(track, dataset, size), layout=wr.Layout(w=_WIDE, h=10)
            )
            summary = expr.And(mine, expr.Metric("JobType") == "summary")
            yield wr.PanelGrid(runsets=[wr.Runset(name="the board", filters=summary)], panels=[table])
            panels = [wr.BarPlot(title=metric, metrics=[shown_as(track, metric)]) for metric in metrics]
            yield wr.PanelGrid(runsets=[_runs(wr, here, expr.And(*on_it))], panels=panels)
        yield wr.H3(text="Training")
        curves = [wr.LinePlot(title=" and ".join(names), x="epoch", y=list(names)) for names in _CURVES]
        rates = wr.LinePlot(title="learning rates", x="epoch", metric_regex=_RATES)
        faces = wr.MediaBrowser(title="samples", media_keys=["samples"], layout=wr.Layout(w=_WIDE, h=10))
        yield wr.PanelGrid(runsets=[_runs(wr, here, expr.And(*on_it))], panels=[*curves, rates, faces])


def _runs(wr: Any, cells: Sequence[StoredCell], filters: Any) -> Any:
    """The runs of a dataset by model, and by row where a model has several."""
    rows = {(cell.model, cell.row) for cell in cells}
    several = len(rows) > len({model for model, _ in rows})
    return wr.Runset(
        name=f"{cells[0].dataset}, by model",
        filters=filters,
        groupby=["config.model", *(["config.row"] if several else [])],
    )


def _figures(cells: Sequence[StoredCell]) -> dict[str, list[str]]:
    """Of each track that cells are measured on, the numbers that its board shows and that their runs have."""
    found: dict[str, list[str]] = {}
    for name, track in tracks().items():
        evaluations = [cell.record.evaluation for cell in cells if cell.record is not None]
        measured = [of.tracks[name].values for of in evaluations if of is not None and name in of.tracks]
        known = {metric for values in measured for metric, value in values.items() if value.value is not None}
        shown = dict.fromkeys(column.key.metric for column in track.columns if column.shows == "number")
        if measured:
            found[name] = [metric for metric in shown if metric in known]
    return found
