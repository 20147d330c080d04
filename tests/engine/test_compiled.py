"""SOLVER.COMPILE: the compiled model is the model, and where nothing compiles the run goes on."""

import logging
from functools import partial

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import TorchDynamoException

from configs import get_cfg
from engine.compiled import CompiledModel
from modeling import build_model


@pytest.fixture
def model(tiny):
    torch.manual_seed(0)
    return build_model(get_cfg(tiny), num_classes=3, num_cameras=2).eval()


INPUTS = torch.randn(2, 3, 3, 64, 32), torch.tensor([0, 1])


def test_the_compiled_model_gives_what_the_model_gives(model, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # no C++ compiler is needed
    compiled = CompiledModel(model)
    torch.testing.assert_close(compiled(*INPUTS).embedding, model(*INPUTS).embedding)
    assert compiled.is_compiled
    assert [id(p) for p in compiled.parameters()] == [id(p) for p in model.parameters()]


def test_what_does_not_compile_runs_as_it_is_and_says_so_once(model, monkeypatch, caplog):
    def broken(*_inputs):
        raise TorchDynamoException("no compiler\nfound")

    monkeypatch.setattr(torch, "compile", lambda _model: broken)
    compiled = CompiledModel(model)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert torch.equal(compiled(*INPUTS).embedding, model(*INPUTS).embedding)
    assert not compiled.is_compiled
    assert [r.message for r in caplog.records if "does not compile" in r.message] == [
        "warning: SOLVER.COMPILE: the model does not compile here and runs uncompiled. no compiler found"
    ]


def test_a_backward_pass_that_does_not_compile_is_met_before_it_is_needed(model, monkeypatch, caplog):
    def broken(_graph, _inputs):
        raise RuntimeError("no compiler found")

    backend = aot_autograd(fw_compiler=lambda graph, _inputs: graph.forward, bw_compiler=broken)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    compiled = CompiledModel(model.train())
    with caplog.at_level(logging.INFO):
        compiled(*INPUTS).embedding.sum().backward()
    assert not compiled.is_compiled and "no compiler found" in caplog.text
    assert any(parameter.grad is not None for parameter in model.parameters())


def test_other_errors_are_not_swallowed(model, monkeypatch):
    def out_of_memory(*_inputs):
        raise torch.OutOfMemoryError("too large")

    monkeypatch.setattr(torch, "compile", lambda _model: out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        CompiledModel(model)(*INPUTS)
