"""What a process runs on: signals, ranks, threads, memory, progress; no networks."""
