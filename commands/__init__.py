"""What is done without a notebook: `python -m commands.NAME --help`."""
