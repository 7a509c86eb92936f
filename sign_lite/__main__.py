"""`python -m sign_lite`: the same as `sign-lite`."""

from sign_lite.cli import main

if __name__ == "__main__":
    main()
