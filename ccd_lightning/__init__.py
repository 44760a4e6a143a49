"""Continual collaborative distillation for recommender systems on PyTorch Lightning."""
