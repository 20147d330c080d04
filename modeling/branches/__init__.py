"""Branches: tokens to features, one class in one file each, found here by its name and run in this order."""

from modeling.branches.base import Branch
from modeling.branches.moe import MoEBranch
from modeling.branches.ori import OriBranch
from modeling.branches.sdtps import SDTPSBranch

BRANCHES: dict[str, type[Branch]] = {"ori": OriBranch, "moe": MoEBranch, "sdtps": SDTPSBranch}
"""Each is also a descriptor of that name, and a choice of TEST.FEAT."""
