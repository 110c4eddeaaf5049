"""`python -m workshop_lib` is the program `workshop`."""

from workshop_lib.cli import main

main()
