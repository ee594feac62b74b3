"""THE schema of every result file, and the statistics on them. Imports no torch."""
