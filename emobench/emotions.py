"""The canonical emotions, their spellings, and the label order of every dataset.

Labels travel by *name*: each dataset file maps its own ids to canonical names through an order below,
so that two orders are never mixed up by position.
"""

from __future__ import annotations

from emobench.errors import DatasetError, unknown

EMOTIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")

# Spellings met in folder names, CSV headers and papers.
_SPELLINGS = {
    "neutral": ("neutrality", "none-neutral", "ne"),
    "happy": ("happiness", "joy", "joyful", "smile", "ha"),
    "sad": ("sadness", "sa"),
    "surprise": ("surprised", "suprise", "surprize", "su"),
    "fear": ("fearful", "afraid", "scared", "fe", "af"),
    "disgust": ("disgusted", "di"),
    "anger": ("angry", "an", "mad"),
    "contempt": ("contemptuous", "co"),
}
_CANONICAL = {spelling: name for name, others in _SPELLINGS.items() for spelling in (name, *others)}
SPELLINGS = tuple(spelling for spelling in _CANONICAL if len(spelling) > 2)  # without the codes of two letters

# Position = id in the dataset's own files. The FER ids also serve ExpW.
ORDERS = {
    "fer2013": ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    "ckplus": ("neutral", "anger", "contempt", "disgust", "fear", "happy", "sad", "surprise"),
    "ckextended": ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt"),
    "affectnet": ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt"),
    "rafdb": ("", "surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"),  # its ids begin with 1
    "alphabetical7": ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
    "alphabetical8": ("anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
}


def canonical(name: str) -> str:
    """The canonical emotion for one of its usual spellings, whatever the case.

    Raises:
        DatasetError: the name is no spelling of an emotion.
    """
    key = name.strip().lower()
    if key not in _CANONICAL:
        raise DatasetError(unknown("emotion", name, EMOTIONS, SPELLINGS))
    return _CANONICAL[key]


def is_emotion(name: str) -> bool:
    """Whether `canonical` knows the name."""
    return name.strip().lower() in _CANONICAL


def in_canonical_order(names: set[str] | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """The canonical emotions among `names`, in canonical order: the classes of a dataset."""
    return tuple(emotion for emotion in EMOTIONS if emotion in names)
