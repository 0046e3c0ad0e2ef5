"""Tools of the project's own making; the package does not need them."""
