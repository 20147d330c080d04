"""The synthetic benchmark: persons seen in RGB, near infrared and thermal, generated on first use.

`spec` says what to make, `scene` makes one triplet of it, `generate` writes the set. A triplet's way: `identity` (who)
-> `figure`, `obstacles`, `scenery` (parts on a `canvas`, before a backdrop) -> `render` (the signals) -> `camera` under
its `conditions` (the images).
"""

from data.synthetic.generate import ensure_synthetic
from data.synthetic.sheet import contact_sheet
from data.synthetic.spec import SyntheticSpec

__all__ = ["SyntheticSpec", "contact_sheet", "ensure_synthetic"]
