"""Files of rollouts: reading rows in any usual layout, and writing what scoring them gave."""
