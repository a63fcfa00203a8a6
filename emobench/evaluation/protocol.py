"""Sizes, seeds and limits of the measuring protocol (docs/protocol.md): what the numbers mean hangs on them."""

from __future__ import annotations

# Faces
FIDELITY_FACES = 10_000  # generated, reference and floor, at most
LEAST_FOR_FED = 640  # faces: with fewer, the distance in 64 features is mostly bias
LEAST_FOR_SCORES = 20  # faces: with fewer, no score of a whole sample means anything
INTENSITIES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of an emotion, from neutral

# Seeds
CHOICE_SEED = 20130615  # of every choice among real faces: the same for all rows
FIRST_SEED = {
    "fidelity": 0,
    "control": 10**6,
    "intensity": 2 * 10**6,
    "editing": 3 * 10**6,
    "text": 4 * 10**6,
}  # of the noise seeds

# Batches: part of the speeds, and of nothing else
READ_BATCH = 256  # faces that a classifier reads at a time ...
LARGEST_READ = 4096  # ... and a judge at most, on a GPU whose memory has room for them
DRAW_BATCH = 64  # the same of faces that a generator draws
LARGEST_DRAW = 1024
STYLIZED_SIZE, STYLIZED_FACES = 256, 16  # px and faces at a time, where the speed of stylizing is measured
BLOCK = 4096  # real faces held at a time where all of a split are compared

# Limits
MEMORISED = 0.05  # share of copies above which a row is flagged
UNDER_TRAINED = 0.5  # share of the recipe's faces below which a row is flagged
SAME_ANSWER = 1e-3  # by which probabilities may differ between batch sizes
