"""Imported by the fork server before all else, and by nothing else: leaves the process group of the sweep.

A signal to the whole group (a terminal's Ctrl-C, `timeout`, a batch system) then reaches the sweep alone, which ends
its cells in order, and not the server, without which the sweep would not learn how they end.

It also reads the package for the digests of its code, which every cell asks for. No garbage is collected until all is
imported: there is next to none, and looking for it took a third of the time. Memory is taken beforehand. What a
batch system says of the sweep is forgotten, since it is not said of its cells.
"""

import gc
import os

gc.disable()

RESERVED = 320  # MiB, which is a little less than all that is imported needs


def in_one_piece() -> list[bytes]:
    """Have Python take the memory for what is imported now, in one piece; returns what keeps it.

    It takes a mebibyte at a time, wherever there is room between the libraries that have been loaded, and pieces of
    that size cannot be moved into large pages (see `emobench.runner.engines._warm`).
    """
    blocks = [b""] * (RESERVED * 2048)  # a list that grows would move, and leave gaps
    for each in range(len(blocks)):
        blocks[each] = bytes(479)  # 512 with its head: what is larger is not placed by Python
    return blocks[::1900]  # at least one in each mebibyte, which is then not given back


kept = in_one_piece()

from emobench.definitions.roots import current  # noqa: E402
from emobench.runner.engines.engine import alone  # noqa: E402

os.setpgid(0, 0)
for name in os.environ.keys() - alone(os.environ).keys():
    del os.environ[name]
current().changes()
