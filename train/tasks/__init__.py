"""Learning problems, each a function that returns a `Task`."""
