"""A text classification network of transformers as a reader of cues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emobench.cues.reader import Cue, Found
from emobench.downloads import offline
from emobench.emotions import EMOTIONS, canonical, is_emotion
from emobench.errors import SuiteError, WeightsError, first_line, unknown

# GoEmotions' 27 emotions and neutral (Demszky et al. 2020), as the face that goes with each; None: none of the eight.
GO_EMOTIONS: Mapping[str, str | None] = {
    "admiration": "happy", "amusement": "happy", "anger": "anger", "annoyance": "anger", "approval": "happy",
    "caring": "happy", "confusion": "surprise", "curiosity": "surprise", "desire": None, "disappointment": "sad",
    "disapproval": "contempt", "disgust": "disgust", "embarrassment": None, "excitement": "happy", "fear": "fear",
    "gratitude": "happy", "grief": "sad", "joy": "happy", "love": "happy", "nervousness": "fear", "optimism": "happy",
    "pride": "happy", "realization": "surprise", "relief": "happy", "remorse": "sad", "sadness": "sad",
    "surprise": "surprise", "neutral": "neutral",
}  # fmt: skip


class TextModel:
    """Reads sentences with a network of transformers.

    Args:
        name: a repository or a folder.
        labels: its labels -> emotions, where they are neither GoEmotions' nor spellings of emotions; "none": no face.

    Raises:
        WeightsError: it cannot be loaded.
        SuiteError: a label means no emotion.
    """

    def __init__(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": offline()}
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name, **options)
            self.network: Any = AutoModelForSequenceClassification.from_pretrained(name, **options).eval()
        except Exception as error:  # transformers raises whatever it met
            raise WeightsError(f"--text-model {name}: cannot be loaded ({first_line(error)})") from None
        of = self.network.config.id2label
        self.emotions = [_emotion(name, str(of[place]), labels or {}) for place in range(len(of))]
        if all(emotion in (None, "neutral") for emotion in self.emotions):
            raise SuiteError(
                f"--text-model {name}: none of its labels is an emotion: {', '.join(map(str, of.values()))}"
            )
        # Several labels at once where its configuration says so, as networks for GoEmotions are.
        self.several = self.network.config.problem_type == "multi_label_classification"

    def read(self, text: str) -> Cue:
        """A sentence as emotion weights and an intensity: the probability of all that is not neutral."""
        import torch

        given = self.tokenizer(text, return_tensors="pt", truncation=True)
        with torch.inference_mode():
            logits = self.network(**given).logits[0].double()
        shares = (logits.sigmoid() if self.several else logits.softmax(0)).tolist()
        weights = dict.fromkeys(EMOTIONS, 0.0)
        for emotion, share in zip(self.emotions, shares, strict=True):
            if emotion is not None:
                weights[emotion] += share
        total = sum(weights.values())
        if total <= 0:
            return Cue({**weights, "neutral": 1.0}, 0.0, (), True)
        weights = {emotion: share / total for emotion, share in weights.items()}
        found = tuple(Found(text[:60], emotion, share) for emotion, share in weights.items() if share > 0.1)
        felt = {emotion: share for emotion, share in weights.items() if emotion != "neutral"}
        intensity = sum(felt.values())
        return Cue(weights, intensity, found, False)


def _emotion(name: str, label: str, labels: Mapping[str, str]) -> str | None:
    """What a label of the network means."""
    said = labels.get(label, label)
    if said.lower() in ("none", ""):
        return None
    if is_emotion(said):
        return canonical(said)
    if said.lower() in GO_EMOTIONS:
        return GO_EMOTIONS[said.lower()]
    raise SuiteError(f"--text-model {name}: its label {label}: {unknown('emotion', said, [*EMOTIONS, 'none'])}. Map it")
