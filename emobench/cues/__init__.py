"""Reads a sentence about a person or a situation into emotion weights and an intensity."""

from emobench.cues.reader import Cue, CueReader, Found, NamesOnly

__all__ = ["Cue", "CueReader", "Found", "NamesOnly"]
