"""User-level tests: real programs on a real mount, compared with the same on a local directory."""
