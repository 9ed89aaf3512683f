"""The bytes of objects: read-ahead, block cache and reader; small files, outflow and spool; and
snapshots of trees."""
