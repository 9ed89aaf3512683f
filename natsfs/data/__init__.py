"""The bytes of objects: read-ahead, block cache, reader, spool."""
