"""Names of the tensors in the weight files of other libraries, as tables."""
