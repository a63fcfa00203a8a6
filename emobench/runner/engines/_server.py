"""Imported by the fork server before all else, and by nothing else: leaves the process group of the sweep.

A signal to the whole group (a terminal's Ctrl-C, `timeout`, a batch system) then reaches the sweep alone, which ends
its cells in order, and not the server, without which the sweep would not learn how they end.

It also reads the package for the digests of its code, which every cell asks for. No garbage is collected until all is
imported: there is next to none, and looking for it took a third of the time.
"""

import gc
import os

gc.disable()

from emobench.definitions.roots import current  # noqa: E402

os.setpgid(0, 0)
current().changes()
