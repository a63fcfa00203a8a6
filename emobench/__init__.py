"""emobench: emotion classifiers and emotion-conditioned generators, measured under one protocol."""
