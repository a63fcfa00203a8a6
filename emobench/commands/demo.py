"""`emobench demo`: a page on this machine, on which finished networks read, draw and edit faces.

Nothing leaves the machine: the page is answered for this machine's own names alone, tells browsers to load nothing from
elsewhere, and gradio's analytics and history are off. Pictures that it is given lie in a folder of their own, which is
removed at the end.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import webbrowser
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import hexdigits
from typing import Any

from emobench.commands.bench import option_of
from emobench.commands.demo_answers import Answers
from emobench.commands.demo_page import STYLE, page
from emobench.commands.pictures import note
from emobench.commands.runs import ANYTHING, Run, chosen, offers
from emobench.data.readers.files import MOST
from emobench.errors import EmobenchError, StoreError, unknown
from emobench.exported import is_exported
from emobench.runner.store import Origin

VERBS = ("read", "draw", "edit")
HOST = "127.0.0.1"
_NAMES = [HOST, "localhost"]  # by which a browser on this machine may ask: no other site's name leads here
# A page of gradio has scripts and styles in itself; whatever is loaded is loaded from here.
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"
_DEFAULT = "demo"  # the board, where no network is named


def demo(named: Sequence[str], results: Path, *, port: int, browser: bool) -> None:
    """Serve the page until it is ended by Ctrl-C or SIGTERM.

    Args:
        named: boards, or networks (see `emobench.commands.runs.chosen`); none: the board `demo`, else the newest one
            with a network that is here.
        port: 0: any that is free.
        browser: open the page in it.

    Raises:
        EmobenchError: gradio is not installed, or the port is taken.
        StoreError: there is no such board or network, or none of it is finished here.
    """
    with _ended_in_order(), _folder_of_its_own():
        _check_gradio()
        offered = offers_of(named, results)
        with _listening(port) as ours:
            app = _app(page(Answers(offered), _title(offered)))
            address = f"http://{HOST}:{ours.getsockname()[1]}"
            print(f"{_title(offered)}: {address} (Ctrl-C ends it)", flush=True)
            if browser and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):  # else one in the terminal
                webbrowser.open(address)
            _serve(app, ours)


def _check_gradio() -> None:
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise EmobenchError(f"the demo needs gradio ({error}): pip install 'emobench[demo]'") from error


# Which networks


def offers_of(named: Sequence[str], results: Path) -> dict[str, dict[str, Run]]:
    """Verb -> the networks that do it, by the shortest names that tell them apart; the best comes first.

    Raises:
        StoreError: as of `demo`.
    """
    found: dict[str, dict[tuple[object, ...], Run]] = {verb: {} for verb in VERBS}
    for runs in [_of_name(name, results) for name in named] or [_of_default(results)]:
        for verb in VERBS:
            for run in runs[verb]:
                found[verb].setdefault(_network(run), run)
    every = {network: run for of in found.values() for network, run in of.items()}
    names = dict(zip(every, _names(list(every.values())), strict=True))
    return {verb: {names[network]: run for network, run in of.items()} for verb, of in found.items()}


def _network(run: Run) -> tuple[object, ...]:
    """Which network it is, by whatever score it may have been chosen."""
    return run.file, run.fit_key, run.dataset, run.board


def _of_name(name: str, results: Path) -> dict[str, list[Run]]:
    """The networks of a board, or the one that is named; `best:` means the best for each verb."""
    if (results / name / "suite.json").is_file():
        runs = {verb: offers(results, name, verb) for verb in VERBS}
        if not any(runs.values()):
            raise StoreError(
                f"{name}: none of its networks that read, draw or edit faces is in {results}. To train them here: "
                f"`{Origin.recorded(results, name).command(name)}`"
            )
        return runs
    if "/" not in name and not is_exported(name) and not set(name) <= set(hexdigits):
        raise StoreError(unknown("board", name, _boards(results)))
    runs = {}
    for verb in VERBS:
        try:
            runs[verb] = [chosen(results, name, verb)]
        except StoreError:
            runs[verb] = []
    if not any(runs.values()):
        run = chosen(results, name, ANYTHING)  # which says what is wrong with the name
        raise StoreError(f"{run.label}: neither reads, draws nor edits faces, which is what the demo shows")
    return runs


def _of_default(results: Path) -> dict[str, list[Run]]:
    """The networks of the board `demo`, else of the newest one that has any here."""
    for board in sorted(_boards(results), key=lambda board: (board != _DEFAULT, -_written(results, board))):
        try:
            runs = {verb: offers(results, board, verb) for verb in VERBS}
        except StoreError as error:
            note(f"passed over: {error}")
            continue
        if any(runs.values()):
            return runs
    command = f"emobench bench {_DEFAULT}{option_of(results)}"
    raise StoreError(f"no finished network is in {results}. To train some: `{command}`")


def _boards(results: Path) -> list[str]:
    return [path.parent.name for path in results.glob("*/suite.json")]


def _written(results: Path, board: str) -> float:
    return (results / board / "suite.json").stat().st_mtime


def _names(runs: Sequence[Run]) -> list[str]:
    """The shortest names that tell all networks apart: of rows, or where and of what they are, too."""
    forms: tuple[Callable[[Run], str], ...] = (
        lambda run: run.row or (run.label if run.file is None else run.file.name),
        lambda run: run.label,
        lambda run: f"{run.label} ({run.file or run.board or run.fit_key})",
    )
    for form in forms:
        names = [form(run) for run in runs]
        if len(set(names)) == len(names):
            break
    return names


def _title(offered: Mapping[str, Mapping[str, Run]]) -> str:
    """Of which boards, files and datasets the networks are."""
    runs = [run for of in offered.values() for run in of.values()]
    boards = dict.fromkeys(f"Board {run.board}" if run.board else run.label for run in runs)
    datasets = dict.fromkeys(run.dataset for run in runs)
    return f"{', '.join(boards)}, trained on {', '.join(datasets)}"


# How it is served


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    """A socket on which this machine, and no other, can ask; before anything else is built."""
    with socket.socket() as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was left a moment ago is free
        try:
            ours.bind((HOST, port))
        except OSError as error:
            raise EmobenchError(f"--port {port}: not to be had ({error.strerror}). --port 0 takes a free one") from None
        ours.listen()  # who asks before the page is built waits for it
        yield ours


@contextmanager
def _folder_of_its_own() -> Iterator[None]:
    """A folder for pictures that are given and made, which is removed at the end; gradio is imported in it."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="emobench-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield
        finally:
            del os.environ["GRADIO_TEMP_DIR"]
            if before is not None:
                os.environ["GRADIO_TEMP_DIR"] = before


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM and a terminal that closes end the process by way of every `finally`, and Ctrl-C is no error."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: sys.exit(128 + number)) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        print("ended")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _app(blocks: Any) -> Any:
    """The page as an application that a server can run."""
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=_NAMES), Middleware(_FromHereOnly)]
    font = gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700))  # of 600, gradio has no more than some letters
    return gr.mount_gradio_app(
        FastAPI(openapi_url=None, middleware=guards),
        blocks,
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=MOST,
        theme=gr.themes.Default(primary_hue="blue", font=(font, "sans-serif")),
        css=STYLE,
    )


class _FromHereOnly:
    """Says with every answer that a browser may load nothing from anywhere else."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"content-security-policy", _POLICY.encode())]}
            await send(message)

        await self.app(scope, receive, sent)


def _serve(app: Any, ours: socket.socket) -> None:
    """Answer until a signal comes; answers that are under way then have two seconds."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    server.run(sockets=[ours])
