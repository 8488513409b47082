"""`python -m org_service.cli`, the same as `orgs`."""

from org_service.cli import main

if __name__ == "__main__":
    main()
