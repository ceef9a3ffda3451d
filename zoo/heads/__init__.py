"""Feature maps to outputs, for more than one family."""
