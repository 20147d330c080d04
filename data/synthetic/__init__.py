"""Generate the synthetic benchmark on first use: persons in RGB, near infrared and thermal (see README.md)."""

from data.synthetic.generate import ensure_synthetic
from data.synthetic.sheet import contact_sheet
from data.synthetic.spec import SyntheticSpec

__all__ = ["SyntheticSpec", "contact_sheet", "ensure_synthetic"]
