"""One family, one file: its modules, and at the foot its CARD and VARIANTS."""
