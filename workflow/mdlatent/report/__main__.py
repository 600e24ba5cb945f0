"""`python -m mdlatent.report`."""

from mdlatent import stage
from mdlatent.report import main

if __name__ == "__main__":
    stage.run(main)
