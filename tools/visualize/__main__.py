"""Draw pictures of a checkpoint: which patches it keeps, what queries are mistaken for, where it looks, how it trained.

    python -m tools.visualize tokens --config_file F [--weights PATH] [--output DIR] [KEY VALUE ...]

Sub-commands: tokens, ranks, failures, tsne, attention, places, curves, and all, which also writes one HTML page. The
pictures are PNG files in OUTPUT_DIR/pictures unless --output says otherwise. `SUB-COMMAND --help` lists its options.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from configs import DEFAULT_CONFIG, get_cfg
from tools.visualize.attention import draw_attention
from tools.visualize.build import build_subject
from tools.visualize.curves import draw_curves
from tools.visualize.failures import draw_failures
from tools.visualize.page import write_page
from tools.visualize.places import draw_places
from tools.visualize.ranks import draw_ranks, spread_queries
from tools.visualize.style import PALETTE, Picture
from tools.visualize.subject import Subject, find_samples, spread
from tools.visualize.tokens import draw_tokens
from tools.visualize.tsne import METHODS, draw_tsne
from utils.errors import UserError
from utils.extras import import_extra
from utils.logging import setup_logging
from utils.script import run_script

logger = logging.getLogger("visualize")

PAGE = "index.html"
IMAGES, QUERIES, FAILURES = 3, 4, 6
"""How many are shown if the user names none."""


class Job:
    """The pictures that the command line asks for; model and data are loaded when the first picture needs them."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.cfg = get_cfg(args.config_file, args.opts)
        self.folder = args.output or Path(self.cfg.OUTPUT_DIR) / "pictures"

    @cached_property
    def subject(self) -> Subject:
        """Load model and test set."""
        return build_subject(self.cfg, self.args.weights)

    @property
    def images(self) -> list[int]:
        """Find the positions in the split of --images, or of a few that are spread over it."""
        samples = self.subject.split.samples
        return find_samples(samples, self.args.images) if self.args.images else spread(IMAGES, len(samples))

    def tokens(self) -> list[Picture]:
        """Draw a picture per image."""
        words = [word for word in self.args.tokens.split(",") if word.strip()]
        if not all(word.strip().isdecimal() for word in words):
            raise UserError(f"--tokens is {self.args.tokens!r}. Allowed: numbers from 0, separated by commas: 0,5,12.")
        chosen = tuple(map(int, words)) or None
        compare = tuple(dict.fromkeys(filter(None, map(str.strip, self.args.compare.split(",")))))
        return self._draw_each(partial(draw_tokens, self.subject, tokens=chosen, compare=compare), self.images)

    def attention(self) -> list[Picture]:
        """Draw a picture per image."""
        return self._draw_each(partial(draw_attention, self.subject), self.images)

    def ranks(self) -> list[Picture]:
        """Draw a picture per query."""
        split = self.subject.split
        if self.args.queries:
            named = find_samples(split.samples, self.args.queries, among=split.query, what="query")
            queries = [split.query.tolist().index(index) for index in named]
        else:
            queries = spread_queries(self.subject.ranking.by_ap(), QUERIES)
        return self._draw_each(partial(draw_ranks, self.subject), queries)

    def failures(self) -> list[Picture]:
        """Draw one picture."""
        return self._draw(draw_failures, self.subject, self.args.count)

    def tsne(self) -> list[Picture]:
        """Draw one picture."""
        return self._draw(partial(draw_tsne, num_ids=self.args.ids, method=self.args.method), self.subject)

    def places(self) -> list[Picture]:
        """Draw one picture."""
        return self._draw(draw_places, self.subject)

    def curves(self) -> list[Picture]:
        """Draw one picture."""
        return self._draw(draw_curves, self.args.run or [Path(self.cfg.OUTPUT_DIR)])

    def _draw(self, draw: Callable[..., Picture], *what: Any) -> list[Picture]:
        return [draw(*what, self.folder, dpi=self.args.dpi)]

    def _draw_each(self, draw: Callable[..., Picture], numbers: Sequence[int]) -> list[Picture]:
        return [self._draw(draw, number)[0] for number in dict.fromkeys(numbers)]


OPTIONS: dict[str, dict] = {
    "--images": {"default": "", "metavar": "I,J", "help": "test images by number or file name (default: a few)"},
    "--tokens": {"default": "", "metavar": "I,J", "help": "aggregated tokens by number (default: the most peaked)"},
    "--compare": {"default": "", "metavar": "A,B", "help": "show these scores, too, such as attention,centre"},
    "--queries": {"default": "", "metavar": "I,J", "help": "queries by number or name (default: from bad to good)"},
    "--count": {"type": int, "default": FAILURES, "help": "queries in the picture (%(default)s)"},
    "--ids": {"type": int, "default": len(PALETTE), "help": "identities in the picture (%(default)s)"},
    "--method": {"choices": METHODS, "default": METHODS[0], "help": "tsne needs scikit-learn (%(default)s)"},
    "--run": {"type": Path, "action": "append", "metavar": "DIR", "help": "run folder, repeatable (OUTPUT_DIR)"},
}
COMMANDS: dict[str, tuple[Callable[[Job], list[Picture]], str, tuple[str, ...]]] = {
    "tokens": (
        Job.tokens,
        "scores, kept patches and aggregated tokens of single images",
        ("--images", "--tokens", "--compare"),
    ),
    "ranks": (Job.ranks, "queries and the ten gallery images nearest to each", ("--queries",)),
    "failures": (Job.failures, "the worst queries and what they were mistaken for", ("--count",)),
    "tsne": (Job.tsne, "features in the plane, identities as colours", ("--ids", "--method")),
    "attention": (Job.attention, "attention of the class token and rollout on single images", ("--images",)),
    "places": (Job.places, "how much of the score is the place of the patch", ()),
    "curves": (Job.curves, "losses, scores and learning rates of one run or several", ("--run",)),
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config_file", default=DEFAULT_CONFIG, help="YAML of the experiment (default: %(default)s)")
    common.add_argument("--weights", default="", help="checkpoint; default: TEST.WEIGHT, or OUTPUT_DIR/best.pth")
    common.add_argument("--output", type=Path, help="folder of the pictures; default: OUTPUT_DIR/pictures")
    common.add_argument("--dpi", type=int, default=150, help="pixels per inch (%(default)s)")
    common.add_argument("opts", nargs="*", metavar="KEY VALUE", help="keys to override")
    parser = argparse.ArgumentParser(
        prog="python -m tools.visualize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="SUB-COMMAND")
    helps = {name: (title, options) for name, (_, title, options) in COMMANDS.items()}
    helps["all"] = ("all of them, and one HTML page", tuple(OPTIONS))
    for name, (title, options) in helps.items():
        command = commands.add_parser(name, parents=[common], help=title, description=title)
        for option in options:
            command.add_argument(option, **OPTIONS[option])
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Draw what the command line asks for."""
    args = parse_args(argv)
    setup_logging()
    import_extra("matplotlib", "tools.visualize")
    job = Job(args)
    if args.command == "all":
        draw_all(job)
        return 0
    for picture in COMMANDS[args.command][0](job):
        logger.info("%s", picture.path)
    return 0


def draw_all(job: Job) -> None:
    """Draw every picture that the model and the machine allow, and write the page."""
    import_extra("jinja2", "tools.visualize all")
    subject, sections = job.subject, {}
    for name, (draw, _, _) in COMMANDS.items():
        try:
            sections[name] = draw(job)
        except UserError as error:  # the page gives the reason
            sections[name] = str(error)
            logger.info("%s left out: %s", name, error)
    mean_ap = f"{100 * float(subject.ranking.ap.nanmean()):.1f} %, descriptor '{subject.descriptor}'"
    facts = subject.facts | {"configuration": str(job.args.config_file), "mAP": mean_ap}
    title = f"Pictures of {Path(job.cfg.OUTPUT_DIR).name}"
    write_page(job.folder / PAGE, title=title, facts=facts, sections=sections, dpi=job.args.dpi)
    logger.info("All pictures: %s", job.folder / PAGE)


if __name__ == "__main__":
    sys.exit(run_script(main))
