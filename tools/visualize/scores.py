"""What the model's own score makes of an image, and what other scores make of the same tokens.

Shapes: B batch, M modality, N patches, S kept patches, C width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from data.masks import load_masks
from data.sample import Batch
from modeling.model import EncodedTokens, ReIDOutput
from modeling.selection import SCORES, PatchSelection, Selection
from modeling.selection.diagnostics import kept_mask
from modeling.selection.scores import Score
from tools.visualize.subject import Subject
from utils.errors import UserError

COVERAGE = "coverage"
"""Stands in `Score.needs` of a score that has to know where the object is."""


@dataclass(frozen=True)
class Choice:
    """What a score makes of one image."""

    name: str
    """A name in `SCORES`."""
    score: Tensor
    """(M, N) float32."""
    indices: Tensor
    """(M, S) int64, the patches that are kept."""

    def common(self, other: Choice) -> Tensor:
        """Compute which share of these kept patches `other` keeps, too: (M,), in percent."""
        num_patches = self.score.shape[1]
        both = kept_mask(self.indices, num_patches) & kept_mask(other.indices, num_patches)
        return 100 * both.sum(dim=1) / self.indices.shape[1]


@torch.inference_mode()
def choose(subject: Subject, index: int, names: Iterable[str] = ()) -> tuple[Selection, list[Choice]]:
    """Run the model on sample `index`, and the scores `names` on the tokens that its first selection scores.

    Returns:
        The first selection, and the choices, on the CPU: the model's own one, and then one for each of `names`.

    Raises:
        UserError: the model has no selection, or a score is unknown or cannot be computed.
    """
    selection = first_selection(subject)
    scores = {name: find_score(subject, index, name) for name in names}
    subject.model.eval()
    images, batch = subject.inputs(index)
    if batch.mask is None and any(COVERAGE in score.needs for score in scores.values()):
        mask = load_masks([subject.split.samples[index]], subject.size_hw)
        batch = replace(batch, mask=torch.from_numpy(mask).to(images.device))
    records = [record for score in scores.values() for record in score.records]
    with subject.evaluator.precision.autocast(), inputs_of(selection) as inputs:
        output = run_recording(subject, images, batch, records)
        values = [score.to(images.device)(*inputs).value[0] for score in scores.values()]
    score, indices = (torch.stack(part)[:, 0].cpu() for part in (output.selection.score, output.selection.indices))
    choices = [Choice(own_name(selection), score, indices)]
    patches = inputs[0][0, :, 1:]
    for name, value in zip(scores, values, strict=True):
        choices.append(Choice(name, value.cpu(), selection.sparse(patches, value).indices.cpu()))
    return output.selection, choices


def run_recording(subject: Subject, images: Tensor, batch: Batch, records: Sequence[str]) -> ReIDOutput:
    """Run the model as `subject.run` does, while the backbone also records `records`."""
    model, backbone = subject.model, subject.model.backbone
    recorder = backbone.recorder(tuple(dict.fromkeys([*model.selections[0].records, *records])))
    tokens = backbone(images, batch.camera, stop=model.first_stage, recorder=recorder)
    encoded = EncodedTokens(tokens, recorder.read(images.shape[1]) if recorder else {})
    return model.decode(encoded, batch.present, model.describe(batch.index, batch.masks))


@contextmanager
def inputs_of(selection: PatchSelection) -> Iterator[list[Any]]:
    """Fill a list with what `selection` is called with: tokens (B, M, 1+N, C), who is present, what is known."""
    inputs: list[Any] = []
    handle = selection.register_forward_pre_hook(lambda _, given: inputs.extend(given))
    try:
        yield inputs
    finally:
        handle.remove()


def first_selection(subject: Subject) -> PatchSelection:
    """Return the model's first selection, which is among the patches of the image.

    Raises:
        UserError: there is none.
    """
    if not subject.model.selections:
        raise UserError(
            "The model keeps all patches: without SDTPS (MODEL.USE_SDTPS is False) there is no selection to show. "
            "The other pictures do not need it."
        )
    return subject.model.selections[0]


def own_name(selection: PatchSelection) -> str:
    """Return the name of the score of `selection`."""
    return next(name for name, kind in SCORES.items() if type(selection.score) is kind)


def find_score(subject: Subject, index: int, name: str) -> Score:
    """Return the model's own score if it is called `name`, and else one that is made as the model would make it.

    Raises:
        UserError: it is unknown, or cannot be computed for this model and sample `index`.
    """
    if problem := obstacle(subject, index, name):
        possible = [other for other in SCORES if not obstacle(subject, index, other)]
        raise UserError(f"--compare has {name!r}, {problem} Allowed here: {', '.join(possible)}, separated by commas.")
    return make_score(first_selection(subject), name)


def make_score(selection: PatchSelection, name: str) -> Score:
    """Return the score of `selection` if it is called `name`, and else make that score for the same tokens."""
    if name == own_name(selection):
        return selection.score
    return SCORES[name](**selection.score_options).eval()


def obstacle(subject: Subject, index: int, name: str) -> str:
    """Say why the score `name` cannot be computed for this model and sample `index`; '' if it can."""
    if name not in SCORES:
        return "which is no score."
    selection, sample = first_selection(subject), subject.split.samples[index]
    score = make_score(selection, name)
    if score is selection.score:
        return ""
    if score.state_dict():  # also the places that 'fixed' draws
        return f"but the checkpoint holds no weights for it, because its model scores by {own_name(selection)!r}."
    if COVERAGE in score.needs and sample.mask is None:
        return f"which needs the mask of the object, and {sample.name} has none: only the synthetic set has masks."
    try:
        subject.model.backbone.check_records(score.records, "which")
    except UserError as error:
        return str(error)
    return ""
