"""Names of models and deployments stand in URLs, so their parts must survive there."""

import pytest

from appliance.registry.errors import InvalidValue
from appliance.registry.names import check_model_name


@pytest.mark.parametrize("name", ["a/../b", "a/./b", "a/..", "a/.", "a/", "a//b", "../a", "/a"])
def test_parts_that_a_url_would_lose_are_refused(name: str) -> None:
    with pytest.raises(InvalidValue):
        check_model_name("deployment", name)


@pytest.mark.parametrize("name", ["m", "org/Model-8B:q4", "a.b/c..d", "a/.b/..c", "a/_b"])
def test_other_parts_are_accepted(name: str) -> None:
    assert check_model_name("deployment", name) == name
