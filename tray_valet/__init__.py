"""Tray Valet: makes a local LLM step aside for a game and brings back exactly what was there."""

__version__ = "0.1.0"
