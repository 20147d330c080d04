"""SOLVER.AMP and MODEL.DEVICE as a type and a device."""

import pytest
import torch

from engine.precision import resolve_device, resolve_precision
from utils.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("mode", "dtype", "scaled"),
    [("auto", None, False), ("off", None, False), ("bf16", torch.bfloat16, False), ("fp16", torch.float16, True)],
)
def test_the_type_on_the_cpu(mode, dtype, scaled):
    precision = resolve_precision(mode, CPU)
    assert (precision.device, precision.dtype, precision.make_scaler().is_enabled()) == (CPU, dtype, scaled)
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == (dtype or torch.float32)


@pytest.mark.parametrize(("has_bf16", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_on_a_gpu_is_bf16_where_the_gpu_computes_in_it(monkeypatch, has_bf16, dtype):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda _emulated: has_bf16)
    assert resolve_precision("auto", torch.device("cuda")).dtype == dtype


def test_the_device(monkeypatch):
    assert resolve_device("cpu") == CPU
    for available, kind in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        assert resolve_device("auto").type == kind
    with pytest.raises(UserError, match=r"MODEL\.DEVICE is 'cuda:1', but torch .* sees 1 CUDA devices"):
        resolve_device("cuda:1")
