"""Work on a home as a whole, of whatever version its files are: validate, migrate. It makes no run and changes none."""
