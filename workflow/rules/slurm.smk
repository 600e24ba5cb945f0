# Only where Snakemake submits to Slurm: no job twice, and what the jobs asked for beside what they used.
# Makes: slurm_efficiency.csv, in the report when that is made the next time.
from mdlatent import slurm

ON_SLURM = type(workflow.executor_settings).__module__.startswith("snakemake_executor_plugin_slurm.")


onstart:
    if ON_SLURM:
        try:
            slurm.begin(Path(STUDY), Path(log))
        except MdlatentError as error:
            raise WorkflowError(str(error)) from None


onsuccess:
    if ON_SLURM:
        slurm.finish(Path(STUDY), Path(log))


onerror:
    if ON_SLURM:
        slurm.finish(Path(STUDY), Path(log))
