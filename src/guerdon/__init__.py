"""Guerdon: the reward layer for RL post-training."""
