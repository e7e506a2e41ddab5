"""For every test: room for thousands of sockets, and no settings from the caller's shell."""

import os
import resource

import pytest

pytest.register_assert_rewrite("tests.fakes")  # their failures tell both sides, too


def pytest_configure() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    for name in [name for name in os.environ if name.startswith(("CIC_", "CICP_"))]:
        del os.environ[name]
