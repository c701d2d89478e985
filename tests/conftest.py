"""What every test may ask for. It owns the recorded data's place and the Hypothesis profiles, and
never starts anything itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No deadline: a test's time on a busy machine says nothing about the code. The same examples each
# time, so that a run that failed fails again; `make fuzz` and `make soak` look for new ones.
settings.register_profile("dlog", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("soak", deadline=None, print_blob=True)
settings.register_profile(
    "fuzz",
    deadline=None,
    print_blob=True,
    max_examples=20_000,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("dlog")

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Recorded detector data (`lcls2/`, `cernatschool/`): $DLOG_DATA, or ../shared/data."""
    given = os.environ.get("DLOG_DATA")
    folder = Path(given) if given else CHECKOUT.parent / "shared" / "data"
    if not (folder / "lcls2").is_dir():
        if given:
            pytest.fail(f"DLOG_DATA={given} holds no lcls2/")
        pytest.skip(f"no recorded data at {folder}: set DLOG_DATA to the folder that holds lcls2/")
    return folder
