"""Sweeps without a server: the files of W&B sweeps, run by Optuna. Imported by the command alone, for Optuna is an extra."""
