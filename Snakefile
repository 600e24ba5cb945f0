# mdlatent: from molecular-dynamics trajectories to a latent map, its states and a report.
#   snakemake -n                            what would run
#   snakemake --cores 2                     the study in config.yaml on this machine
#   snakemake --profile slurm               the same study as Slurm jobs
#   snakemake --cores 2 --configfile workflow/studies/ala2.yaml
from snakemake.utils import min_version

min_version("9.27")

# Configuration files are merged key by key: the demo's own must not shine through another study.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


report: "workflow/report/workflow.rst"


# Used with `--software-deployment-method apptainer` alone, see profiles/README.md.
container: f"{workflow.basedir}/mdlatent.sif"


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/slurm.smk"
include: "workflow/rules/sources.smk"
include: "workflow/rules/frames.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/states.smk"
include: "workflow/rules/conformers.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        f"{STUDY}/report.html",
        f"{STUDY}/summary.json",
        stored_distances(),
        runs("clusters/{model}/seed{seed}/decoded"),
        runs("models/{model}/seed{seed}/encoder.pt"),
