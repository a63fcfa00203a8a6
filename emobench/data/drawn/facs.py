"""Emotions as action units of the Facial Action Coding System (FACS, Ekman and Friesen 1978)."""

from __future__ import annotations

from collections.abc import Mapping

# The action units that are drawn, by FACS number. Arrays of activations have them as (U, 2): the second axis is
# (person's left, person's right).
UNITS = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    10: "upper lip raiser",
    12: "lip corner puller",
    14: "dimpler",
    15: "lip corner depressor",
    16: "lower lip depressor",
    17: "chin raiser",
    20: "lip stretcher",
    23: "lip tightener",
    25: "lips part",
    26: "jaw drop",
}
UNIT_COLUMNS = [f"{side}{unit}" for unit in UNITS for side in "LR"]  # as FACS writes sides

# Emotion -> action units and how strong they are at full intensity, 0..1: the prototypes of EMFACS (Friesen and Ekman
# 1983). Contempt is one-sided (R12, R14): it is drawn on the right or on the left.
PROTOTYPES: Mapping[str, Mapping[int, float]] = {
    "neutral": {},
    "happy": {6: 0.8, 12: 0.9},
    "sad": {1: 1.0, 4: 0.5, 15: 1.0},
    "surprise": {1: 0.9, 2: 1.0, 5: 0.9, 26: 0.95},
    "fear": {1: 1.0, 2: 0.5, 4: 0.6, 5: 1.0, 7: 0.2, 20: 1.0, 26: 0.45},
    "disgust": {9: 1.0, 15: 0.5, 16: 0.6},
    "anger": {4: 1.0, 5: 0.3, 7: 0.8, 23: 1.0},
    "contempt": {12: 0.75, 14: 1.0},
}
# Variants that EMFACS lists beside the prototypes; each joins in some of the faces.
VARIATIONS: Mapping[str, Mapping[int, float]] = {
    "happy": {25: 0.9},
    "sad": {17: 0.7},
    "fear": {25: 0.6},
    "disgust": {10: 0.9},
    "anger": {17: 0.5},
}
ONE_SIDED = "contempt"
# An emotion is blended with the one that people confuse it with most often.
NEIGHBOURS = {"surprise": "fear", "fear": "surprise", "anger": "disgust", "disgust": "anger"}
