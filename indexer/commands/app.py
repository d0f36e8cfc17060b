"""Commands that work on a catalogue, an index or the encoders behind them."""

from __future__ import annotations

from training.commands.group import Entry

COMMANDS = (
    Entry("index", "indexer.commands.index:index", "Catalogue", "Index a source and activate the new generation."),
    Entry(
        "collections",
        "indexer.commands.collections:collections",
        "Catalogue",
        "List collections and what they contain.",
    ),
    Entry(
        "generations",
        "indexer.commands.generations:generations",
        "Catalogue",
        "List, verify, activate or roll back generations.",
    ),
    Entry("rejects", "indexer.commands.rejects:rejects", "Catalogue", "Show which images and rows were rejected."),
    Entry("items", "indexer.commands.items:items", "Catalogue", "List and remove items."),
    Entry("repair", "indexer.commands.repair:repair", "Catalogue", "Rebuild damaged generations and encoders."),
    Entry("clean", "indexer.commands.clean:clean", "Catalogue", "Remove files that nothing refers to."),
    Entry("backup", "indexer.commands.backup:backup", "Catalogue", "Back up a home while servers and commands use it."),
    Entry("restore", "indexer.commands.restore:restore", "Catalogue", "Restore a home from a backup."),
    Entry("search", "indexer.commands.search:search", "Search", "Find the items most similar to an image."),
    Entry(
        "calibrate",
        "indexer.commands.calibrate:calibrate",
        "Search",
        "Learn how scores translate into probabilities.",
    ),
    Entry(
        "encoders",
        "indexer.commands.encoders:encoders",
        "Encoders",
        "List, show, compare, import and combine encoders.",
    ),
    Entry("embed", "indexer.commands.embed:embed", "Encoders", "Write the vectors of a source's images to a file."),
    Entry("evaluate", "indexer.commands.evaluate:evaluate", "Evaluation", "Measure the retrieval quality of encoders."),
    Entry(
        "compare",
        "indexer.commands.compare:compare",
        "Evaluation",
        "Measure how much the background changes each vector.",
    ),
    Entry("drift", "indexer.commands.drift:drift", "Evaluation", "Check new items and recent queries for drift."),
    Entry(
        "retrain",
        "indexer.commands.retrain:retraining",
        "Models",
        "Train on a collection and promote a better encoder.",
    ),
    Entry("pictures", "indexer.commands.pictures:pictures", "Models", "Draw what an encoder has learnt."),
)
