"""`vggt-quant doctor`: what this machine can run, and with which kernels, on one screen."""

from argparse import ArgumentParser, Namespace

HELP = "what this machine can run, and with which kernels, on one screen"


def add_flags(command: ArgumentParser) -> None:
    """None."""


def run(args: Namespace) -> None:
    """Print the screen."""
    from rich.console import Console

    from vggt_quant.cli import _doctor_screen

    console = Console()
    console.print(_doctor_screen.facts())
    console.print(_doctor_screen.variants())
