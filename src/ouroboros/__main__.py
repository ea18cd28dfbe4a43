"""`python -m ouroboros` is the `ouroboros` command."""

from ouroboros.tools.main import main

if __name__ == "__main__":
    main()
