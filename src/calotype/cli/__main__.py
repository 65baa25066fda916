"""``python -m calotype.cli`` is ``calotype``."""

from calotype.cli import main

main()
