"""The embedded llama.cpp server process and the tiny models that it can always load."""
