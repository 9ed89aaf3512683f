"""The manual pages of natsfs, written from one source each and from the commands themselves.

    scripts/man          writes natsfs/manual/*.1 and *.8; needs neither pandoc nor groff

roff      Markdown as what man(1) reads
options   options, arguments and mount options, taken from click
pages     a source with the tables that its comments ask for

Prose is in natsfs/manual/*.1.md and *.8.md; a comment `<!-- commands -->` and the like stands where
a table goes.  The pages are kept in the repository, so that installing needs nothing of this, and
tests/unit/test_manual.py says when they are stale.
"""
