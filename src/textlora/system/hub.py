"""Whether the Hugging Face Hub answers, found out in seconds, not after minutes of retries."""

import os
import threading

_TIMEOUT_S = 5.0


def is_hub_reachable() -> bool:
    """Ask the Hub once and wait at most five seconds; False also when HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[bool] = []
    # A thread, because a name look-up has no time limit of its own.
    thread = threading.Thread(target=lambda: answers.append(_ask(constants.ENDPOINT)), daemon=True)
    thread.start()
    thread.join(_TIMEOUT_S)
    return bool(answers and answers[0])


def go_offline() -> None:
    """Make the Hugging Face libraries use their caches only, for the rest of this process."""
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True


def _ask(endpoint: str) -> bool:
    import urllib.error
    import urllib.request

    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            return True
    except urllib.error.HTTPError:
        return True  # it answered
    except (OSError, ValueError):
        return False
