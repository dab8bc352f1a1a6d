"""The loops: they own all mutable state and run on the one loop thread."""
