"""The mount against a local directory: the same operations, the same results, the same tree."""
