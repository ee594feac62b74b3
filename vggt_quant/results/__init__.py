"""The schema of every result file, and the statistics on results. Imports no torch."""
