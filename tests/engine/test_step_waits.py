"""A training step contains no host-device synchronisation: no operation whose result the host needs."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.runs import make_trainer

# Operations of which the host needs the result or its size.
READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "repeat_interleave"}
SDTPS = ["MODEL.USE_SDTPS", True, "MODEL.SDTPS_AGGR_RATIO", 0.75]
DEMO = ["MODEL.HDM", True, "MODEL.ATM", True, "MODEL.GLOBAL_LOCAL", True]
VARIANTS = {
    "SDTPS with Gumbel": [*SDTPS, "MODEL.SDTPS_USE_GUMBEL", True],
    "SDTPS inside": [*SDTPS, "MODEL.SDTPS_BLOCK", 1],
    "merging by attention": [
        *("MODEL.USE_SDTPS", True, "MODEL.SDTPS_BLOCK", 1, "MODEL.SDTPS_SCORE", "attention"),
        *("MODEL.SDTPS_AGGREGATION", "merge"),
    ],
    "aligned, gated": [
        *("MODEL.USE_SDTPS", True, "MODEL.SDTPS_BLOCK", 1, "MODEL.SDTPS_SCORE", "aligned"),
        *("MODEL.SDTPS_AGGREGATION", "none", "MODEL.SDTPS_GATE", True),
    ],
    "EDITOR's votes": [*SDTPS, "MODEL.SDTPS_SCORE", "editor", "MODEL.MISSING", "drop"],
    "random": [*SDTPS, "MODEL.SDTPS_SCORE", "random", "MODEL.SDTPS_ANNEAL_EPOCHS", 2],
    "DeMo": DEMO,
    "all, absent modalities dropped": [*SDTPS, *DEMO, "MODEL.MISSING", "drop", "INPUT.MODALITY_DROPOUT", 0.5],
    "accumulated, clipped": [
        *(*SDTPS, "SOLVER.ACCUMULATE", 2, "SOLVER.CLIP_GRAD_NORM", 1.0, "MODEL.GRAD_CHECKPOINTING", True),
    ],
}


class Reads(TorchDispatchMode):
    """Collects the names of operations that would make the host of a GPU wait."""

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


@pytest.fixture
def trainer_and_batch(tmp_path, rgbnt201):
    """trainer_and_batch(opts): a trainer that has made a step, and a batch."""

    def make(opts, *, device="cpu", amp="off"):
        base = ["MODEL.TRANSFORMER_TYPE", "ViT-Test", "INPUT.SIZE_TRAIN", [64, 32], "INPUT.SIZE_TEST", [64, 32]]
        base += ["DATASETS.NAMES", "RGBNT201", "DATASETS.ROOT_DIR", str(rgbnt201), "OUTPUT_DIR", str(tmp_path / "out")]
        base += ["DATALOADER.NUM_WORKERS", 0, "DATALOADER.NUM_INSTANCE", 2, "SOLVER.IMS_PER_BATCH", 4]
        trainer = make_trainer(None, *base, "MODEL.DEVICE", device, "SOLVER.AMP", amp, *opts)
        trainer.state.model.train()
        batch = next(iter(trainer.loader))
        trainer.train_step(batch)  # creates the state of the optimiser
        return trainer, batch

    return make


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_operation_of_a_step_needs_its_result_on_the_host(trainer_and_batch, variant):
    trainer, batch = trainer_and_batch(VARIANTS[variant])
    with Reads() as reads:
        trainer.train_step(batch)
    assert reads.names == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("amp", ["bf16", "fp16", "off"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_does_not_wait_for_the_gpu(trainer_and_batch, variant, amp):
    trainer, batch = trainer_and_batch(VARIANTS[variant], device="cuda", amp=amp)
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = trainer.train_step(batch)
        with pytest.raises(RuntimeError, match="synchroniz"):
            losses["total"].item()
    finally:
        torch.cuda.set_sync_debug_mode("default")
