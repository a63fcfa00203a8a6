"""The page of finished networks: what its functions answer, what it is served with, and the page in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from browser import Watched
from PIL import Image
from skimage.data import astronaut

import emobench as package
from emobench.commands.demo import offers_of
from emobench.commands.demo_answers import Answers
from emobench.commands.demo_page import page
from emobench.commands.pictures import larger
from emobench.errors import EmobenchError
from emobench.generators.asking import emotion_rows

Emobench = Callable[..., int]
EMOTIONS = ["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt"]
CHECKOUT = Path(__file__).parents[1]
# The command, in a process that notes whom it asks for an address or a connection.
COMMAND = """
import sys

asked = open(sys.argv.pop(1), "a", buffering=1, encoding="utf-8")

def heard(event, given):
    if event == "socket.getaddrinfo":
        print(given[0], file=asked)
    elif event == "socket.connect" and isinstance(given[1], tuple):
        print(given[1][0], file=asked)

sys.addaudithook(heard)
from emobench.cli import command
command()
"""


@pytest.fixture(scope="module")
def gradio() -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")


@pytest.fixture
def answers(generated: Path) -> Answers:
    return Answers(offers_of([], generated))


@pytest.fixture
def face(generated: Path, tmp_path: Path) -> Path:
    """A picture of one."""
    path = tmp_path / "face.png"
    made = package.load(generated, "made", "vit_cvae").sample(["happy"], [3])[0].numpy()
    Image.fromarray(made.transpose(1, 2, 0)).save(path)
    return path


def enlarged(faces: Any) -> np.ndarray:
    """Faces (n, 3, 32, 32) as the page shows them."""
    return np.stack([larger(np.asarray(face), 8) for face in faces])


def pixels(pictures: list[tuple[np.ndarray, str]]) -> np.ndarray:
    return np.stack([picture for picture, _ in pictures])


# ---- which networks --------------------------------------------------------------------------------------------------


def test_a_board_offers_its_networks_the_best_first(generated: Path) -> None:
    offered = offers_of(["made"], generated)
    assert set(offered["read"]) == {"resnet18", "vit", "cnn21", "vgg16"}
    assert set(offered["draw"]) == {"cvae", "vit_cvae", "diffusion"}
    assert set(offered["edit"]) == {"cvae", "vit_cvae", "diffusion", "stargan"}
    assert offers_of([], generated) == offered
    for verb, metric in (("read", "validation macro F1"), ("draw", "calibrated control")):
        best, *others = offered[verb].values()
        assert metric in best.by
        assert not any(each.by for each in others)
    best_only = offers_of(["best:made/synthetic-plain"], generated)
    assert {verb: [run.row for run in runs.values()] for verb, runs in best_only.items()} == {
        verb: [next(iter(runs))] for verb, runs in offered.items()
    }


def test_networks_are_named_by_row_key_or_file(generated: Path, emobench: Emobench, tmp_path: Path) -> None:
    run, file = "made/synthetic-plain/resnet18", tmp_path / "mine.safetensors"
    assert emobench("export", run, "--to", "safetensors", "--out", file, "--results", generated) == 0
    offered = offers_of([run, "made/synthetic-plain/stargan", str(file)], generated)
    assert set(offered["read"]) == {"resnet18", "mine.safetensors"}
    assert not offered["draw"]
    (editor,) = offered["edit"].values()
    assert offers_of([editor.fit_key[:10]], generated)["edit"].keys() == {"stargan on synthetic-plain, seed 0"}


def test_without_a_name_the_newest_board_with_a_network_is_taken(
    tiny_results: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    shutil.copytree(tiny_results, results)
    shutil.copytree(results / "tiny", results / "newer")
    (results / "broken").mkdir()
    (results / "broken" / "suite.json").write_text("{")
    for name, time in (("tiny", 1e9), ("newer", 2e9), ("broken", 3e9)):
        os.utime(results / name / "suite.json", (time, time))
    ((_, run),) = offers_of([], results)["read"].items()
    assert run.board == "newer"
    assert "passed over: " in capfd.readouterr().err
    shutil.copytree(results / "tiny", results / "demo")
    os.utime(results / "demo" / "suite.json", (1, 1))
    ((_, run),) = offers_of([], results)["read"].items()
    assert run.board == "demo"


def test_where_nothing_is_finished_the_command_is_named(
    gradio: None, generated: Path, emobench: Emobench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(generated / "made", tmp_path / "committed" / "made")
    for run, said in (
        (["--results", tmp_path / "none"], f"To train some: `emobench bench demo --results {tmp_path / 'none'}`"),
        (["--results", tmp_path / "committed"], "no finished network is in"),
        (["made", "--results", tmp_path / "committed"], "To train them here: `emobench bench "),
        (["mode", "--results", generated], "unknown board 'mode': did you mean 'made'?"),
        (["made/synthetic-plain/cvea", "--results", generated], "did you mean 'made/synthetic-plain/cvae'"),
        (["best:made/fer2013", "--results", generated], "Known: best:made/synthetic-plain"),
    ):
        assert emobench("demo", *run, "--no-browser") == 2
        assert said in capfd.readouterr().err


def test_without_gradio_it_says_what_to_install(
    emobench: Emobench, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert emobench("demo") == 2
    assert "pip install 'emobench[demo]'" in capfd.readouterr().err


def test_a_port_that_is_taken_is_named(
    gradio: None, tiny_results: Path, emobench: Emobench, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert emobench("demo", "--port", port, "--no-browser", "--results", tiny_results) == 2
    assert f"--port {port}: not to be had (Address already in use)" in capfd.readouterr().err


# ---- what is answered ------------------------------------------------------------------------------------------------


def test_a_face_is_read_as_predict_reads_it(
    answers: Answers, generated: Path, emobench: Emobench, face: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert emobench("predict", "best:made/synthetic-plain", face, "--format", "json", "--results", generated) == 0
    (expected,) = json.loads(capfd.readouterr().out)
    best = next(iter(answers.offered["read"]))
    ((reading,), said) = answers.read(face, best, False)
    assert reading.emotion == expected["emotion"]
    assert reading.shares == pytest.approx({emotion: expected[emotion] for emotion in EMOTIONS})
    assert said == f"Read by {answers.offered['read'][best].described}."
    readings, _ = answers.read_by_all(face, ["vgg16", best], False)
    assert [each.name for each in readings] == ["vgg16", best]
    assert readings[1].shares == reading.shares != readings[0].shares


def test_faces_are_found_first_where_that_is_asked_for(
    answers: Answers,
    generated: Path,
    emobench: Emobench,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two = np.concatenate([astronaut()[:300, 50:450], astronaut()[:300, 50:450]], 1)
    Image.fromarray(two).save(tmp_path / "two.png")
    run = ["predict", "made/synthetic-plain/resnet18", tmp_path / "two.png", "--detect", "--format", "json"]
    assert emobench(*run, "--results", generated) == 0
    expected = json.loads(capfd.readouterr().out)
    readings, _ = answers.read(tmp_path / "two.png", "resnet18", True)
    assert [each.name for each in readings] == ["face 1", "face 2"]
    for reading, row in zip(readings, expected, strict=True):
        assert reading.shares == pytest.approx({emotion: row[emotion] for emotion in EMOTIONS})
    ((largest,), _) = answers.read_by_all(tmp_path / "two.png", ["resnet18"], True)
    np.testing.assert_array_equal(largest.face, readings[0].face)
    ((whole,), _) = answers.read(tmp_path / "two.png", "resnet18", False)
    assert whole.shares != readings[0].shares
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "skimage.feature", None)
        with pytest.raises(EmobenchError, match=r"pip install 'emobench\[detect\]'"):
            Answers(answers.offered).read(tmp_path / "two.png", "resnet18", True)
    Image.new("RGB", (64, 64), "gray").save(tmp_path / "none.png")
    with pytest.raises(EmobenchError, match="No face was found"):
        answers.read(tmp_path / "none.png", "resnet18", True)
    with pytest.raises(EmobenchError, match="No face was found"):
        answers.edit(tmp_path / "none.png", "stargan", ["sad"], 1.0, 0, True)


def test_a_mixture_is_drawn_by_its_shares_and_intensity(answers: Answers, generated: Path) -> None:
    model = package.load(generated, "made", "vit_cvae")
    pictures, said = answers.draw("vit_cvae", {"happy": 0.3, "surprise": 0.1}, 0.8, 5, 2)
    half = 0.2 * emotion_rows(["neutral"], EMOTIONS)
    half += 0.8 * (0.75 * emotion_rows(["happy"], EMOTIONS) + 0.25 * emotion_rows(["surprise"], EMOTIONS))
    expected = enlarged(model.sample(half.repeat(2, 1), [5, 6]))
    assert np.abs(pixels(pictures).astype(int) - expected).max() <= 1  # the weights are rounded otherwise
    assert [caption for _, caption in pictures] == ["seed 5", "seed 6"]
    assert said.startswith("happy 75 %, surprise 25 %, at 80 % from neutral. Drawn by vit_cvae on")
    pictures, said = answers.draw("vit_cvae", {"sad": 1.0}, 1.0, 0, 1)
    np.testing.assert_array_equal(pixels(pictures), enlarged(model.sample(["sad"], [0])))
    assert said.startswith("sad 100 %. Drawn by")


def test_a_sentence_is_drawn_as_generate_draws_it(
    answers: Answers, generated: Path, emobench: Emobench, tmp_path: Path
) -> None:
    text = "she just heard that she won"
    run = ["generate", "made/synthetic-plain/cvae", "--text", text, "--n", 2, "--seed", 4, "--out", tmp_path / "out"]
    assert emobench(*run, "--results", generated) == 0
    expected = [np.asarray(Image.open(tmp_path / "out" / f"text1-{seed}.png")).transpose(2, 0, 1) for seed in (4, 5)]
    pictures, said, cue = answers.draw_text("cvae", text, 4, 2)
    np.testing.assert_array_equal(pixels(pictures), enlarged(expected))
    assert cue.emotion == "happy"
    assert "'won' happy" in said


def test_generators_draw_one_request_beside_each_other(answers: Answers, generated: Path) -> None:
    sheet, said = answers.draw_by_all(["cvae", "vit_cvae"], "anger", 1.0, 2, 3)
    assert said == ""
    for row in ("cvae", "vit_cvae"):
        for drawn in package.load(generated, "made", row).sample(["anger"] * 3, [2, 3, 4]).numpy():
            wanted = larger(drawn, 4)
            places = np.lib.stride_tricks.sliding_window_view(sheet[0], (1, 128))[:, :, 0]
            found = np.argwhere((places == wanted[0, 0]).all(2))
            assert any(np.array_equal(sheet[:, top : top + 128, left : left + 128], wanted) for top, left in found)


def test_a_face_is_edited_as_edit_edits_it(
    answers: Answers, generated: Path, emobench: Emobench, face: Path, tmp_path: Path
) -> None:
    run = ["edit", "made/synthetic-plain/stargan", face, "--to", "sad", "--to", "fear", "--intensity", 0.5, "--seed", 1]
    assert emobench(*run, "--out", tmp_path / "out", "--results", generated) == 0
    pictures, said = answers.edit(face, "stargan", ["sad", "fear"], 0.5, 1, False)
    assert [caption for _, caption in pictures] == ["as given", "sad, 50 %", "fear, 50 %"]
    names = [face, tmp_path / "out" / "face-sad-0.5.png", tmp_path / "out" / "face-fear-0.5.png"]
    expected = enlarged([np.asarray(Image.open(name)).transpose(2, 0, 1) for name in names])
    np.testing.assert_array_equal(pixels(pictures), expected)
    assert said.startswith("Edited by stargan on synthetic-plain")
    assert "squeezed" not in said
    Image.new("RGB", (64, 32)).save(tmp_path / "wide.png")
    assert "squeezed" in answers.edit(tmp_path / "wide.png", "stargan", ["sad"], 1.0, 0, False)[1]


def test_what_cannot_be_answered_is_said(answers: Answers, face: Path, tmp_path: Path) -> None:
    (tmp_path / "web.png").write_bytes(b"<html>")
    for ask, said in (
        (lambda: answers.read(None, "vit", False), "Choose a picture"),
        (lambda: answers.read(tmp_path / "web.png", "vit", False), r"^web\.png: not an intact image \(a web page\)"),
        (lambda: answers.read(tmp_path / "gone.png", "vit", False), r"^gone\.png: "),
        (lambda: answers.read(face, "cvae", False), "Choose a network"),
        (lambda: answers.read_by_all(face, [], False), "Choose a classifier"),
        (lambda: answers.draw("cvae", {}, 1.0, 0, 1), "Move a slider"),
        (lambda: answers.draw("cvae", {"happy": 1.0}, 1.0, None, 1), "whole number from 0 on"),
        (lambda: answers.draw("cvae", {"happy": 1.0}, 1.0, -1, 1), "whole number from 0 on"),
        (lambda: answers.draw("cvae", {"happy": 1.0}, 1.0, 2**60, 1), "whole number from 0 on"),
        (lambda: answers.draw_text("cvae", "  ", 0, 1), "the cue is empty"),
        (lambda: answers.draw_by_all([], "happy", 1.0, 0, 1), "Choose a generator"),
        (lambda: answers.edit(face, "cvae", [], 1.0, 0, False), "Choose an emotion"),
    ):
        with pytest.raises(EmobenchError, match=said):
            ask()


def test_networks_are_loaded_when_they_are_asked_and_kept(answers: Answers, face: Path) -> None:
    assert answers._loaded.cache_info().currsize == 0
    answers.read(face, "vit", False)
    answers.read(face, "vit", False)
    answers.read(face, "cnn21", False)
    known = answers._loaded.cache_info()
    assert (known.hits, known.misses, known.currsize) == (1, 2, 2)
    assert known.maxsize == 8


def test_with_classifiers_alone_the_other_tabs_say_what_is_lacking(gradio: None, tiny_results: Path) -> None:
    answers = Answers(offers_of([], tiny_results))
    blocks = page(answers, "Board tiny")
    shown = json.dumps([each["props"].get("value") for each in blocks.get_config_file()["components"]])
    for lacking in ("No network here draws faces", "No network here edits faces", "fewer than two generators"):
        assert lacking in shown
    assert "reads faces" not in shown


def test_foreign_names_are_shown_and_do_nothing(answers: Answers, face: Path) -> None:
    from emobench.commands.demo_page import _said, _table

    assert _said("<img src=x>") == "<p class='said' role='status'>&lt;img src=x&gt;</p>"
    ((reading,), _) = answers.read(face, "vit", False)
    hostile = type(reading)("<script>", reading.face, {"<b>": 1.0})
    assert not re.search("<script>|<b>", _table([hostile]))


# ---- how it is served ------------------------------------------------------------------------------------------------


@dataclass
class Served:
    """A demo that runs.

    Attributes:
        folder: where its process keeps temporary files.
        asked: a file of the hosts that its process asked for a connection.
    """

    process: subprocess.Popen[str]
    address: str
    folder: Path
    asked: Path


@pytest.fixture(scope="module")
def served(gradio: None, generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("demo")
    (folder / "tmp").mkdir()
    # What others have set for gradio, and a proxy that nobody answers for, change nothing.
    set_ = {"GRADIO_SHARE": "True", "GRADIO_ANALYTICS_ENABLED": "True", "GRADIO_SERVER_NAME": "0.0.0.0"}
    set_ |= {"http_proxy": "http://192.0.2.1:9", "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(CHECKOUT)}
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(folder / "asked"), "demo", "--port", "0", "--results", str(generated)],
        stdout=subprocess.PIPE, text=True, encoding="utf-8", env={**os.environ, **set_, "DISPLAY": ""}, cwd=folder,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert address is not None, line
    assert line.startswith("Board made, trained on synthetic-plain: ")
    yield Served(process, address[0], folder / "tmp", folder / "asked")
    process.kill()
    process.wait()


def ask(address: str, picture: str) -> dict[str, Any]:
    """What the server says of a file as the picture to be read: the last message of the answer."""
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        event = next(each for each in client.get("/config").json()["dependencies"] if len(each["inputs"]) == 3)
        given = {"path": picture, "meta": {"_type": "gradio.FileData"}}
        body = {"data": [given, "vit", False], "fn_index": event["id"], "session_hash": "here"}
        assert client.post("/gradio_api/queue/join", json=body).status_code == 200
        with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "here"}) as stream:
            for line in stream.iter_lines():
                message: dict[str, Any] = json.loads(line.removeprefix("data: ") or "{}")
                if message.get("msg") == "process_completed":
                    return message
    raise AssertionError("no answer")


def test_it_is_served_to_this_machine_alone(served: Served) -> None:
    with httpx.Client(base_url=served.address, trust_env=False, timeout=60) as client:
        shown = client.get("/")
        assert shown.status_code == 200
        assert shown.headers["content-security-policy"].startswith("default-src 'self' ")
        assert not re.search(r"preconnect|dns-prefetch", shown.text)
        config = client.get("/config").json()
        assert client.get("/", headers={"Host": "faces.example"}).status_code == 400  # a name that was turned to here
    assert config["analytics_enabled"] is False
    assert not config.get("run_history")
    assert config["footer_links"] == []
    port = int(served.address.rpartition(":")[2])
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    listening = [local for _, local, _, state, *_ in sockets if local.endswith(f":{port:04X}") and state == "0A"]
    assert listening == [f"0100007F:{port:04X}"]


def test_only_uploaded_files_are_read(served: Served, face: Path) -> None:
    assert ask(served.address, str(face))["success"] is False
    with httpx.Client(base_url=served.address, trust_env=False, timeout=60) as client:
        assert client.get(f"/gradio_api/file={face}").status_code == 403
        (path,) = client.post("/gradio_api/upload", files={"files": ("face.png", face.read_bytes())}).json()
    answer = ask(served.address, path)
    assert answer["success"] is True
    assert "class='bars'" in answer["output"]["data"][0]


def test_a_page_in_a_browser_draws_and_reads_a_face(
    served: Served, generated: Path, watched: Watched, answers: Answers, tmp_path: Path
) -> None:
    page = watched.page
    page.goto(served.address)
    page.get_by_role("tab", name="Draw a face").click()
    page.get_by_role("button", name="Draw the mixture").click()
    faces = page.locator(".faces img")
    faces.nth(7).wait_for()
    drawn = tmp_path / "drawn.png"
    drawn.write_bytes(page.request.get(faces.first.get_attribute("src")).body())
    best = next(iter(answers.offered["draw"]))
    expected = enlarged(package.load(generated, "made", best).sample(["happy"] * 8, list(range(8))))[0]
    shown = np.asarray(Image.open(drawn).convert("RGB")).transpose(2, 0, 1)
    assert np.abs(shown.astype(int) - expected).max() <= 1  # another process
    page.get_by_role("button", name="Draw it").click()
    page.get_by_text("the cue is empty").wait_for()

    page.get_by_role("tab", name="Read a face").click()
    page.locator("input[type=file]").first.set_input_files(drawn)
    page.get_by_role("button", name="Read", exact=True).click()
    page.locator(".bars .best").wait_for()
    ((reading,), _) = answers.read(drawn, next(iter(answers.offered["read"])), False)
    lines = page.locator(".bars tr").all_inner_texts()
    assert [line.split()[0] for line in lines] == EMOTIONS
    shares = [float(line.split()[1]) for line in lines]
    assert shares == pytest.approx([100 * share for share in reading.shares.values()], abs=1)

    (tmp_path / "web.png").write_bytes(b"<html>")
    page.get_by_label("Remove Image").click()
    page.locator("input[type=file]").first.set_input_files(tmp_path / "web.png")
    page.get_by_role("button", name="Read", exact=True).click()
    page.get_by_text("web.png: not an intact image (a web page)").wait_for()
    assert watched.elsewhere == []
    assert watched.errors == []


def test_it_ends_in_order_and_leaves_nothing(served: Served, face: Path) -> None:
    with httpx.Client(base_url=served.address, trust_env=False, timeout=60) as client:
        (path,) = client.post("/gradio_api/upload", files={"files": ("face.png", face.read_bytes())}).json()
    (own,) = served.folder.glob("emobench-demo-*")
    assert Path(path).is_relative_to(own)
    assert Path(path).read_bytes() == face.read_bytes()
    assert own.stat().st_mode & 0o077 == 0  # nobody else's to read
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(60) == 128 + signal.SIGTERM
    assert list(served.folder.iterdir()) == []
    assert set(served.asked.read_text().split()) <= {"127.0.0.1"}
