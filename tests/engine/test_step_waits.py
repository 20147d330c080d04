"""A training step waits for nothing: it has no operation for which a card would have to tell the host a value."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from data.loading import augment
from tools.benchmark.build import build_bench

READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "repeat_interleave"}
"""Operations whose result, or its size, the host needs."""
VARIANTS = {
    "SDTPS with Gumbel": ["MODEL.SDTPS_USE_GUMBEL", True],
    "SDTPS inside": ["MODEL.SDTPS_BLOCK", 1],
    "DeMo": ["MODEL.USE_SDTPS", False, "MODEL.HDM", True, "MODEL.ATM", True, "MODEL.GLOBAL_LOCAL", True],
    "all, absent modalities dropped": [
        *("MODEL.HDM", True, "MODEL.ATM", True, "MODEL.GLOBAL_LOCAL", True, "MODEL.MISSING", "drop"),
        *("INPUT.MODALITY_DROPOUT", 0.5),
    ],
    "accumulated, clipped": ["SOLVER.ACCUMULATE", 2, "SOLVER.CLIP_GRAD_NORM", 1.0, "MODEL.GRAD_CHECKPOINTING", True],
}


class Reads(TorchDispatchMode):
    """Collects the names of operations that would make a card's host wait."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        indices = args[1] if name.startswith(("index", "_index_put")) and len(args) > 1 else ()
        by_mask = isinstance(indices, (list, tuple)) and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices
        )
        if name in READS or by_mask:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def trainer_and_batch(tmp_path, opts, *, device="cpu", amp="off"):
    bench = build_bench("RGBNT201/DeMo_SDTPS.yml", root=tmp_path, folder=tmp_path / "out", device=device, quick=True)
    trainer = bench.changed(*opts).make_trainer(amp)
    trainer.state.model.train()
    batch = next(iter(trainer.loader))
    trainer.train_step(batch)  # makes the optimiser's state
    return trainer, batch


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_operation_of_a_step_needs_its_result_on_the_host(tmp_path, variant, monkeypatch):
    monkeypatch.setattr(augment, "_on_host", lambda _images: False)  # augment as on a card
    trainer, batch = trainer_and_batch(tmp_path, VARIANTS[variant])
    with Reads() as reads:
        losses = trainer.train_step(batch)
    assert reads.names == []
    with reads:  # the check sees what it is for
        losses["total"].item()
        torch.ones(2)[torch.ones(2) > 0]
    assert reads.names == ["_local_scalar_dense", "index"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("amp", ["bf16", "fp16", "off"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_does_not_wait_for_the_card(tmp_path, variant, amp):
    trainer, batch = trainer_and_batch(tmp_path, VARIANTS[variant], device="cuda", amp=amp)
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = trainer.train_step(batch)
        with pytest.raises(RuntimeError, match="synchroniz"):
            losses["total"].item()
    finally:
        torch.cuda.set_sync_debug_mode("default")
