"""Results in, text, figures and JSON for people out. Imports no torch."""
