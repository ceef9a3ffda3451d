"""Detection heads: composable parts that several families share."""
