"""Draw what goes wrong while an image is taken: faults that ruin a modality, and blur that affects all three."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RUINS = {"darkness": "RGB", "glare": "RGB", "out_of_reach": "NI", "crossover": "TI"}
"""Maps each fault to the modality that it makes useless. Glare weakens NI as well, without ruining it."""

SCENARIOS = (
    (("darkness",), 0.20),
    (("glare",), 0.14),
    (("out_of_reach",), 0.16),
    (("crossover",), 0.18),
    (("darkness", "out_of_reach"), 0.10),
    (("darkness", "crossover"), 0.10),
    (("out_of_reach", "crossover"), 0.07),
    (("glare", "crossover"), 0.05),
)
"""Lists faults that occur together, and how often they do if there are any. They never ruin all three modalities, and
because glare weakens NI, it never occurs with the fault that ruins NI."""

FAULT_RATE = 0.8  # share of images with a ruined modality, at difficulty 1


@dataclass(frozen=True)
class Conditions:
    """These are the conditions of one image. Faults range from 0 (none) to 1 (as bad as possible)."""

    darkness: float = 0.0
    """It is night: RGB is almost black and noisy."""
    glare: float = 0.0
    """A headlight or the sun shines into the lens: RGB is washed out, and NI is fogged."""
    out_of_reach: float = 0.0
    """The near-infrared lamp does not reach the person: NI is almost black and noisy."""
    crossover: float = 0.0
    """The surroundings are as warm as the person (thermal crossover), so that TI has no contrast."""
    motion: float = 0.0
    """Length of the motion blur as a share of the image height."""
    sharpness: float = 1.0
    """The resolution that is left, as a share of the full one."""

    @property
    def ruined(self) -> frozenset[str]:
        """Return the modalities that show next to nothing of the person."""
        return frozenset(modality for fault, modality in RUINS.items() if getattr(self, fault) > 0)


def draw_conditions(rng: np.random.Generator, difficulty: float) -> Conditions:
    """Draw the conditions of one image; at difficulty 0 there are no faults and no blur."""
    faults: dict[str, float] = {}
    if rng.random() < FAULT_RATE * difficulty:
        weights = np.array([weight for _, weight in SCENARIOS])
        names, _ = SCENARIOS[rng.choice(len(SCENARIOS), p=weights / weights.sum())]
        faults = {name: float(rng.uniform(0.75, 1.0)) for name in names}
    motion = float(rng.uniform(0.01, 0.035)) if rng.random() < 0.3 * difficulty else 0.0
    sharpness = float(rng.uniform(0.3, 0.6)) if rng.random() < 0.3 * difficulty else 1.0
    return Conditions(**faults, motion=motion, sharpness=sharpness)
