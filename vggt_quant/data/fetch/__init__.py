"""`fetch`: puts an ETH3D scene or a model's weights, checked and whole, into a folder.

A broken call is repeated and goes on where it stopped; a call for what is there already asks no server.

    download.py   one file over HTTP: resumed, checked, whole or not there
    target.py     the folder that receives: filled under another name, renamed when complete
    eth3d.py      which archives make a scene, and how they are unpacked
    model.py      which files make a model
"""

import errno
import importlib
from argparse import Namespace

from vggt_quant.data.fetch.download import FetchError


def command(args: Namespace) -> None:
    """Run `vggt-quant fetch eth3d ...` or `vggt-quant fetch model ...`.

    Raises:
        FetchError: An unknown scene, a server that does not deliver, a full disk, a folder that is in the way.
    """
    try:
        importlib.import_module(f"vggt_quant.data.fetch.{args.what}").command(args)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise FetchError(
            f"The disk of {args.to} is full; free some space and run the same command again (what has arrived is "
            "kept), or choose another --to."
        ) from error
