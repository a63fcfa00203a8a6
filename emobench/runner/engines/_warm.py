"""Imported by the fork server: every model and dataset, so that each cell starts with all of them there.

Files that cannot be imported are passed over; who wants what they hold has been refused by then.
"""

import contextlib

from emobench.errors import SuiteError
from emobench.suite.catalog import classes

with contextlib.suppress(SuiteError):
    classes("model")
    classes("dataset")
