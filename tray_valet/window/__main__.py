"""`python -m tray_valet.window`: the window as a process of its own."""

from __future__ import annotations

import sys

from tray_valet.window.child import main

if __name__ == "__main__":
    sys.exit(main())
