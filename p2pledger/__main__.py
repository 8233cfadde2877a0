"""`python -m p2pledger`."""

from p2pledger.cli.main import main

if __name__ == "__main__":
    main()
