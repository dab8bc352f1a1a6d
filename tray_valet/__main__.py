"""`python -m tray_valet`: the same as the `tray-valet` command."""

import sys

from tray_valet.cli import main

if __name__ == "__main__":
    sys.exit(main())
