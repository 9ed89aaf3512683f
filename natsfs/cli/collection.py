"""Python's garbage collector while a process of natsfs begins.

Importing makes 100,000 objects that stay until the end.  The collector looks through them again and
again, also in the end: it takes a short command a quarter of its time, and finds nothing.
"""

from __future__ import annotations

import gc


def pause_collection() -> None:
    """Look for no garbage until `resume_collection`; for a process that is natsfs and no more."""
    gc.disable()


def resume_collection() -> None:
    """Look for garbage again, but not among what there is already; nothing without a pause."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
