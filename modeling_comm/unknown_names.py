"""The error for a name that is not registered: of a loss, or of a relation encoder."""


class UnknownNameError(ValueError):
    """
    A field names something that is not registered. All arguments are attributes.

    Args:
        owner (`str`): what has the field, such as `"CommConfig"`.
        field (`str`): the field.
        value (`Any`): what it holds.
        known (`list[str]`): the registered names.
    """

    def __init__(self, owner: str, field: str, value, known: list[str]):
        super().__init__(owner, field, value, known)  # as arguments, so that the error can be pickled
        self.owner, self.field, self.value, self.known = owner, field, value, known

    def __str__(self):
        # With the package imported, the Auto classes never take a checkpoint's code, trusted or not.
        return (
            f"{self.owner}: {self.field} is {self.value!r}; expected one of {', '.join(map(repr, self.known))}; another one "
            "is known once the file that registers it is imported. To take it from a checkpoint instead, load that with "
            "AutoModel and trust_remote_code=True in a process that does not import modeling_comm"
        )
