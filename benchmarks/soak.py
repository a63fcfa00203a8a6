"""Soak: a suite of small cells while something random happens to it every 20 seconds, on the engines local and ray.

Processes are killed and paused, the disk is filled, files are damaged and removed, nodes go away. Whatever happens, the
same command is typed again until all cells are done; then all weights and all answers must equal those of an
undisturbed run, byte for byte. Weights that were removed or cut short after the last cell that
needed them was done stay so, and are left out. `make soak` writes results/checks/soak.md.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

EVERY = 20.0  # seconds between two disturbances
PAUSE = 8.0  # seconds that a process is paused, or the disk is full
SIZE = 256  # MiB of the file system that is filled
RUNS = 60  # times that the command is typed again in a round, at most
ENGINES = ("local", "ray")

SUITE = """
seeds = [0, 1, 2, 3]
panel = ["resnet18", "vit"]
reader = "cnn21"

[data.synthetic-plain]
size = 32
train = 320
val = 80
test = 640

[evaluation]
fidelity = 320
per_emotion = 4
sources = 8
intensity = 2

[model.resnet18]
width = 0.125
batch = 32
epochs = 30
patience = "none"

[model.vit]
class = "vit-full"
weights = "none"
size = 32
dim = 32
depth = 1
heads = 2
patch = 8
batch = 32
epochs = 30
patience = "none"

[model.cnn21]
padding = true
size = 32
dense = [32, 16]
batch = 32
epochs = 20
patience = "none"

[model.ensemble]
needs = { members = ["resnet18", "cnn21"] }

[model.cvae]
size = 32
width = 8
latent = 8
perceptual = "none"
epochs = 20
"""

Processes = dict[tuple[int, int], str]  # id and the time of its start, since ids are given again -> command line

# ---- what is compared ------------------------------------------------------------------------------------------------


def raw_files(results: Path) -> dict[str, str]:
    """Weights and answers: path below the results -> SHA-256."""
    paths = [*results.glob("cells/*/weights.safetensors"), *results.glob("cells/*/*/*.parquet")]
    paths = [path for path in paths if not path.parent.name.startswith("attempt-")]
    return {str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def processes_of(results: Path) -> list[int]:
    """Processes of cells that keep their results there: those with its log open."""
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdecimal():
                opened = [os.readlink(each) for each in (process / "fd").iterdir()]
                if any(each.startswith(str(results)) and each.endswith("log.txt") for each in opened):
                    found.append(int(process.name))
    return found


def running(*roots: int) -> Processes:
    """The processes with these ids and all below them; not those that have ended and were not waited for."""
    found: dict[int, tuple[int, tuple[int, int], str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if state not in "ZX":
                found[int(folder.name)] = int(parent), (int(folder.name), int(rest[17])), command
    below = set(roots)
    while more := {pid for pid, (parent, *_) in found.items() if parent in below} - below:
        below |= more
    return dict(found[pid][1:] for pid in below if pid in found)


def workers(*names: str) -> list[int]:
    """Ray's workers with such names, in the clusters that this process has started."""
    return [pid for (pid, _), command in running(os.getpid()).items() if command.startswith(names)]


# ---- what happens ----------------------------------------------------------------------------------------------------


class Round:
    """One run of the suite to its end, and what is done to it."""

    def __init__(self, folder: Path, engine: str, cluster: Any, chance: random.Random) -> None:
        self.folder, self.engine, self.cluster, self.chance = folder, engine, cluster, chance
        self.results = folder / "results"
        self.process: subprocess.Popen[bytes] | None = None
        self.done: Counter[str] = Counter()
        self.typed = 0
        self.harmed: set[str] = set()  # weights that were removed or cut short, by their paths below the results

    def run(self, until: float) -> bool:
        """Type the command again until all cells are done; returns whether they are."""
        while self.typed < RUNS:
            self.typed += 1
            self.process = self._start()
            following = time.monotonic() + EVERY
            while self.process.poll() is None:
                time.sleep(0.2)
                if time.monotonic() > following:
                    if time.monotonic() < until:
                        self._disturb()
                    following = time.monotonic() + EVERY
            if self.process.returncode == 0:
                return True
        return False

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "emobench", "bench", str(self.folder / "soak.toml"), "--offline"]
        command += ["--results", str(self.results), "--engine", self.engine]
        if self.engine == "ray":
            command += ["--address", self.cluster.address]
        else:
            command += ["--per-node", str(len(os.sched_getaffinity(0)))]
        with open(self.folder / "log.txt", "ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def _disturb(self) -> None:
        kinds: dict[str, Callable[[], bool]] = {
            "a cell's process killed": self._kill_a_cell,
            "the sweep killed": self._kill_the_sweep,
            "the sweep asked to end": self._end_the_sweep,
            "a cell's process paused": self._pause_a_cell,
            "the disk filled": self._fill,
            "weights or checkpoints removed": lambda: self._harm(remove=True),
            "a record, checkpoint or weights cut short": lambda: self._harm(remove=False),
        }
        if self.engine == "ray":
            kinds["a node lost, and another one joined"] = self._lose_a_node
            kinds["a Ray worker killed"] = self._kill_a_worker
        kind = self.chance.choice(sorted(kinds))
        if kinds[kind]():
            self.done[kind] += 1
            print(f"  {self.engine}: {kind}", flush=True)

    def _kill_a_cell(self) -> bool:
        cells = processes_of(self.results)
        return bool(cells) and _send(self.chance.choice(cells), signal.SIGKILL)

    def _pause_a_cell(self) -> bool:
        cells = processes_of(self.results)
        if not cells or not _send(cell := self.chance.choice(cells), signal.SIGSTOP):
            return False
        time.sleep(PAUSE)
        return _send(cell, signal.SIGCONT)

    def _kill_the_sweep(self) -> bool:
        return self.process is not None and _send(self.process.pid, signal.SIGKILL)

    def _end_the_sweep(self) -> bool:
        return self.process is not None and _send(self.process.pid, self.chance.choice([signal.SIGINT, signal.SIGTERM]))

    def _fill(self) -> bool:
        """All that is free, for some seconds; only on a file system of its own."""
        if not os.path.ismount(self.folder):
            return False
        ballast = self.folder / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb") as file:
            while True:
                file.write(b"\0" * 2**20)
                file.flush()
        time.sleep(PAUSE)
        ballast.unlink()
        return True

    def _harm(self, *, remove: bool) -> bool:
        names = ["weights.safetensors", "checkpoints/*.ckpt"]
        names += [] if remove else ["fit.json", "*/result.json", "commit.json"]
        paths = [path for name in names for path in self.results.glob(f"cells/*/{name}")]
        if not paths:
            return False
        path = self.chance.choice(sorted(paths))
        with contextlib.suppress(OSError):
            if remove:
                path.unlink()
            else:
                os.truncate(path, path.stat().st_size // 2)
            if path.name == "weights.safetensors":
                self.harmed.add(str(path.relative_to(self.results)))
            return True
        return False

    def equals(self, expected: dict[str, str]) -> bool:
        """Whether all files are those of the undisturbed run; names those that are not."""
        from emobench.runner.store import intact

        found = raw_files(self.results)
        others = {name for name in expected.keys() | found.keys() if found.get(name) != expected.get(name)}
        others -= {name for name in self.harmed if not intact(self.results / name)}
        for name in sorted(others):
            print(f"  differs: {name}", flush=True)
        return not others

    def _lose_a_node(self) -> bool:
        nodes = [node for node in self.cluster.list_all_nodes() if node is not self.cluster.head_node]
        self.cluster.remove_node(self.chance.choice(nodes))
        self.cluster.add_node(num_cpus=1)
        return True

    def _kill_a_worker(self) -> bool:
        found = workers("ray::emobench", "ray::Node")
        return bool(found) and _send(self.chance.choice(found), signal.SIGKILL)


def _send(process: int, number: signal.Signals) -> bool:
    try:
        os.kill(process, number)
    except OSError:
        return False
    return True


# ---- the whole -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of its own in a folder, where that may be mounted; whether it is."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "soak", str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def two_nodes() -> Iterator[Any]:
    """A Ray cluster of two nodes on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0, help="of what happens, and when")
    parser.add_argument("--out", type=Path, default=Path("results/checks/soak.md"))
    given = parser.parse_args()
    began = time.monotonic()
    until = began + given.minutes * 60
    chance = random.Random(given.seed)
    rounds: list[tuple[Round, bool, bool]] = []
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        (folder / "soak.toml").write_text(SUITE, encoding="utf-8")
        calm = Round(folder, "local", None, chance)
        if not calm.run(until=0.0):
            print((folder / "log.txt").read_text(encoding="utf-8"))
            return 1
        expected = raw_files(calm.results)
        print(f"undisturbed: {len(expected)} files in {timedelta(seconds=round(time.monotonic() - began))}", flush=True)
        while time.monotonic() < until:
            engine = ENGINES[len(rounds) % 2]
            place = folder / f"round-{len(rounds)}"
            with small_disk(place), two_nodes() if engine == "ray" else contextlib.nullcontext() as cluster:
                (place / "soak.toml").write_text(SUITE, encoding="utf-8")
                one = Round(place, engine, cluster, chance)
                ended = one.run(until)
                equal = ended and one.equals(expected)
                rounds.append((one, ended, equal))
                print(f"round {len(rounds)}, {engine}: typed {one.typed} times, equal: {equal}", flush=True)
                if not equal:
                    shutil.copytree(
                        place, Path(tempfile.gettempdir()) / f"soak-failed-{len(rounds)}", dirs_exist_ok=True
                    )
    write(given.out, rounds, len(expected), time.monotonic() - began, given)
    return 0 if rounds and all(equal for _, _, equal in rounds) else 1


def write(out: Path, rounds: list[tuple[Round, bool, bool]], files: int, seconds: float, given: Any) -> None:
    """The page: what was done, and what was survived."""
    from emobench.runner.machine import hardware, versions

    kinds = sorted({kind for one, _, _ in rounds for kind in one.done})
    lines = ["# Soak", ""]
    lines.append(
        f"A suite of small cells (classifiers, an ensemble and a generator, four seeds), disturbed every {EVERY:.0f} s "
        f"for {timedelta(seconds=round(seconds))}: {sum(sum(one.done.values()) for one, _, _ in rounds)} disturbances "
        f"in {len(rounds)} rounds. Each round goes on, by the same command typed again, until all cells are done; then "
        f"the {files} files of weights and answers are compared with those of an undisturbed run, byte for "
        "byte; weights that were harmed after the last cell that needed them was done are left out."
    )
    equal = sum(equal for _, _, equal in rounds)
    lines += ["", f"**{equal} of {len(rounds)} rounds ended with the very files of the undisturbed run.**", ""]
    lines += [f"| disturbance | {' | '.join(ENGINES)} |", f"| --- |{' ---: |' * len(ENGINES)}"]
    for kind in kinds:
        counts = [sum(one.done[kind] for one, _, _ in rounds if one.engine == engine) for engine in ENGINES]
        lines.append(f"| {kind} | {' | '.join(map(str, counts))} |")
    typed = [sum(one.typed for one, _, _ in rounds if one.engine == engine) for engine in ENGINES]
    number = [sum(one.engine == engine for one, _, _ in rounds) for engine in ENGINES]
    lines.append(f"| rounds | {' | '.join(map(str, number))} |")
    lines.append(f"| times that the command was typed | {' | '.join(map(str, typed))} |")
    command = f"make soak ARGS='--minutes {given.minutes:g} --seed {given.seed}'"
    lines += [
        "",
        f"{hardware().named}; emobench {versions().commit}. Repeat: `{command}`.",
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
