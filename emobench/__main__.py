"""`python -m emobench`: the same as the command `emobench`."""

from emobench.cli import command

if __name__ == "__main__":
    command()
