"""The command `prune2drive` for those who work in a clone: `python run.py pruner=tfps` (`--help` explains)."""

from prune2drive.tasks import command

if __name__ == "__main__":
    command()
