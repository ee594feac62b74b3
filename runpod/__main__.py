"""`python -m runpod`: see the package's docstring."""

import sys

from runpod.client.cli import main

sys.exit(main())
