"""Former names of parameters are mapped to today's; whole checkpoints of that time are tested in tests/engine."""

import pytest

from modeling.checkpoint_names import upgrade_names


@pytest.mark.parametrize(
    ("former", "present"),
    [
        ("backbone.vit.blocks.0.norm1.weight", "backbone.vit.blocks.0.norm1.weight"),
        ("pife.reduce.RGB.0.weight", "transforms.pife.reduce.RGB.0.weight"),
        ("hdm.queries", "branches.moe.hdm.queries"),
        ("atmoe.gate.q.weight", "branches.moe.atmoe.gate.q.weight"),
        ("sdtps.sparse.NI.score_predictor.2.bias", "branches.sdtps.selection.score.predictor.NI.2.bias"),
        ("sdtps.aggregation.TI.mlp.3.weight", "branches.sdtps.selection.aggregation.TI.mlp.3.weight"),
        ("sdtps.stages.4.sparse.RGB.score_predictor.0.weight", "reducers.4.score.predictor.RGB.0.weight"),
        ("sdtps.stages.4.aggregation.RGB.scale", "reducers.4.aggregation.RGB.scale"),
        ("heads.sdtps.classifier.weight", "heads.sdtps.classifier.weight"),
        ("branches.moe.hdm.queries", "branches.moe.hdm.queries"),
    ],
)
def test_a_former_name_is_mapped_and_one_of_today_stays(former, present):
    assert upgrade_names({former: 1}) == {present: 1}
