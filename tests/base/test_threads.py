"""The number of usable CPUs under affinity masks and cgroup quotas."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from textopia_fast import _core


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_usable_cpus_is_within_the_affinity_mask():
    assert 1 <= _core.usable_cpus() <= len(os.sched_getaffinity(0))


def test_usable_cpus_follows_the_affinity_mask():
    mask = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(mask)})
        assert _core.usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, mask)


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        ("max 100000\n", 0),
        ("200000 100000\n", 2),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),
        ("junk\n", 0),
        ("", 0),
    ],
)
def test_version_2(tmp_path, content, limit):
    write(tmp_path / "user" / "job" / "cpu.max", content)
    assert _core.cgroup_cpu_limit("0::/user/job\n", str(tmp_path)) == limit


def test_version_2_takes_the_tightest_ancestor(tmp_path):
    write(tmp_path / "cpu.max", "800000 100000\n")
    write(tmp_path / "user" / "cpu.max", "300000 100000\n")
    write(tmp_path / "user" / "job" / "cpu.max", "500000 100000\n")
    assert _core.cgroup_cpu_limit("0::/user/job\n", str(tmp_path)) == 3
    assert _core.cgroup_cpu_limit("0::/\n", str(tmp_path)) == 8


def test_a_container_that_cannot_see_its_path_uses_the_root(tmp_path):
    write(tmp_path / "cpu.max", "400000 100000\n")
    assert _core.cgroup_cpu_limit("0::/docker/abc\n", str(tmp_path)) == 4


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_version_1(tmp_path, folder):
    write(tmp_path / folder / "job" / "cpu.cfs_quota_us", "300000\n")
    write(tmp_path / folder / "job" / "cpu.cfs_period_us", "100000\n")
    write(tmp_path / folder / "cpu.cfs_quota_us", "-1\n")
    write(tmp_path / folder / "cpu.cfs_period_us", "100000\n")
    text = "12:memory:/job\n4:cpu,cpuacct:/job\n3:cpuset:/\n"
    assert _core.cgroup_cpu_limit(text, str(tmp_path)) == 3


def test_no_cgroup_at_all(tmp_path):
    assert _core.cgroup_cpu_limit("", str(tmp_path)) == 0
    assert _core.cgroup_cpu_limit("nonsense\n", str(tmp_path)) == 0
