# Before the first job and after the last: only where Snakemake submits to Slurm, but for the first lines of `onstart`.
# No job twice, and what the jobs asked for beside what they used.
# Makes: slurm_efficiency.csv, in the report when that is made the next time.
from mdlatent import slurm


def is_on_slurm():
    return type(workflow.executor_settings).__module__.startswith("snakemake_executor_plugin_slurm")


onstart:
    if CONFIG["simulations_per_job"] == "auto":
        batches.keep(KEPT_PER_JOB, PER_JOB)
    if is_on_slurm():
        try:
            slurm.begin(Path(STUDY), Path(log[0]))
        except MdlatentError as error:
            raise WorkflowError(str(error)) from None


onsuccess:
    if is_on_slurm():
        slurm.finish(Path(STUDY), Path(log[0]))


onerror:
    if is_on_slurm():
        slurm.finish(Path(STUDY), Path(log[0]))
