"""Every file of the repository that is made from the code: `make generate` writes them, a test compares them.

At the top of the layers, beside the command line: what describes a module imports it, and nothing imports this.
"""
