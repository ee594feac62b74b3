"""`python -m vggt_quant` is `vggt-quant`."""

import sys

from vggt_quant.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
