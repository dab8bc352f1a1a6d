"""The control API, its description, and the page of the window."""
