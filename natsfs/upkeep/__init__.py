"""Looking after a bucket as a whole: what is left over in it, and what is damaged.

Works on any bucket through `natsfs.store`, mounted or not: `natsfs gc`, `natsfs fsck`, `natsfs ls`.
"""
