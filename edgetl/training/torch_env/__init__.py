"""torch on this machine: devices, processes, determinism, threads, memory."""
