"""What Slurm's accounting says becomes one row per job, and a table of the report."""

import pytest

from mdlatent import slurm
from mdlatent.report import slurm as report

# As `sacct --parsable2 --format=` of the fields in slurm.FIELDS prints them.
LINES = """\
1|CANCELLED by 0|mdl1|1|billing=1,cpu=1,mem=2504M,node=1|2504M|1|00:31:00|00:00:29|00:11.236|
1.batch|CANCELLED|mdl1|1|cpu=1,mem=2504M,node=1||1||00:00:29|00:00.001|177524K
1.0|FAILED|mdl1|1|cpu=1,mem=2504M,node=1||1||00:00:29|00:11.234|641320K
2|COMPLETED|mdl[1-2]|8|billing=8,cpu=8,gres/gpu=4,mem=8000M,node=2|4Gn|2|1-00:00:00|02:00:00|12:00:00|
2.batch|COMPLETED|mdl1|4|cpu=4||1||02:00:00|00:00.001|100M
2.0|COMPLETED|mdl[1-2]|8|cpu=8||2||02:00:00|12:00:00|1.5G
7|COMPLETED|mdl1|1|cpu=1|1000M|1|00:10:00|00:00:01|00:00:01|
"""


@pytest.fixture
def rows():
    lines = [dict(zip(slurm.FIELDS, line.split("|"), strict=True)) for line in LINES.splitlines()]
    return slurm.rows_of(lines, {"1": ("train_model", "conv2d-d2_0"), "2": ("train_model", "pca-d2_0")})


def test_one_row_per_job_of_this_run(rows):
    assert [row["job_id"] for row in rows] == ["1", "2"]
    assert [row["state"] for row in rows] == ["CANCELLED", "COMPLETED"]
    assert [row["gpus"] for row in rows] == [0, 4]
    assert [row["limit_s"] for row in rows] == [1860, 86400]
    assert [row["cpu_s"] for row in rows] == [11.2, 43200.0]


def test_memory_is_that_of_all_nodes_and_of_all_that_runs_at_once(rows):
    assert [row["memory_asked_mb"] for row in rows] == [2504, 8192]
    assert [row["memory_used_mb"] for row in rows] == [800, 1636]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("00:31:00", 1860), ("2-03:04:05", 183845), ("04:05.5", 245.5), ("UNLIMITED", 0), ("", 0), ("Partition_Limit", 0)],
)
def test_times(text, expected):
    assert slurm.seconds(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("2504M", 2504), ("1.5G", 1536), ("512K", 0.5), ("0", 0), ("", 0)])
def test_memory(text, expected):
    assert slurm.megabytes(text) == expected


def test_the_jobs_of_a_run_are_read_from_its_log():
    log = (
        "Job 4 has been submitted with SLURM jobid 2 (log: /a (b)/.snakemake/slurm_logs/rule_select_atoms/2.log).\n"
        "Job 3 has been submitted with SLURM jobid 13 (log: /a/.snakemake/slurm_logs/rule_embed/conv2d_0_x/13.log).\n"
        "Job f00 has been submitted with SLURM jobid 14 (log: /a/.snakemake/slurm_logs/group_embed_embed/14.log).\n"
    )
    assert slurm.submitted(log) == {
        "2": ("select_atoms", ""),
        "13": ("embed", "conv2d_0_x"),
        "14": ("group_embed_embed", ""),
    }


def test_the_report_shows_what_came_closest_to_its_limit(rows):
    text = report.table(rows)
    cells = ["train_model", "2", "1", "8", "75", "2\u202f504", "800", "1\u202f440", "120.0"]
    assert "<tr>" + "".join(f"<td{' class=n' if k else ''}>{cell}</td>" for k, cell in enumerate(cells)) in text
    assert report.table([]) == ""
