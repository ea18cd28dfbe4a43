"""The benchmark: flows beside what else two Python programs on one machine could use. Run `python -m bench`."""
