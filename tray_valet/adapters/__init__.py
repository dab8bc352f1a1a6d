"""The adapters of this machine: which implementation stands behind each port on this system.

Decide: Linux, Windows or macOS; which kind of provider a setting means. Must not: hold logic; every choice
is one constructor call.
"""
