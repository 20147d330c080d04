"""Names in the state dicts of older checkpoints."""


def upgrade_names(state: dict) -> dict:
    """The same state under the names of today."""
    return state
