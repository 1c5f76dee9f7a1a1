"""Publishing in a process of its own, which is killed at a chosen moment."""

import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from latentset.sharing import hub
from latentset.sharing.publish import plan_publication, publish

TIMEOUT_S = 120

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "huggingface_hub.hf_api", "s3fs"])


def publish_apart(
    store: Path, url: str, card: Path, kill_at: int | None = None, delay_s: float = 0.0
) -> int:
    """Publish with this process's environment, and return how many files were opened or renamed.

    Args:
        store: The store.
        url: Where it is published.
        card: Folder of its card.
        kill_at: Which of them makes the process kill itself (SIGKILL).
        delay_s: So much later.
    """
    count = _CONTEXT.Value("i", 0, lock=False)
    arguments = (dict(os.environ), count, kill_at, delay_s, store, url, card)
    process = _CONTEXT.Process(target=_publish, args=arguments)
    process.start()
    process.join(TIMEOUT_S)
    assert process.exitcode in (0, None if kill_at is None else -signal.SIGKILL)
    return int(count.value)


def _publish(
    environment: dict[str, str],
    count: Any,
    kill_at: int | None,
    delay_s: float,
    store: Path,
    url: str,
    card: Path,
) -> None:
    from huggingface_hub import constants

    os.environ.update(environment)
    constants.HF_HUB_DISABLE_XET = True  # read from the environment when it was imported
    hub._COMMIT_OBJECTS = 4
    ours = str(store.parent), str(card.parent)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename") and str(arguments[0]).startswith(ours):
            count.value += 1
            if count.value == kill_at:
                threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()

    sys.addaudithook(watch)
    publish(plan_publication(store, url, card))
