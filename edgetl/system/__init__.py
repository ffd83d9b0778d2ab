"""What any program needs of the machine: atomic writes, locks, signals, temporary folders."""
