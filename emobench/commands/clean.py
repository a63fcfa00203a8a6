"""`emobench clean`: list what no board and no running sweep uses, and delete it when told to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from emobench.data.pack import default_cache
from emobench.errors import StoreError, shown
from emobench.runner.usage import Unused, delete, unused


def clean(results: Path, *, dry_run: bool, yes: bool) -> int:
    """List what is not in use, ask, and delete it.

    Returns:
        The exit code: 1 where something could not be deleted.

    Raises:
        StoreError: there are no results, or there is nobody to ask.
    """
    if not any(results.glob("*/suite.json")):
        raise StoreError(
            f"{results}: no board, so nothing tells what is in use. Name the folder of results by --results"
        )
    cache = default_cache()
    items, problems = unused(results, cache)
    total = _list(items)
    if problems:
        print("Not understood, and kept:")
        for path, why in problems.items():
            print(f"  {shown(path)}: {shown(why)}")
    if not items or dry_run:
        return 0
    if any(item.path.is_relative_to(cache) for item in items):
        print(f"{cache} serves all folders of results: what another one uses of it is made again when it is wanted.")
    if not yes and not _asked(f"Delete these {len(items)}, {total}?"):
        print("Nothing is deleted.")
        return 0
    failed = [(item, why) for item, why in delete(results, items, cache) if why is not None]
    for item, why in failed:
        print(f"kept {shown(item.path)}: {shown(why)}", file=sys.stderr)
    print(f"Deleted {len(items) - len(failed)} of {len(items)}.")
    return 1 if failed else 0


def _list(items: Sequence[Unused]) -> str:
    """Print what is not in use; returns its size in all."""
    if not items:
        print("Nothing is unused.")
    for item in items:
        print(f"{_bytes(item.size):>10}  {shown(item.what)}: {shown(item.path)}")
    total = _bytes(sum(item.size for item in items))
    if items:
        print(f"{total:>10}  in all, which no board and no running sweep uses")
    return total


def _asked(question: str) -> bool:
    """Whether somebody at a terminal says yes.

    Raises:
        StoreError: there is no terminal.
    """
    if not sys.stdin.isatty():
        raise StoreError(
            "nothing is deleted, since there is no terminal to ask at. Say --yes, or --dry-run for the list"
        )
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
