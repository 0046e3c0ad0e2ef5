"""`python -m quantbot_pipeline`: the command `quantbot` of this interpreter, also where no script of it is on the path."""

from quantbot_pipeline.cli.main import run

if __name__ == "__main__":
    run()
