"""Two amounts of work: what fits the suite, and a long search (`HYPOTHESIS_PROFILE=long`)."""

import os

from hypothesis import HealthCheck, Phase, settings

_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
# Making a failure smaller takes minutes against real servers: the suite reports it as found, the long search shrinks.
_NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
# The suite's search is the same each time; the long one is another each time, and prints how to repeat a failure.
settings.register_profile(
    "suite",
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    phases=_NO_SHRINKING,
    suppress_health_check=_SLOW,
)
settings.register_profile(
    "long", max_examples=1_000, stateful_step_count=80, deadline=None, print_blob=True, suppress_health_check=_SLOW
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
