"""The fault campaign of docs/reliability.md: every point at which a promise could break, tried and counted.

A test here takes its number of attempts from `sizes(quick, whole)`: the quick part runs with all other tests, the whole with
`make torture`. It says what it tried through the fixture `tally`.
"""
