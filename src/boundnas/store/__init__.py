"""What a run keeps on disk: its folder, files, logs and checkpoints, whole or absent."""
