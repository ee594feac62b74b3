"""How fast a checkpoint runs, and how much memory it takes."""
