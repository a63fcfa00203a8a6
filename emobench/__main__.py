"""`python -m emobench`: the same as the command `emobench`."""

from emobench.cli import main

if __name__ == "__main__":
    main()
