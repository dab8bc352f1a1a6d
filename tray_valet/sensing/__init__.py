"""What the machine is doing: processes, host, GPUs, games. One file a source; facts only, no verdicts."""
