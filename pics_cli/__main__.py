"""Target of `python -m pics_cli` and `accelerate launch -m pics_cli`."""

from pics_cli.cli import main

if __name__ == "__main__":
    main()
