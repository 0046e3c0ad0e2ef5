"""How sure a number is: pure functions of arrays, no files, no clock."""
