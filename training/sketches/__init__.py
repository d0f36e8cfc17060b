"""Drawings as strokes: reading, preparing and writing them, and encoders of them.

A drawing is a list of strokes, each the points `(n, 2)` that the pen passes, x to the right and y down, in any unit.
`formats` and `svg` read drawings, `training.sketches.preparing` turns them into the rows that a model takes, `raster`
and `sheets` show them, and `encoder` offers a trained model.
"""
