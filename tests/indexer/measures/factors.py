"""Latents and factors that the tests of disentanglement share."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

RNG = np.random.default_rng(0)


PHOTOS = 600


ITEMS = np.arange(PHOTOS) // 3


AXES = RNG.uniform(-1, 1, (PHOTOS, 4))  # the drawn factors, one a unit where the latents are aligned


FACTORS = {name: AXES[:, place] for place, name in enumerate(["light", "angle", "size", "hue"])}


LABELLED = {**FACTORS, "hue": np.array(["red", "green", "blue"])[np.digitize(AXES[:, 3], [-0.3, 0.3])]}


NOISE = RNG.normal(size=(PHOTOS, 4))


seeds = st.integers(0, 2**32 - 1)
