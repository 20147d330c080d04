"""Pictures of a checkpoint: what SDTPS keeps, whom queries are taken for, where the backbone looks, how it trained.

    python -m tools.visualize tokens --config_file F [--weights PATH] [--output DIR] [KEY VALUE ...]

Sub-commands: tokens, ranks, failures, tsne, attention, curves, and all, which also writes one HTML page. The pictures
are PNG files in OUTPUT_DIR/pictures unless --output says otherwise. `SUB-COMMAND --help` lists its options.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path

from configs import DEFAULT_CONFIG, get_cfg
from tools.visualize.attention import draw_attention
from tools.visualize.build import Source, build_scene
from tools.visualize.curves import draw_curves
from tools.visualize.failures import draw_failures
from tools.visualize.gallery import Scene, find_samples, spread
from tools.visualize.page import write_page
from tools.visualize.ranks import draw_ranks, spread_queries
from tools.visualize.style import PALETTE, Picture
from tools.visualize.tokens import draw_tokens
from tools.visualize.tsne import METHODS, draw_tsne
from utils.errors import UserError
from utils.extras import import_extra
from utils.logging import setup_logging
from utils.script import run_script

logger = logging.getLogger("visualize")

PAGE = "index.html"
IMAGES, QUERIES, FAILURES = 3, 4, 6
"""How many are shown where the user names none."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="SUB-COMMAND")
    for name, (_, title, options) in COMMANDS.items():
        command = commands.add_parser(name, help=title, description=title)
        _add_common(command)
        for option in options:
            command.add_argument(option, **OPTIONS[option])
    command = commands.add_parser("all", help="all of them, and one HTML page", description="All, and one HTML page.")
    _add_common(command)
    for option, settings in OPTIONS.items():
        command.add_argument(option, **settings)
    return parser.parse_args(argv)


def _add_common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config_file", default=DEFAULT_CONFIG, help="YAML of the experiment (default: %(default)s)")
    command.add_argument("--weights", default="", help="checkpoint; default: TEST.WEIGHT, else OUTPUT_DIR/best.pth")
    command.add_argument("--output", type=Path, help="folder of the pictures; default: OUTPUT_DIR/pictures")
    command.add_argument("--dpi", type=int, default=150, help="pixels per inch (%(default)s)")
    command.add_argument("opts", nargs="*", metavar="KEY VALUE", help="keys to override")


class Job:
    """What the command line asks for; model and data are loaded when a picture first needs them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.cfg = get_cfg(args.config_file, args.opts)
        self.folder = args.output or Path(self.cfg.OUTPUT_DIR) / "pictures"

    @cached_property
    def loaded(self) -> tuple[Scene, Source]:
        """Model and test set, and where they came from."""
        return build_scene(self.cfg, self.args.weights)

    @property
    def scene(self) -> Scene:
        """Model and test set."""
        return self.loaded[0]

    @property
    def images(self) -> list[int]:
        """Positions in the split: those of --images, else a few spread over it."""
        samples = self.scene.split.samples
        return find_samples(samples, self.args.images) if self.args.images else spread(IMAGES, len(samples))

    def tokens(self) -> list[Picture]:
        """A picture per image."""
        words = [word for word in self.args.tokens.split(",") if word.strip()]
        if not all(word.strip().isdecimal() for word in words):
            raise UserError(f"--tokens is {self.args.tokens!r}. Allowed: numbers from 0, separated by commas: 0,5,12.")
        chosen = tuple(map(int, words)) or None
        return self._each(partial(draw_tokens, self.scene, tokens=chosen), self.images)

    def attention(self) -> list[Picture]:
        """A picture per image."""
        return self._each(partial(draw_attention, self.scene), self.images)

    def ranks(self) -> list[Picture]:
        """A picture per query."""
        split = self.scene.split
        if self.args.queries:
            named = find_samples(split.samples, self.args.queries, among=split.query, what="query")
            position = {int(index): query for query, index in reversed(list(enumerate(split.query)))}
            queries = [position[index] for index in named]
        else:
            queries = spread_queries(self.scene.ranking.by_ap(), QUERIES)
        return self._each(partial(draw_ranks, self.scene), queries)

    def failures(self) -> list[Picture]:
        """One picture."""
        return [draw_failures(self.scene, self.args.count, self.folder, dpi=self.args.dpi)]

    def tsne(self) -> list[Picture]:
        """One picture."""
        options = {"num_ids": self.args.ids, "method": self.args.method}
        return [draw_tsne(self.scene, self.folder, dpi=self.args.dpi, **options)]

    def curves(self) -> list[Picture]:
        """One picture."""
        runs = self.args.run or [Path(self.cfg.OUTPUT_DIR)]
        return [draw_curves(runs, self.folder, dpi=self.args.dpi)]

    def _each(self, draw: Callable[..., Picture], wanted: Sequence[int]) -> list[Picture]:
        return [draw(number, self.folder, dpi=self.args.dpi) for number in dict.fromkeys(wanted)]


OPTIONS: dict[str, dict] = {
    "--images": {"default": "", "metavar": "I,J", "help": "test images by number or file name (default: a few)"},
    "--tokens": {"default": "", "metavar": "I,J", "help": "aggregated tokens by number (default: the most peaked)"},
    "--queries": {
        "default": "",
        "metavar": "I,J",
        "help": "queries by number or file name (default: from bad to good)",
    },
    "--count": {"type": int, "default": FAILURES, "help": "queries in the picture (%(default)s)"},
    "--ids": {"type": int, "default": len(PALETTE), "help": "identities in the picture (%(default)s)"},
    "--method": {"choices": METHODS, "default": METHODS[0], "help": "tsne needs scikit-learn (%(default)s)"},
    "--run": {
        "type": Path,
        "action": "append",
        "metavar": "DIR",
        "help": "run folder, repeatable (default: OUTPUT_DIR)",
    },
}
COMMANDS: dict[str, tuple[Callable[[Job], list[Picture]], str, tuple[str, ...]]] = {
    "tokens": (
        Job.tokens,
        "SDTPS: scores, kept patches and aggregated tokens of single images",
        ("--images", "--tokens"),
    ),
    "ranks": (Job.ranks, "queries and the ten gallery images nearest to each", ("--queries",)),
    "failures": (Job.failures, "the worst queries and what they were mistaken for", ("--count",)),
    "tsne": (Job.tsne, "features in the plane, identities as colours", ("--ids", "--method")),
    "attention": (Job.attention, "attention of the class token and rollout on single images", ("--images",)),
    "curves": (Job.curves, "losses, scores and learning rates of one or several runs", ("--run",)),
}


def main(argv: list[str] | None = None) -> int:
    """Draw what the command line asks for."""
    args = parse_args(argv)
    setup_logging()
    import_extra("matplotlib", "tools.visualize")
    job = Job(args)
    if args.command != "all":
        for picture in COMMANDS[args.command][0](job):
            logger.info("%s", picture.path)
        return 0
    sections: dict[str, list[Picture] | str] = {}
    scene, source = job.loaded
    for name, (draw, _, _) in COMMANDS.items():
        try:
            sections[name] = draw(job)
        except UserError as error:  # what this model or this machine cannot show is left out, and the page says so
            sections[name] = str(error)
            logger.info("%s left out: %s", name, error)
    facts = {
        "data set": f"{source.data_set}, {len(scene.split.query)} queries, {len(scene.split.gallery)} gallery images",
        "backbone": source.backbone,
        "checkpoint": str(source.weights) + ("" if source.epoch is None else f", epoch {source.epoch}"),
        "configuration": str(args.config_file),
        "mAP": f"{100 * float(scene.ranking.ap.nanmean()):.1f} %, feature '{scene.model.feat}'",
    }
    page = job.folder / PAGE
    write_page(page, title=f"Pictures of {Path(job.cfg.OUTPUT_DIR).name}", facts=facts, sections=sections, dpi=args.dpi)
    logger.info("All pictures: %s", page)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(main))
