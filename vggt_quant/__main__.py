"""`python -m vggt_quant` is `vggt-quant`."""

import sys

from vggt_quant.runtime import interrupts


def main() -> int:
    """The command line; its own imports can be interrupted, too."""
    with interrupts.calm_imports():
        from vggt_quant.cli import main as cli

        return cli.main()


if __name__ == "__main__":
    sys.exit(main())
