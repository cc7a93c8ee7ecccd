"""The two ways in which the world outside says no."""


class ClickstreamError(Exception):
    """One sentence a person can act on: which server, what was being done, what it answered, what to do next."""


class Unavailable(ClickstreamError):
    """The other side is down, slow or full: the same call may succeed later."""


class Refused(ClickstreamError):
    """The other side, or a setting, says no: trying again changes nothing until a person has looked."""
