"""Reports: results become text, figures and JSON for people. Imports no torch."""
