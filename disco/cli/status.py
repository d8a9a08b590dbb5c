"""Exit statuses of `disco` besides those of guests. The meanings are in the head of the package."""

BAD_REQUEST = 2
TIME_LIMIT = 124
VM_FAILED = 125
INTERRUPTED = 130
