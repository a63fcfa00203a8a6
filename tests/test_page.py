"""index.html: what it says, what it shows and to whom, and how it behaves in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import time
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import chromium
from conftest import RESULTS
from perf.scale import finish, planned
from PIL import Image
from reading import pages
from test_judged import Board as Judged
from test_report import Results, numbers, one

from emobench.commands.report import boards
from emobench.data.datasets.synthetic import Synthetic
from emobench.files import read_json, write_json
from emobench.report.html.faces import Allowance, drawn_faces, pictures, sheet_of
from emobench.report.html.write import FILE, PICTURES, Pages, html, inert, write_page
from emobench.report.power import FOUND, power_of
from emobench.report.write import write
from emobench.runner.store import Origin
from emobench.runner.sweep import write_suite
from emobench.suite.file import load

HOSTILE = "</script><img src=x onerror=alert(1)>"
QUOTED = "\"' autofocus onfocus=alert(2) x=`${alert(3)}` <!--"


class Page(HTMLParser):
    """What stands in a page: its elements with their attributes, its data, its script and its text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, str] = {}
        self.words: list[str] = []
        self.within = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self.words += [" "] if tag in ("td", "th", "li", "p", "option", "summary", "h2") else []
        if tag in ("script", "style"):
            self.within = "data" if dict(attributes).get("type") == "application/json" else tag

    def handle_endtag(self, tag: str) -> None:
        self.within = "" if tag in ("script", "style") else self.within

    def handle_data(self, data: str) -> None:
        if self.within:
            self.raw[self.within] = self.raw.get(self.within, "") + data
        else:
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return plain("".join(self.words))

    @property
    def sections(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.raw["data"])["sections"]
        return found


def plain(text: str) -> str:
    return " ".join(text.split())


def paged(board: Any, results: Path) -> Page:
    return Page(write_page(board, results).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """Two models that cannot be told apart and a bad one, three seeds, on nobody's dataset."""
    made = Results(tmp_path_factory.mktemp("page") / "results")
    for seed in range(3):
        made.cell("resnet18", seed, 3.0)
        made.cell("small", seed, 2.9, model="resnet18")
        made.cell("vit", seed, 1.0)
    made.cell("control:permuted", 0, 0.0, model="vit", control="permuted")
    return made.write(), made.folder


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_sentences_and_numbers_are_those_of_the_board(three: tuple[Any, Path]) -> None:
    board, results = three
    page = paged(board, results)
    lines = (board.path.parent / "details-recognition.md").read_text().splitlines()
    assert plain(re.sub("[*`]", "", lines[2])) in page.text
    said = [line for line in lines if line.startswith("- ") and not set("`*") & set(line)]
    assert len(said) > 5
    assert all(plain(line[2:].replace("\\", "")) in page.text for line in said)
    table = numbers(results)
    (section,) = page.sections
    names = [row["name"] for row in section["rows"]]
    ranking = section["rankings"][0]
    for place, (value, low, high) in zip(ranking["rows"], ranking["values"], strict=True):
        row = {"model": "resnet18" if names[place] == "small" else names[place]}
        found = one(table, **row, variant="small" if names[place] == "small" else "", metric="macro_f1", seed="")
        assert [value, low, high] == [float(found[name]) for name in ("value", "low", "high")]
        shown = {button.get("data-interval") for button in page.all("button")}
        assert f"{low:.3f} to {high:.3f}" in shown
    assert {"400 faces"} <= {button.get("data-n") for button in page.all("button")}
    by_seed = next(button["data-seeds"] for button in page.all("button") if "data-seeds" in button)
    assert re.fullmatch(r"0\.\d{3} \(seed 0\), 0\.\d{3} \(seed 1\), 0\.\d{3} \(seed 2\)", str(by_seed))


def test_pairs_and_controls_are_those_of_the_board(three: tuple[Any, Path]) -> None:
    board, results = three
    page = paged(board, results)
    known = json.loads((board.path.parent / "metrics.json").read_text())
    (section,) = page.sections
    ranking = section["rankings"][0]
    names = [section["rows"][place]["name"] for place in ranking["rows"]]
    drawn = {(names[pair[0]], names[pair[1]]): pair for pair in ranking["pairs"]}
    assert len(drawn) == len(known["comparisons"]) == 3
    for pair in known["comparisons"]:
        _, _, difference, low, high, p, seeds_known, certain, borderline, error, _ = drawn[
            pair["first"], pair["second"]
        ]
        assert [difference, low, high, p] == pytest.approx([pair[name] for name in ("difference", "low", "high", "p")])
        assert [seeds_known, certain, borderline] == [pair[name] for name in ("seeds_known", "certain", "borderline")]
        assert error == pytest.approx((high - low) / (2 * 1.96), rel=1e-5)
    assert "Nothing shows whether these numbers can be trusted: no control here can fail." in page.text  # K is 4
    (check,) = known["controls"]
    assert f"permuted recognition, faces, 48 px, seed 0 balanced accuracy {check['value']:.3f}" in page.text
    assert "– cannot fail: 4 emotions have too few names to tell" in page.text


def test_controls_that_could_have_failed_speak_for_the_board(tmp_path: Path) -> None:
    made = Judged(tmp_path)
    made.generator("good", 0.9, edits=0.7)
    page = paged(made.write().board, tmp_path)
    assert len(made.json["controls"]) == 6
    assert "These numbers can be trusted, as far as controls can tell: all 6 score what known faces must." in page.text
    assert page.text.count("✓ as it should be") == 6


def test_a_failing_control_is_said_first(tmp_path: Path) -> None:
    made = Judged(tmp_path)
    folder = made.generator("good", 0.9)
    table = pd.read_parquet(folder / "verdicts.parquet")
    wrong = (table.kind == "real") & (table.half == 1)
    table.loc[wrong, "asked"] = (table.loc[wrong, "asked"] + table.loc[wrong, "person"] // 2 % 2) % 4
    table.to_parquet(folder / "verdicts.parquet", index=False)
    page = paged(made.write().board, tmp_path)
    assert "Trust no number of this board: " in page.text
    assert page.text.index("Trust no number") < page.text.index("A control fails") < page.text.index("Generation on")
    assert "open" in next(each for each in page.all("details"))
    assert {"failed"} == {each["class"].split()[1] for each in page.all("div") if "trust" in str(each.get("class"))}


def test_what_has_no_numbers_is_said(tmp_path: Path) -> None:
    """Pending, failed, skipped and damaged cells, and a board of nothing else."""
    made = Results(tmp_path)
    made.cell("pending")
    assert "nothing is measured yet" in paged(made.write(), tmp_path).text
    made.cell("failed", state="failed", reason="out of memory <b>")
    made.cell("skipped", skipped="no weights & no network")
    made.cell("good", 0, 3.0)
    damaged = made.cell("damaged", 0, 3.0)
    (damaged / "predictions.parquet").write_bytes(b"PAR1")
    made.cell("good", 0, 3.0, dataset="others")
    page = paged(made.write(), tmp_path)
    for said in ("Incomplete", "failed: out of memory <b>", "no weights & no network", "predictions.parquet"):
        assert said in page.text
    assert "Overview of recognition" in page.text
    assert len(page.sections) == 2


def test_the_smallest_difference_and_what_a_wished_one_needs(tmp_path: Path) -> None:
    """Of one seed: as many more people as the square of how much smaller it is."""
    made = Results(tmp_path)
    made.cell("good", 0, 3.0)
    made.cell("near", 0, 2.5)
    (section,) = made.write().sections
    (ranking,) = section.track.rankings
    (pair,) = section.comparisons["macro_f1"]
    power = power_of(section, ranking, pair)
    assert power is not None
    assert power.least == pytest.approx(2.8 * (pair.high - pair.low) / 3.92)
    assert power.times(power.least) == pytest.approx(1)
    assert power.times(power.least / 3) == pytest.approx(9)
    assert (power.seeds, power.spread, FOUND) == (1, None, 2.8)


def test_power_knows_how_far_another_training_moves_committed_classes(tmp_path: Path) -> None:
    made = Results(tmp_path)
    for row, quality in (("resnet18", 3.0), ("vit", 2.5)):
        made.cell(row, 0, quality, dataset="synthetic")
    (section,) = made.write().sections
    (pair,) = section.comparisons["macro_f1"]
    power = power_of(section, section.track.rankings[0], pair)
    assert power is not None
    assert power.spread is None or power.spread > 0


# ---- what is in it ---------------------------------------------------------------------------------------------------


def test_it_loads_nothing_and_runs_its_one_script(three: tuple[Any, Path]) -> None:
    board, results = three
    page = paged(board, results)
    (policy,) = [each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none'; ")
    for what in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.raw[what].encode()).digest()).decode()
        assert f"{what}-src 'sha256-{digest}'" in str(policy)
    assert not {"link", "iframe", "object", "embed", "base", "img", "video", "audio"} & {
        tag for tag, _ in page.elements
    }
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "style", "action"} & set(attributes), tag
        assert not [name for name in attributes if name.startswith("on")], tag
        if (target := attributes.get("href")) is not None:
            assert target.startswith(("#", "./")), target
            assert target.startswith("#") or (results / "demo" / target).exists(), target
    text = (results / "demo" / FILE).read_text(encoding="utf-8")
    assert not re.search(r"(?i)https?://(?!www\.w3\.org/2000/svg)", text)


def test_hostile_names_are_text(tmp_path: Path) -> None:
    made = Results(tmp_path)
    made.cell(HOSTILE, 0, 3.0)
    made.cell(QUOTED, 0, 1.0)
    made.cell("\u202egnp.exe\u2028", 0, 2.0, dataset=HOSTILE)
    board = made.write("<b onclick=alert(4)>")
    pages = Pages(apart=True)
    pages.add(board, tmp_path)
    for page in (paged(board, tmp_path), Page(html(pages, "all"))):
        assert len(page.all("script")) == 2
        assert not page.all("img")
        assert not page.all("b")
        assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
        assert {HOSTILE, QUOTED} <= {row["name"] for section in page.sections for row in section["rows"]}
        assert HOSTILE in page.text
        assert not re.search("[\u202e\u2028]", page.raw["data"] + page.text)


def test_json_in_a_script_element_cannot_end_it() -> None:
    given = {"</script>": ["<!--", "&amp;", "\u2028\u2029", 'a"\\b', 1.5, None]}
    text = str(inert(given))
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == given
    with pytest.raises(ValueError, match="JSON"):
        inert([float("nan")])


def test_a_page_is_a_function_of_its_board(three: tuple[Any, Path]) -> None:
    board, results = three
    before = write_page(board, results).read_bytes()
    assert write_page(write(results, "demo"), results).read_bytes() == before


# ---- whose faces -----------------------------------------------------------------------------------------------------


def generators(folder: Path, *, drawn: bool) -> Any:
    """A board of two generators with pictures; `drawn`: of people that emobench draws, else of somebody's."""
    made = Judged(folder)
    for row, share in (("good", 0.9), ("poor", 0.5)):
        cell = made.generator(row, share, edits=share)
        noise = np.random.default_rng(len(row)).integers(0, 256, (4 * 32, 10 * 32, 3), np.uint8)
        for name, wide in (("edits.webp", 5), ("samples.webp", 10)):
            Image.fromarray(np.ascontiguousarray(noise[:, : wide * 32])).save(cell / name, lossless=True)
        record = read_json_of(cell)
        record["evaluation"]["raw"] |= {"samples": "samples.webp", "edits": "edits.webp"}
        if not drawn:
            del record["evaluation"]["raw"]["edits"]  # as evaluations of real people leave it out
        (cell / "result.json").write_text(json.dumps(record))
    return made


def read_json_of(cell: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((cell / "result.json").read_text())
    return found


def kinds(page: Page) -> dict[str, set[str]]:
    return {
        section["track"]: {each["kind"] for each in section["pictures"] if each["sheet"]} for section in page.sections
    }


def test_real_people_are_in_no_page_unless_the_suite_says_so(tmp_path: Path) -> None:
    made = generators(tmp_path, drawn=False)
    made.write()
    assert kinds(paged(made.board, tmp_path)) == {"generation": {"samples"}, "editing": set()}
    path = tmp_path / "demo" / "suite.json"
    write_json(path, {**read_json(path), "real_faces": True})
    assert kinds(paged(made.board, tmp_path)) == {"generation": {"samples"}, "editing": {"edits"}}


@pytest.mark.parametrize("why", ["copies", "edits what it is given", "pictures of somebody's"])
def test_what_may_be_a_real_face_is_in_no_page(tmp_path: Path, why: str) -> None:
    made = generators(tmp_path, drawn=False)
    for row in made.rows:
        cell = tmp_path / "cells" / row["fit_key"] / row["eval_key"]
        record = read_json_of(cell)
        if why == "copies":
            record["evaluation"]["tracks"]["generation"]["values"]["memorisation"]["value"] = 0.5
        elif why == "edits what it is given":
            record["evaluation"]["draws"] = False
        else:
            record["evaluation"]["outside"] = {"preprocessing": None, "labels": []}
        (cell / "result.json").write_text(json.dumps(record))
    made.write()
    page = paged(made.board, tmp_path)
    assert kinds(page) == {"generation": set(), "editing": set()}
    assert "data:image" not in (tmp_path / "demo" / FILE).read_text(encoding="utf-8")


def test_of_real_datasets_disagreements_are_row_numbers(three: tuple[Any, Path]) -> None:
    board, results = three
    (section,) = paged(board, results).sections
    apart = section["apart"]
    assert apart["picture"] is None
    assert "face0" not in json.dumps(section)  # an id may be a path
    read = {}
    for row in ("resnet18", "small", "vit"):
        (cell,) = [each for each in board.cells if each.row == row and each.seed == 0]
        read[row] = pd.read_parquet(cell.folder / "predictions.parquet").set_index("index")["prediction"]
    names = [section["rows"][place]["name"] for place in apart["rows"]]
    for first, second in (("resnet18", "vit"), ("small", "resnet18")):
        of = {name: apart["read"][names.index(name)][0] for name in (first, second)}
        differ = [number for k, number in enumerate(apart["number"]) if of[first][k] != of[second][k]]
        assert differ == read[first].index[read[first] != read[second]].tolist()


@pytest.mark.parametrize("variant", ["standard", "plain", "hard"])
def test_drawn_test_faces_are_those_of_the_dataset(tmp_path: Path, variant: Any) -> None:
    """Drawn from the numbers in their names, without the dataset and without torch."""
    data = Synthetic(size=32, variant=variant, train=16, val=16, test=40, draw_seed=3, cache=tmp_path)
    rows = data.index().iloc[[3, 20, 40, 71]]
    expected = [np.broadcast_to(face, (3, 32, 32)) for face in data.read_many(rows)]
    made = Results(tmp_path / "results")
    made.cell("resnet18", 0, 3.0)
    (section,) = made.write().sections
    section.size, section.emotions = (
        32,
        data.emotions if hasattr(data, "emotions") else tuple(sorted(set(rows["label"]))),
    )
    labels = np.array([section.emotions.index(label) for label in rows["label"]])
    assert drawn_faces(section, rows["id"].tolist(), labels) is None  # of somebody's folder
    (record,) = section.records
    record.made_of.fit["data"] = {"dataset": "synthetic", "arguments": {"variant": variant, "draw_seed": 3}}
    found = drawn_faces(section, rows["id"].tolist(), labels)
    assert found is not None
    np.testing.assert_array_equal(found, np.stack(expected))
    assert drawn_faces(section, ["test-00000-1", "../../etc/passwd"], labels[:2]) is None


def test_pictures_take_no_more_than_they_may(tmp_path: Path) -> None:
    made = generators(tmp_path, drawn=False)
    made.write()
    (section, _) = made.board.sections
    whole = list(pictures(section, False, Allowance(PICTURES)))
    sizes = [len(each.sheet.webp) for each in whole if each.sheet is not None]
    assert len(sizes) == 2
    allowance = Allowance(sizes[0] + 1)
    some = list(pictures(section, False, allowance))
    assert [each.sheet is not None for each in some] == [True, False]
    assert allowance.left == 1
    pages = Pages(apart=False)
    pages.add(made.board, tmp_path, 0)
    assert "data:image" not in html(pages, "demo")
    assert "samples.webp" in html(pages, "demo")  # a link in its place


def test_enlarged_faces_are_kept_at_their_own_size() -> None:
    small = np.random.default_rng(0).integers(0, 256, (2 * 16, 3 * 16, 3), np.uint8)
    sheet = sheet_of(small.repeat(2, 0).repeat(2, 1), 2, 2)
    assert sheet is not None
    assert (sheet.side, sheet.columns, sheet.lines) == (16, 3, 2)
    with Image.open(io.BytesIO(sheet.webp)) as picture:
        assert picture.size == (48, 32)
    changed = small.repeat(2, 0).repeat(2, 1)
    changed[0, 0] ^= 255
    kept = sheet_of(changed, 2, 2)
    assert kept is not None
    assert kept.side == 32
    assert sheet_of(small[:-1], 2) is None
    assert sheet_of(small[:, :-1], 2) is None


def test_real_faces_is_an_option_of_a_suite(tiny: Path, tmp_path: Path) -> None:
    assert not load(tiny).real_faces
    tiny.write_text(f"real_faces = true\n{tiny.read_text()}")
    suite = load(tiny)
    assert suite.real_faces
    origin = Origin.of(suite, tmp_path / "results")
    plan, _ = planned(tmp_path, 10)
    write_suite(tmp_path / "results", plan, origin)
    assert Origin.recorded(tmp_path / "results", plan.suite).real_faces
    write_suite(tmp_path / "results", plan, replace(origin, real_faces=False))
    assert "real_faces" not in read_json(tmp_path / "results" / plan.suite / "suite.json")


# ---- how large it is, and how long it takes --------------------------------------------------------------------------


@pytest.mark.long
def test_three_hundred_cells_are_a_small_page_in_seconds(tmp_path: Path) -> None:
    plan, origin = planned(tmp_path, 300)
    plan = replace(plan, cells=[cell for cell in plan.cells if cell.control is None])
    results = tmp_path / "results"
    write_suite(results, plan, origin)
    for cell in plan.cells:
        finish(results, cell, 1.0 + 50 * cell.fit["arguments"]["lr"], 400)
    board = write(results, plan.suite)
    assert len(board.wanted) == 300
    started = time.perf_counter()
    path = write_page(board, results)
    assert time.perf_counter() - started < 5
    assert path.stat().st_size < 2e6


def test_the_committed_page_is_that_of_its_board() -> None:
    path = RESULTS / "demo" / FILE
    if not path.exists():
        pytest.skip("the demo's board is not here")
    assert path.stat().st_size < 1e6
    page = Page(path.read_text(encoding="utf-8"))
    known = json.loads((RESULTS / "demo" / "metrics.json").read_text())
    drawn = sum(len(ranking["pairs"]) for section in page.sections for ranking in section["rankings"])
    assert drawn == len(known["comparisons"])
    assert [section["track"] for section in page.sections] == ["recognition", "generation", "editing", "stylization"]
    assert all(section["pictures"] for section in page.sections[1:])


# ---- the commands ----------------------------------------------------------------------------------------------------


def test_report_and_view(
    emobench: Callable[..., int],
    tiny_results: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results, opened = tmp_path / "results", list[str]()
    monkeypatch.setattr(webbrowser, "open", opened.append)
    shutil.copytree(tiny_results, results)
    shutil.copytree(results / "tiny", results / "<other> board")
    page = results / "tiny" / FILE
    assert emobench("view", "tiny", "--results", results) == 0  # it is written first
    assert str(page) in capsys.readouterr().out.splitlines()
    before = page.stat().st_mtime_ns
    assert emobench("view", "tiny", "--results", results) == 0
    assert page.stat().st_mtime_ns == before
    assert emobench("report", "tiny", "--results", results) == 0
    assert page.stat().st_mtime_ns > before
    assert emobench("view", "--results", results) == 0
    assert opened == [page.resolve().as_uri()] * 2 + [(results / FILE).resolve().as_uri()]
    joint = Page((results / FILE).read_text(encoding="utf-8"))
    assert {section["id"].partition("/")[0] for section in joint.sections} == set(boards(results))
    for target in (str(each["href"]) for each in joint.all("a") if str(each.get("href")).startswith("./")):
        assert (results / target.replace("%3C", "<").replace("%3E", ">").replace("%20", " ")).exists(), target


def test_report_wants_one_board_or_all(
    emobench: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([], ["demo", "--all"]):
        assert emobench("report", *arguments, "--results", tmp_path) == 2
        assert "name a board, such as `emobench report demo`, or all of them by --all" in capsys.readouterr().err
    for arguments in (["report", "--all"], ["view"]):
        assert emobench(*arguments, "--results", tmp_path) == 2
        assert "no board is here" in capsys.readouterr().err
    assert emobench("view", "demo", "--results", tmp_path) == 2
    assert "was never run here" in capsys.readouterr().err


def test_a_page_without_a_place_costs_the_page_alone(
    emobench: Callable[..., int], tiny_results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    shutil.copytree(tiny_results, results)
    (results / "tiny" / FILE / "kept").mkdir(parents=True)
    assert emobench("report", "tiny", "--results", results) == 1
    assert f"{results / 'tiny' / FILE} could not be written: " in capsys.readouterr().err
    assert "could not be written" not in pages(results / "tiny")


# ---- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_browser() -> Iterator[Any]:
    """The browser, started once."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def shown(page_browser: Any) -> Iterator[Callable[..., Any]]:
    """`shown(path, "#fragment", **options)` opens a page, which must say nothing on the console and ask for nothing."""
    said: list[str] = []
    contexts: list[Any] = []

    def show(path: Path, fragment: str = "", **options: Any) -> Any:
        contexts.append(page_browser.new_context(viewport={"width": 1280, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: said.append(request.url) if request.url[:5] not in ("file:", "data:") else 0)
        page.goto(path.resolve().as_uri() + fragment)
        return page

    yield show
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture(scope="module")
def board_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets of a hostile name, four rows on the first."""
    made = Results(tmp_path_factory.mktemp("shown") / "results")
    for row, quality in ((HOSTILE, 3.0), ("b-good", 2.5), ("a-bad", 1.0), (QUOTED, 0.5)):
        made.cell(row, 0, quality)
    for seed in range(3):
        made.cell("b-good", seed, 2.0, dataset=f"second {HOSTILE}")
    made.cell("control:permuted", 0, 0.0, model="b-good", control="permuted")
    return write_page(made.write(), made.folder)


def names_in(page: Any, part: str = "#part-0") -> list[str]:
    rows = page.locator(f"{part} > .scroll table tbody tr:visible th")
    return [str(each) for each in rows.all_inner_texts()]


def test_rows_are_sorted(shown: Callable[..., Any], board_page: Path) -> None:
    page = shown(board_page)
    ranked = names_in(page)
    assert ranked[:3] == [HOSTILE, "b-good", "a-bad"]
    page.get_by_role("button", name="model", exact=True).first.click()
    assert names_in(page) == sorted(ranked, key=str.lower)
    head = page.locator("#part-0 > .scroll th[aria-sort]")
    assert head.get_attribute("aria-sort") == "ascending"
    page.locator("#part-0 > .scroll thead button", has_text="accuracy").click()
    assert names_in(page)[0] == HOSTILE  # the best first
    assert head.get_attribute("aria-sort") == "descending"
    page.locator("#part-0 > .scroll thead button", has_text="accuracy").click()
    assert names_in(page)[-1] == HOSTILE


def test_a_link_keeps_filter_order_and_tab(shown: Callable[..., Any], board_page: Path) -> None:
    page = shown(board_page)
    page.select_option("select[name=dataset]", label="faces")
    assert page.locator(".part:visible").count() == 1
    page.fill("input[name=q]", "good")
    assert names_in(page) == ["b-good"]
    assert page.locator(".filters output").inner_text() == "1 of 6 rows"
    page.locator("#part-0 > .scroll thead button", has_text="model").click()
    page.click("#tab-0-differences")
    again = shown(board_page, "#" + page.url.partition("#")[2])
    assert names_in(again) == ["b-good"]
    assert again.locator(".part:visible").count() == 1
    assert again.locator("#panel-0-differences table.matrix").is_visible()
    assert again.locator("#part-0 > .scroll th[aria-sort]").count() == 1
    again.locator(".filters button[type=reset]").click()
    again.locator(".filters output", has_text=re.compile(r"^6 rows$")).wait_for()  # fields are emptied after the event
    page.select_option("select[name=seeds]", label="3")
    page.fill("input[name=q]", "")
    assert page.locator(".none").is_visible()


def test_an_interval_is_shown_on_demand_by_mouse_and_by_key(shown: Callable[..., Any], board_page: Path) -> None:
    page = shown(board_page)
    number = page.locator("#part-0 > .scroll tbody button.n").first
    assert not page.locator("#more").is_visible()
    number.hover()
    said = page.locator("#more").inner_text()
    assert re.search(r"95 % interval\s+0\.\d{3} to 0\.\d{3}", said)
    assert re.search(r"measured on\s+400 faces", said)
    page.mouse.move(0, 0)
    assert not page.locator("#more").is_visible()
    number.focus()
    assert page.locator("#more").is_visible()
    assert number.get_attribute("aria-describedby") == "more"
    page.keyboard.press("ArrowDown")
    below = page.locator("#part-0 > .scroll tbody tr").nth(1).locator("button.n").first
    assert below.evaluate("button => button === document.activeElement")
    assert re.search(r"95 % interval", page.locator("#more").inner_text())
    page.keyboard.press("Escape")
    assert not page.locator("#more").is_visible()


def test_the_faces_on_which_two_models_disagree(shown: Callable[..., Any], board_page: Path) -> None:
    page = shown(board_page)
    page.click("#tab-0-apart")
    panel = page.locator("#panel-0-apart")
    first = panel.locator("p strong").first.inner_text()
    assert re.fullmatch(rf"{re.escape(HOSTILE)} and b-good differ on \d+ of 400 test faces", first)
    panel.locator("select").nth(1).select_option(label="a-bad")
    second = panel.locator("p strong").first.inner_text()
    assert " and a-bad differ on " in second
    (section, *_) = Page(board_page.read_text(encoding="utf-8")).sections
    names, read = [section["rows"][place]["name"] for place in section["apart"]["rows"]], section["apart"]["read"]
    of = [read[names.index(name)][0] for name in (HOSTILE, "a-bad")]
    differ = sum(one != other for one, other in zip(*of, strict=True))
    assert f"differ on {differ} of" in second
    cards = panel.locator("ul.cards > li")
    assert cards.count() == 24
    assert re.search(r"row 1,\d{3}", cards.first.inner_text())
    panel.get_by_role("button", name="Show more").click()
    assert cards.count() == min(72, differ)
    assert not page.locator("img").count()
    again = shown(board_page, "#" + page.url.partition("#")[2])
    assert " and a-bad differ on " in again.locator("#panel-0-apart p strong").first.inner_text()


def test_what_a_wished_difference_needs(shown: Callable[..., Any], board_page: Path) -> None:
    page = shown(board_page)
    page.click("#tab-0-differences")
    panel = page.locator("#panel-0-differences")
    panel.locator("table.matrix tbody tr").first.locator("button").first.click()
    (section, *_) = Page(board_page.read_text(encoding="utf-8")).sections
    error = section["rankings"][0]["pairs"][0][9]
    for wished in (0.01, 0.001):
        panel.locator("input[type=number]").fill(str(wished))
        people = int(np.ceil(100 * (2.8 * error / wished) ** 2 - 1e-9))
        assert f"{people:,} people, now 100" in panel.locator("output").inner_text()
    assert "The smallest difference that this board could have detected is about 0.0" in panel.inner_text()


def test_every_tab_draws_what_it_has(shown: Callable[..., Any], board_page: Path, tmp_path: Path) -> None:
    made = generators(tmp_path, drawn=False)
    for path in (board_page, write_page(made.write().board, tmp_path)):
        page = shown(path)
        for part in page.locator(".part").all():
            for tab in part.locator("[role=tab]").all():
                tab.click()
                panel = part.locator(".panel:visible")
                assert panel.count() == 1
                assert panel.inner_text().strip(), tab.inner_text()
    page = shown(path)
    page.click("#tab-0-faces")
    strips = page.locator("#panel-0-faces .strip img")
    assert strips.count() == 2
    assert str(strips.first.get_attribute("src")).startswith("data:image/webp;base64,")
    assert strips.first.evaluate("image => image.complete && image.naturalWidth") == 320


def test_tabs_are_worked_by_keys(shown: Callable[..., Any], board_page: Path) -> None:
    page = shown(board_page)
    first = page.locator("#part-0 [role=tab]").first
    first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    chosen = page.locator("#part-0 [role=tab][aria-selected=true]")
    assert chosen.count() == 1
    assert chosen.get_attribute("aria-controls") == page.locator("#part-0 .panel:visible").get_attribute("id")
    page.keyboard.press("Enter")
    assert not page.locator("#part-0 .panel:visible").count()


def test_a_table_as_csv(shown: Callable[..., Any], board_page: Path, tmp_path: Path) -> None:
    page = shown(board_page)
    with page.expect_download() as download:
        page.locator("#part-0 .tabs button.quiet").click()
    download.value.save_as(tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["model"].tolist()[0] == HOSTILE
    found = one(numbers(board_page.parents[1]), model=HOSTILE, metric="macro_f1", seed="", dataset="faces")
    assert table["macro F1"][0] == pytest.approx(float(found["value"]), abs=1e-6)
    assert table["macro F1: low"][0] == pytest.approx(float(found["low"]), abs=5e-4)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_and_both_schemes(shown: Callable[..., Any], board_page: Path, scheme: str) -> None:
    page = shown(board_page, color_scheme=scheme)
    page.set_viewport_size({"width": 390, "height": 844})
    for tab in ("differences", "emotions", "confusions", "apart", "cost", "notes"):
        page.click(f"#tab-0-{tab}")
        assert page.evaluate("document.documentElement.scrollWidth") == 390, tab
    for where in ("body", ".answers .rest", "#part-0 .tabs [role=tab]", ".trust summary", ".note"):
        assert page.locator(where).first.evaluate(CONTRAST) >= 4.5, where  # WCAG 2.2, AA


CONTRAST = """
element => {
  const parsed = (text) => text.match(/[\\d.]+/g).map(Number);
  let under = element;
  while (under.parentElement && parsed(getComputedStyle(under).backgroundColor)[3] === 0) under = under.parentElement;
  const light = ([r, g, b]) => [r, g, b].map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, k) => sum + value * [0.2126, 0.7152, 0.0722][k], 0);
  const pair = [getComputedStyle(element).color, getComputedStyle(under).backgroundColor].map(parsed).map(light);
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}
"""


def test_it_prints_on_paper(shown: Callable[..., Any], board_page: Path) -> None:
    page = shown(board_page)
    page.click("#tab-0-differences")
    page.emulate_media(media="print")
    assert not page.locator(".filters").is_visible()
    assert not page.locator(".tabs").first.is_visible()
    assert page.locator("#panel-0-differences table.matrix").is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_without_its_script_the_tables_are_whole(shown: Callable[..., Any], board_page: Path) -> None:
    page = shown(board_page, java_script_enabled=False)
    assert page.locator("#part-0 > .scroll tbody tr").count() == 5
    assert page.locator("#panel-0-notes").is_visible()
    assert "need this page's own script" in page.locator("noscript").inner_text()
