"""`vggt-quant fetch`: an ETH3D scene or a model's weights, checked and whole, into a folder."""

import errno
from argparse import ArgumentParser, Namespace
from pathlib import Path

from vggt_quant.cli.flags import DEFAULT_MODEL

HELP = "put an ETH3D scene or a model's weights, checked, into a folder; interrupted downloads resume"


def add_flags(command: ArgumentParser) -> None:
    """What, and where to."""
    kinds = command.add_subparsers(dest="what", required=True, metavar="WHAT", help="what to fetch")
    text = "a training scene of ETH3D with its cameras, depth and masks: TO/SCENE"
    scene = kinds.add_parser("eth3d", help=text, description=text)
    scene.add_argument("scene", metavar="SCENE", help="for example courtyard; a wrong name lists all")
    scene.add_argument("--to", type=Path, required=True, help="folder that gets the scene's folder")
    scene.add_argument("--keep-archives", action="store_true", help="keep the .7z files there too")
    text = "a hub model's config.json and weights as plain files: TO/NAME, which every --model accepts"
    model = kinds.add_parser("model", help=text, description=text)
    model.add_argument("repo", metavar="OWNER/NAME", help="for example " + DEFAULT_MODEL)
    model.add_argument("--to", type=Path, required=True, help="folder that gets the model's folder")
    model.add_argument("--revision", default="main", help="branch, tag or commit (default: %(default)s)")


def run(args: Namespace) -> None:
    """Fetch it, or say that it is there.

    Raises:
        FetchError: An unknown scene, a server that does not deliver, a full disk, a folder that is in the way.
    """
    from vggt_quant.data.fetch import eth3d, model
    from vggt_quant.data.fetch.download import FetchError

    try:
        if args.what == "eth3d":
            eth3d.fetch_scene(args.scene, args.to, keep_archives=args.keep_archives)
        else:
            model.fetch_model(args.repo, args.to, args.revision)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise FetchError(
            f"The disk of {args.to} is full; free some space and run the same command again (what has arrived is "
            "kept), or choose another --to."
        ) from error
