"""A miniature RGBNT201 and a tiny experiment on it, shared by the tests of whole runs."""

import os

os.environ["TQDM_DISABLE"] = "1"  # before tqdm is imported; also for the processes that tests start
os.environ["OMP_NUM_THREADS"] = "2"  # bit-equal runs need equal numbers of threads
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep: on a busy machine they would slow the others

import pytest
import torch

from tests.helpers.trees import write_rgbnt201, write_tiny

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def rgbnt201(tmp_path_factory):
    """ROOT_DIR of a miniature RGBNT201."""
    return write_rgbnt201(tmp_path_factory.mktemp("data"))


@pytest.fixture
def tiny(tmp_path, rgbnt201):
    """A YAML that trains a tiny SDTPS model in a second; OUTPUT_DIR is tmp_path/out."""
    return write_tiny(tmp_path, rgbnt201)
