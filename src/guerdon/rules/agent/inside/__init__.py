"""What runs in a sandbox for the rewards of agents; the standard library only."""
