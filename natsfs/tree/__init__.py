"""Names, directories and inode numbers: pure, without I/O."""
