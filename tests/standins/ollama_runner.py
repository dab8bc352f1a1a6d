"""The stand-in's runner: a process that really holds memory, as Ollama's llama-server children do.

    llama-server … --model BLOB --port N -c CTX -np N --hold-bytes N

Says `ready` when the memory is touched; ends when its parent does (stdin closes). Standard library only,
and little of it: it must start in milliseconds.
"""

import contextlib
import sys


def main(argv: list[str]) -> None:
    """Hold the memory until stdin ends."""
    size = int(argv[argv.index("--hold-bytes") + 1])
    with contextlib.suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write("llama-server")
    memory = bytearray(size)
    memory[::4096] = b"\x01" * len(range(0, size, 4096))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    del memory


if __name__ == "__main__":
    main(sys.argv)
