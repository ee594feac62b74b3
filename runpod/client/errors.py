"""What can go wrong between here and RunPod, each as one sentence with its cure.

Wrong settings and arguments are ValueErrors (exit code 2); these are the rest (exit code 1).
"""


class RunpodError(Exception):
    """The request failed and repeating it would not help."""

    may_pass = False
    """Whether the same request may succeed later."""
    may_be_done = False
    """Whether RunPod may have done what was asked."""
    retry_after_s = 0.0
    """How long RunPod asks to wait before that."""


class UnansweredError(RunpodError):
    """No whole answer came: RunPod may or may not have done what was asked."""

    may_pass = True
    may_be_done = True


class RefusedError(RunpodError):
    """RunPod answered with an error status.

    Args:
        status: the HTTP status.
        detail: RunPod's own explanation, field errors included.
        request: method and path, for the message.
        retry_after_s: seconds that RunPod asks to wait.
    """

    def __init__(self, status: int, detail: str, request: str, retry_after_s: float = 0.0):
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.may_be_done = status >= 500
        self.may_pass = status == 429 or self.may_be_done
        super().__init__(_sentence(status, detail, request, retry_after_s))


def _sentence(status: int, detail: str, request: str, retry_after_s: float) -> str:
    if status == 401:
        return (
            f"RunPod refused the API key (401, {detail}); set RUNPOD_API_KEY to a valid key from "
            "https://console.runpod.io/user/settings."
        )
    if status == 402:
        return f"The balance is too low (402, {detail}); add credit at https://console.runpod.io/user/billing."
    if status == 403:
        return f"The API key may not {request} (403, {detail}); give it that permission in RunPod's console."
    if status == 404:
        return f"RunPod does not find what {request} names (404, {detail}); see `python -m runpod status`."
    if status == 409:
        return f"RunPod cannot {request} in the present state (409, {detail}); see `python -m runpod status`."
    if status in (400, 422):
        return f"RunPod rejected {request} ({status}, {detail}); correct the named fields."
    if status == 429:
        when = f"in {retry_after_s:.0f} s" if retry_after_s else "in some minutes"
        return f"RunPod takes no more requests for now (429, {detail}); try again {when}."
    if status >= 500:
        return f"RunPod failed at {request} ({status}, {detail}); try again later."
    return f"RunPod answered {request} with an unexpected status ({status}, {detail})."
