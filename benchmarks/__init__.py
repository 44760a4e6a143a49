"""Speed as ratios: a baseline and ours, side by side in one run."""
