"""`--report services`: what each service of the kernel costs, under Disco and on the bare machine."""

from __future__ import annotations

import json

import pytest
import tiny_guests

from disco.cli.app import spelled_out

WORK = ("sh", "-c", "for i in 1 2 3; do cat /init > /tmp/x; ls -l / > /dev/null; done")


@pytest.mark.parametrize(
    ("words", "spelled"),
    [
        (["run", "--report"], ["run", "--report=tables"]),
        (["run", "--report", "services"], ["run", "--report=services"]),
        (["run", "--report", "debian-mipsel"], ["run", "--report=tables", "debian-mipsel"]),
        (["run", "--report", "--json"], ["run", "--report=tables", "--json"]),
        (["run", "--report=services"], ["run", "--report=services"]),
    ],
)
def test_the_kind_of_a_report_can_be_left_out(words, spelled):
    assert spelled_out(words) == spelled


def test_a_kind_that_is_not_there_is_refused(disco):
    done = disco("run", "--report=taxes", "--", "true")
    assert done.returncode == 2
    assert "--report: 'taxes' asked; possible are tables, services, memory" in done.stderr


def test_a_vm_that_no_bare_machine_is_like_has_one_side(disco, tmp_path):
    kernel = str(tiny_guests.guest(tmp_path, "ok", tiny_guests.PRINT_OK))
    words = ("run", "--kernel", kernel, "--memory", "300", "--report", "services", "--json")
    done = disco(*words)
    assert "no bare side for VM 'vm1': bare machine: 300 MiB asked" in done.stderr
    assert json.loads(done.stdout)["vms"][0]["services"] == []  # it has no user


@pytest.mark.slow
def test_services_have_the_same_instructions_on_both_sides_and_cost_more_under_disco(disco):
    done = disco("run", "--report", "services", "--json", "--", *WORK)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    rows = {row["name"]: row for row in run["vms"][0]["services"]}
    for name in ("demand-zero fault", "tlb refill", "read", "write", "openat", "execve", "clone"):
        row = rows[name]
        assert row["disco"]["count"] > 0 < row["bare"]["count"], name
        assert row["slowdown"] == pytest.approx(sum(row["parts"].values()))
        assert row["bare"]["cycles"] == row["bare"]["instructions"]
        spent = sum(row["disco"]["monitor_cycles"].values())
        assert row["disco"]["cycles"] == row["disco"]["instructions"] + spent
    refill = rows["tlb refill"]
    assert refill["disco"]["instructions"] % refill["disco"]["count"] == 0, "one way through it"
    assert refill["slowdown"] > 10
    assert refill["disco"]["median_cycles"] > 500 > 30 > refill["bare"]["median_cycles"]
    assert rows["tlb refill by disco"]["disco"]["mean_cycles"] < 60
    assert rows["poll"]["disco"]["median_cycles"] > rows["poll"]["bare"]["median_cycles"]
    plain = json.loads(disco("run", "--json", "--", *WORK).stdout)
    assert plain["digest"] == run["digest"], "whoever records changes nothing"


@pytest.mark.slow
def test_a_comparison_shows_the_services_too(disco):
    done = disco("bare", "--compare", "--report", "services", "--", *WORK)
    assert done.returncode == 0, done.stderr
    for word in ("demand-zero fault", "tlb refill by disco", "execve", "slow-", "Parts, over"):
        assert word in done.stdout
