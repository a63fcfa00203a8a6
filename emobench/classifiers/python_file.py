"""`python:FILE.py:NAME`: a callable of somebody's own file that reads emotions."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor

from emobench.classifiers.outside import OutsideArguments, OutsideClassifier
from emobench.errors import SuiteError, first_line


class PythonFile(OutsideClassifier):
    """A callable: faces uint8 (N, 3, side, side), a numpy array, to probabilities or logits (N, M).

    It is run because the user named it. Its key holds its file, the modules of its folder that it imports, and what
    `reads` names.

    Args:
        reference: the file and the name in it, as `my_model.py:predict`; a class is built without arguments.
        reads: further files that it reads, such as its weights.
    """

    name = "python"
    family = "reference"
    files = ("reference",)
    source = "the file's own"
    uint8 = True

    def __init__(
        self,
        *,
        emotions: Sequence[str],
        size: int,
        reference: str,
        reads: list[str] | None = None,
        **outside: Unpack[OutsideArguments],
    ) -> None:
        super().__init__(emotions=emotions, size=size, **outside)
        self.call: Callable[[np.ndarray], Any] | None = None  # set by who builds it to be asked, which runs its file

    @classmethod
    def known(cls, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        path, _ = parts_of(arguments["reference"])
        for each in arguments.get("reads") or []:
            if not Path(each).expanduser().exists():
                raise SuiteError(f"reads: {each}: no such file or folder")
        modules(path)
        return {}

    @classmethod
    def inputs(cls, arguments: Mapping[str, Any]) -> dict[str, list[Path | str]]:
        path, _ = parts_of(arguments["reference"])
        named = [Path(each).expanduser() for each in arguments.get("reads") or []]
        return {"reference": [*modules(path)], **({"reads": [*named]} if named else {})}

    @classmethod
    def located(cls, arguments: Mapping[str, Any]) -> list[str]:
        return ["reference", *(["reads"] if arguments.get("reads") else [])]

    @classmethod
    def shown(cls, arguments: Mapping[str, Any]) -> dict[str, Any]:
        reads = arguments.get("reads")
        named = None if reads is None else [Path(each).name for each in reads]
        return {**arguments, "reference": cls.title(arguments), "reads": named}

    @classmethod
    def title(cls, arguments: Mapping[str, Any]) -> str:
        path, name = parts_of(arguments["reference"])
        return f"{path.name}:{name}"

    def own(self, pixels: Tensor) -> Tensor:
        """Faces uint8 (N, C, side, side) to what the callable says of them (N, M)."""
        assert self.call is not None
        try:
            found = self.call(np.ascontiguousarray(pixels.cpu().numpy()))
        except Exception as error:
            raise SuiteError(
                f"{self.title(self.hparams)} failed: {type(error).__name__}: {first_line(error)}"
            ) from error
        answers = np.asarray(found.detach().cpu() if isinstance(found, Tensor) else found, np.float32)
        if answers.ndim != 2 or len(answers) != len(pixels):
            raise SuiteError(
                f"{self.title(self.hparams)} gave {answers.shape} for {len(pixels)} faces; (N, classes) is expected"
            )
        return torch.from_numpy(answers)


def parts_of(reference: str) -> tuple[Path, str]:
    """The file, and the name in it.

    Raises:
        SuiteError: it is written otherwise, or there is no such file.
    """
    path, _, name = reference.rpartition(":")
    if not path.endswith(".py") or not name.isidentifier():
        raise SuiteError(f"python:{reference}: is written as python:FILE.py:NAME")
    file = Path(path).expanduser()
    if not file.is_file():
        raise SuiteError(f"python:{reference}: no file {file}")
    return file, name


def modules(path: Path) -> list[Path]:
    """A file and the modules of its folder that it imports, directly or not; nothing is run.

    Raises:
        SuiteError: one of them is no Python.
    """
    found = [path]
    for each in found:  # which grows meanwhile
        try:
            tree = ast.parse(each.read_bytes(), str(each))
        except (SyntaxError, ValueError) as error:
            raise SuiteError(f"{each}: is no Python ({first_line(error)})") from None
        names: list[str] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names += [node.module] if node.module else []
                names += [f"{node.module}.{alias.name}" if node.module else alias.name for alias in node.names]
        for name in names:
            place = path.parent.joinpath(*name.split("."))
            for candidate in (place.with_suffix(".py"), place / "__init__.py"):
                if candidate.is_file() and candidate not in found:
                    found.append(candidate)
    return found
