"""Draw the README's picture of the dataset `synthetic`: a row an emotion, every face another person."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from emobench.data.datasets.synthetic import grid


def main() -> None:
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "results/checks/faces.webp")
    path.parent.mkdir(parents=True, exist_ok=True)
    # For eyes: a fourth of the lossless size.
    Image.fromarray(grid("standard", 64, 14)).save(path, quality=90, method=6)
    print(path)


if __name__ == "__main__":
    main()
