"""`python -m ovsfw`."""

import sys

from ovsfw.cli import main

sys.exit(main())
