"""The code behind a number: the definitions that some roots reach, and one digest of them.

A definition is a statement at the top level of a file: a function, a class, a constant, an `if` or `try` with all its
branches. Its names are resolved through the bindings of its file (imports, those inside functions too) to further
definitions, by reading alone: nothing is imported. What cannot be resolved counts as a whole file, or as the whole
package. So the digest may change where no number does, never the other way round.

The digest knows a definition by its content and by what its names refer to, not by the file that it lies in: moving or
renaming a file changes nothing. Neither do docstrings, comments, annotations of functions and of their variables,
blocks under `TYPE_CHECKING`, and the texts of errors (strings inside `raise`, messages of `assert`). Names of other
libraries are leaves. It is the same on every supported Python, since syntax trees are written out here.

Needs the standard library alone.
"""

from __future__ import annotations

from emobench.definitions.code import PACKAGE, Code, NoDefinition, Reached, Root

__all__ = ["PACKAGE", "Code", "NoDefinition", "Reached", "Root"]
