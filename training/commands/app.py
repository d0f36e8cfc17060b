"""Commands that need neither a catalogue nor an index."""

from __future__ import annotations

from training.commands.group import Entry

COMMANDS = (
    Entry(
        "sample-catalogue",
        "training.commands.sample_catalogue:sample_catalogue",
        "Catalogue",
        "Draw a synthetic shop to try Nitamono with.",
    ),
    Entry(
        "train",
        "training.commands.train:train",
        "Models",
        "Train an encoder on your own photos, without labels.",
    ),
    Entry(
        "train-finder",
        "training.commands.train_finder:train_finder",
        "Models",
        "Train a network that finds the item in a photo.",
    ),
    Entry("sample", "training.commands.sample:sample", "Models", "Sample images from a model."),
    Entry(
        "complete",
        "training.commands.complete:complete",
        "Models",
        "Hide the lower part of images and let a model draw it.",
    ),
    Entry(
        "likelihood",
        "training.commands.likelihood:likelihood",
        "Models",
        "Compute the log-likelihood of images under a model.",
    ),
    Entry(
        "sketch",
        "training.commands.sketch:sketch",
        "Models",
        "Draw, complete and evaluate with encoders of drawings.",
    ),
    Entry(
        "demo-flow",
        "training.commands.demo_flow:demo_flow",
        "Models",
        "Train a flow on two moons and draw it step by step.",
    ),
)
