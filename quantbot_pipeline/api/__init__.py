"""The public Python API: a home, and what one can ask of it, as pandas frames.

Belongs here: the words of a question and the frame of its answer. Does not: any number; reports, stores and runs make those.
Every read takes one run per month, as the reports do; `frame.attrs` says which, and what must be known of them.
"""

from quantbot_pipeline.api.home import Home
from quantbot_pipeline.api.runs import CommittedRun

__all__ = ["CommittedRun", "Home"]
