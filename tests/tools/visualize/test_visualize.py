"""tools.visualize: every sub-command writes its pictures, on every kind of data set, or says why not."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs import get_cfg
from data.build import build_data
from modeling import build_model
from tests.helpers.trees import write_manifest, write_rgbnt100
from tools.visualize.__main__ import main
from tools.visualize.build import build_subject
from tools.visualize.failures import draw_failures
from tools.visualize.tsne import modality_globals
from utils.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[3]


def write_checkpoint(config, *opts):
    """An untrained model's best.pth in OUTPUT_DIR."""
    cfg = get_cfg(config, list(map(str, opts)))
    data = build_data(cfg)
    torch.manual_seed(0)
    model = build_model(cfg, num_classes=len(data.train_pids), num_cameras=data.num_cameras)
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True)
    torch.save({"model": model.state_dict(), "epoch": 3}, Path(cfg.OUTPUT_DIR) / "best.pth")
    return cfg


@pytest.fixture
def trained(tiny):
    """The tiny experiment with a checkpoint and records."""
    cfg = write_checkpoint(tiny)
    scores = {"sdtps": {"mAP": 30.0, "R1": 20.0}}
    lines = [{"epoch": e, "losses": {"total": 3.0 / e}, "lr": {"rest": 0.1}, "eval": scores} for e in (1, 2, 3)]
    (Path(cfg.OUTPUT_DIR) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tiny


def draw(command, config, *argv):
    """The pictures that a sub-command wrote, by name, as arrays."""
    cfg = get_cfg(config, [])
    folder = Path(cfg.OUTPUT_DIR) / "pictures"
    assert main([command, "--config_file", str(config), "--dpi", "50", *map(str, argv)]) == 0
    return {path.name: np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))}


def test_tokens(trained):
    pictures = draw("tokens", trained, "--images", "000500_cam1_0_00,3", "--tokens", "0,2")
    assert list(pictures) == ["tokens_0_000500_cam1_0_00.png", "tokens_3_000500_cam2_0_03.png"]
    three = pictures["tokens_3_000500_cam2_0_03.png"]
    assert three.shape[0] > 300 and three.shape[1] >= 300 and three.std() > 20
    assert len(draw("tokens", trained)) == 2 + 3, "by default of three images"


def test_tokens_beside_what_other_scores_keep(trained):
    alone = draw("tokens", trained, "--images", "0")["tokens_0_000500_cam1_0_00.png"]
    beside = draw("tokens", trained, "--images", "0", "--compare", "centre, attention,centre")
    wide = beside["tokens_0_000500_cam1_0_00.png"]
    height, width = alone.shape[:2]
    assert wide.shape[1] - width == pytest.approx(50 * 2 * (2 * 1.1 + 0.12), abs=2), "two groups of two columns"
    assert wide.shape[0] == height and wide[:, width:].std() > 20
    with pytest.raises(UserError, match="--compare has 'aligned', but the checkpoint holds no weights for it"):
        draw("tokens", trained, "--compare", "centre,aligned")


def test_ranks(trained):
    pictures = draw("ranks", trained, "--queries", "0,5", "--dpi", 100)
    assert list(pictures) == ["ranks_0_000500_cam1_0_00.png", "ranks_5_000501_cam1_0_02.png"]
    green, red = (0, 158, 115), (213, 94, 0)
    for picture in pictures.values():  # two matches and eight others among the first ten
        assert all((picture == colour).all(axis=2).sum() > 50 for colour in (green, red))
    with pytest.raises(UserError, match=r"no query '16'\. Allowed: numbers 0 to 15"):
        draw("ranks", trained, "--queries", "16")


def test_failures(trained, tmp_path):
    subject = build_subject(get_cfg(trained, []))
    with pytest.raises(UserError, match="There are no failures"):
        draw_failures(subject, 2, tmp_path, dpi=50)
    subject = build_subject(get_cfg(trained, []))
    noise = torch.randn(len(subject.split.samples), 4, generator=torch.Generator().manual_seed(0))
    subject.__dict__["descriptors"] = {"sdtps": noise}  # the model ranks these images too well
    picture = draw_failures(subject, 2, tmp_path, dpi=50)
    assert picture.path == tmp_path / "failures.png" and "side by side" in picture.caption
    drawn = np.asarray(Image.open(picture.path).convert("RGB"))
    query, wrong, correct = [(drawn == c).all(axis=2).any(axis=1) for c in ((34, 34, 34), (213, 94, 0), (0, 158, 115))]
    assert query.any() and (wrong & correct).any(), "wrong images and the first correct one in the same rows"


def test_curves_need_no_checkpoint(trained, tmp_path):
    (tmp_path / "out" / "best.pth").unlink()
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics.jsonl").write_text((tmp_path / "out" / "metrics.jsonl").read_text())
    one = draw("curves", trained)["curves.png"]
    two = draw("curves", trained, "--run", tmp_path / "out", "--run", other)["curves.png"]
    assert one.std() > 5 and two.shape != one.shape
    with pytest.raises(UserError, match=r"no records in .*none"):
        draw("curves", trained, "--run", tmp_path / "none")


def test_all_writes_a_page_that_needs_nothing_else(trained, tmp_path):
    pictures = draw(
        "all",
        trained,
        "--compare",
        "opencode",
        "--ids",
        3,
        "--method",
        "pca",
        "--images",
        0,
        "--queries",
        "1,2",
        "--output",
        tmp_path / "out" / "pictures",
    )
    kinds = {re.match("[a-z]+", name)[0] for name in pictures}
    assert kinds >= {"tokens", "ranks", "tsne", "attention", "places", "curves"}
    page = (tmp_path / "out" / "pictures" / "index.html").read_text()
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == len(pictures) and not re.search("https?:", page)
    inline = {base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources}
    assert inline == {path.read_bytes() for path in (tmp_path / "out" / "pictures").glob("*.png")}
    assert "epoch 3" in page and "descriptor &#39;sdtps&#39;" in page


def test_without_sdtps_the_rest_is_drawn_and_the_page_says_why(tmp_path, rgbnt201):
    config = tmp_path / "plain.yml"
    config.write_text(
        f"""
MODEL: {{TRANSFORMER_TYPE: ViT-Test, DIRECT: False, STRIDE_SIZE: [12, 12]}}
INPUT: {{SIZE_TRAIN: [64, 32], SIZE_TEST: [64, 32]}}
DATASETS: {{NAMES: RGBNT201, ROOT_DIR: {rgbnt201}}}
DATALOADER: {{NUM_WORKERS: 0}}
OUTPUT_DIR: {tmp_path / "plain"}
"""
    )
    write_checkpoint(config)
    with pytest.raises(UserError, match="USE_SDTPS is False"):
        draw("tokens", config)
    pictures = draw("all", config, "--method", "pca", "--ids", 4, "--images", 0, "--queries", 1)
    assert {re.match("[a-z]+", name)[0] for name in pictures} >= {"ranks", "tsne", "attention"}
    page = (tmp_path / "plain" / "pictures" / "index.html").read_text()
    assert "Left out. The model keeps all patches" in page and "Left out. There are no records" in page


@pytest.mark.parametrize(
    ("write", "name", "size"), [(write_rgbnt100, "RGBNT100", "[32, 64]"), (None, "manifest", "[64, 32]")]
)
def test_tiled_images_and_absent_modalities(tmp_path, write, name, size):
    root = write(tmp_path) if write else write_manifest(tmp_path, absent=("NI",))
    config = tmp_path / "other.yml"
    config.write_text(
        f"""
MODEL: {{TRANSFORMER_TYPE: ViT-Test, USE_SDTPS: True, SDTPS_AGGR_RATIO: 0.75}}
INPUT: {{SIZE_TRAIN: {size}, SIZE_TEST: {size}}}
DATASETS: {{NAMES: {name}, ROOT_DIR: {root}}}
DATALOADER: {{NUM_WORKERS: 0}}
OUTPUT_DIR: {tmp_path / "out"}
"""
    )
    cfg = write_checkpoint(config)
    subject = build_subject(cfg)
    shown = [image is not None for image in subject.pixels(0)]
    assert shown == ([True, True, True] if write else [True, False, True])
    single, present = modality_globals(subject, np.arange(2))
    assert present.tolist() == [shown, shown] and single.shape == (2, 3, subject.model.backbone.embed_dim)
    pictures = draw("all", config, "--method", "pca", "--ids", 3, "--images", 0, "--queries", 1)
    assert {re.match("[a-z]+", name)[0] for name in pictures} >= {"tokens", "ranks", "tsne", "attention"}


def test_a_subject_is_what_the_evaluator_scores(trained):
    subject = build_subject(get_cfg(trained, []))
    record = subject.evaluator(subject.model)
    assert 100 * float(subject.ranking.ap.nanmean()) == pytest.approx(record["score"])
    assert subject.facts["checkpoint"].endswith("best.pth, epoch 3")
    torch.testing.assert_close(
        subject.descriptors["sdtps"][5],
        torch.nn.functional.normalize(subject.output(5).embedding[0], dim=0),
        rtol=1e-4,
        atol=1e-5,
    )
    batch = subject.evaluator.loader.dataset.__getitems__([0, 1])
    images = subject.evaluator.transform(batch.images, batch.present)
    with torch.inference_mode():
        globals_ = subject.model.eval().encode(images, batch.camera).tokens[:, :, 0]
    single, _ = modality_globals(subject, np.array([0, 1]))
    torch.testing.assert_close(single, torch.nn.functional.normalize(globals_, dim=-1), rtol=1e-4, atol=1e-5)


def test_mistakes_end_in_one_paragraph(tiny, tmp_path):
    command = [sys.executable, "-m", "tools.visualize", "tsne", "--config_file", str(tiny)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert f"There is no checkpoint {tmp_path / 'out' / 'best.pth'}" in result.stderr
    with pytest.raises(UserError, match="--tokens is 'a'"):
        main(["tokens", "--config_file", str(tiny), "--tokens", "a"])
