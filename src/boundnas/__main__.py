"""``python -m boundnas``: the same as the command ``boundnas``."""

from boundnas.app.cli import app

if __name__ == "__main__":
    app(prog_name="boundnas")
