"""The contract suite of all modes, on the cluster: through SSH, with each scheduler."""

from __future__ import annotations

import pytest

from tests.contract import test_modes as suite

pytestmark = [pytest.mark.usefixtures("configured"), pytest.mark.cluster]

TestResults = suite.TestResults
TestFailures = suite.TestFailures
TestLostTasks = suite.TestLostTasks
TestTimeout = suite.TestTimeout
TestWorkers = suite.TestWorkers
TestMarshal = suite.TestMarshal
test_functions_of_all_kinds_travel = suite.test_functions_of_all_kinds_travel
