"""Write the pages."""

from __future__ import annotations

from manpages.pages import MANUAL, pages


def main() -> None:
    """Write what `pages` has into natsfs/manual."""
    for name, text in pages().items():
        (MANUAL / name).write_text(text)


if __name__ == "__main__":
    main()
