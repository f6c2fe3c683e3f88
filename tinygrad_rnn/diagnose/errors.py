"""What is raised when there is nothing to be diagnosed?"""


class DiagnosisError(ValueError):
    """A model or graph cannot be looked into; the message says why and what to do, in one line."""
