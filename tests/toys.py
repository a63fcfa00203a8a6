"""What is added from outside the package in several tests: an engine, and a distribution with entry points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

ENGINE = '''
from emobench.runner.engines.engine import Engine
from emobench.runner.run import execute


class Here(Engine):
    """Runs a job at once, in the sweep's own process."""

    name = "here"

    def start(self, job):
        return [execute(job)]

    def poll(self, started):
        return started[0]

    def stop(self, started, *, at_once=False):
        pass

    def wait(self, started):
        pass
'''
COSTS = ("fit_seconds", "fit_faces_per_s", "peak_memory_gb", "faces_per_s")  # which differ between two equal runs


def installed(folder: Path, files: Mapping[str, str], points: Sequence[str], name: str = "toys") -> Path:
    """Install a distribution: files, and modules that it names as entry points, in a folder as of site-packages."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    named = "".join(f"{place} = {point}\n" for place, point in enumerate(points))
    (info / "entry_points.txt").write_text(f"[emobench.plugins]\n{named}")
    for path, text in files.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    return folder
