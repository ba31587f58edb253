"""`make faces`, or `python -m data.generator`: see `make.py`."""

from .make import main

if __name__ == "__main__":
    main()
