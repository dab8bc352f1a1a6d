"""The window: a child process with a web view that shows the local page."""
