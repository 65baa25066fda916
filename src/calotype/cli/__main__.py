"""``python -m calotype.cli`` is ``calotype``."""

from calotype.cli import main

if __name__ == "__main__":  # processes that finish pictures import the main module again
    main()
