"""Which suite `make bench` runs: the one that is named, else what the hardware can bear; says which and why."""

from __future__ import annotations

import shutil
import subprocess
import sys

from emobench.suite.file import is_file, packaged


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs that the driver sees."""
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return [line for line in listed.stdout.splitlines() if line.startswith("GPU")] if listed.returncode == 0 else []


def main() -> None:
    named = [argument for argument in sys.argv[1:] if argument != "--quiet"]
    if named:
        suite, why = named[0], "SUITE names it"
        suite = suite if is_file(suite) or suite in packaged() else f"benchmarks/{suite}.toml"
    elif found := gpus():
        suite, why = "gpu", f"{len(found)} GPU found; SUITE=full takes days"
    else:
        suite, why = "demo", "no NVIDIA GPU found; SUITE=gpu runs larger networks, slowly"
    print(suite if "--quiet" in sys.argv else f"Running {suite} ({why})")


if __name__ == "__main__":
    main()
