"""What finished runs say: reading them, tables, statistics and plots. Needs no PyTorch."""
