"""`python -m bothends` is `bothends`."""

from bothends.cli.main import main

if __name__ == "__main__":
    main()
