"""What may leave this process, and in which form."""
