# What all rules share: the validated configuration, the paths of a study, and the environment of its jobs.
# Every job re-reads this file on its own node, so nothing here may be slow.
import functools
import hashlib
import json
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

PACKAGE = Path(workflow.basedir) / "workflow"
sys.path.insert(0, str(PACKAGE))

from mdlatent import batches, check, model_memory, sources
from mdlatent import config as configuration
from mdlatent.errors import MdlatentError
from mdlatent.model_names import DIRECT

# The package needs no installation on a compute node, only its dependencies: those of the Python that runs Snakemake,
# unless conda or a container brings its own.
DEPLOYMENT = {str(method) for method in workflow.deployment_settings.deployment_method}
DEPLOYED = bool(DEPLOYMENT & {"conda", "apptainer"})
IMAGE = Path(workflow.basedir) / "mdlatent.sif"
if "apptainer" in DEPLOYMENT and not IMAGE.is_file():
    raise WorkflowError(
        f"the container image {IMAGE} is not there; profiles/README.md says how to build it, or take "
        "`apptainer` out of software-deployment-method"
    )
shell.prefix(
    f"export PYTHONPATH='{PACKAGE}'${{{{PYTHONPATH:+:$PYTHONPATH}}}}; "
    + ("" if DEPLOYED else f"export PATH='{Path(sys.executable).parent}':$PATH; ")
)

try:
    CONFIG = configuration.resolve(
        config,
        [Path(name) for name in workflow.configfiles or workflow.overwrite_configfiles],
    )
    if workflow.is_main_process:
        check.before_first_job(CONFIG)
except MdlatentError as error:
    raise WorkflowError(str(error)) from None

STUDY = f"{CONFIG['results']}/{CONFIG['study']}"
SIMULATIONS = {row["name"]: row for row in CONFIG["simulations"]}
MODELS = {model["name"]: model for model in CONFIG["models"]}
# Of many small simulations one job takes a whole batch; the others have jobs of their own.
KEPT_PER_JOB = Path(STUDY) / "frames" / "simulations_per_job.json"
PER_JOB = batches.per_job(CONFIG["simulations"], CONFIG["simulations_per_job"], KEPT_PER_JOB, workflow.is_main_process)
BATCHES = batches.batches(CONFIG["simulations"], PER_JOB)
BATCH_OF = {name: batch for batch, names in BATCHES.items() for name in names}


def any_of(names):
    """A wildcard constraint that admits just these names."""
    return "|".join(re.escape(name) for name in names) or "(?!)"


wildcard_constraints:
    simulation=r"[\w.-]+",  # not a list of thousands, which every pattern would hold
    model=any_of(MODELS),
    batch=any_of(BATCHES),
    seed=r"\d+",
    part=r"part\d+",


def options(*sections, **other):
    """Sections of the configuration as JSON, for `--options`: a rule reruns when one of *its* sections changes."""
    return json.dumps({name: CONFIG[name] for name in sections} | other, sort_keys=True)


@functools.cache
def code(*modules):
    """Digest of the stage's own modules: as a parameter it makes Snakemake rerun the rule when they change."""
    texts = [(PACKAGE / "mdlatent" / name).read_bytes() for name in modules]
    return hashlib.sha256(b"".join(texts)).hexdigest()[:12]


def page_code():
    """Names of all files that make the report page, for `code`."""
    folder = PACKAGE / "mdlatent" / "report"
    return sorted(f"report/{path.name}" for path in folder.iterdir() if path.suffix in (".py", ".js", ".css", ".html"))


def conformer_code():
    """Names of the files that make and measure conformers, for `code`: all but those that choose, learn or collect."""
    other = {"references", "provenance", "scaffolds", "collect", "findings", "summary", "generate", "train"}
    other |= {"split_options", "pubchem", "pubchem_bulk", "pubchem_records", "pug_rest"}
    other |= {"train_field", "fit_field", "field_net", "field_energy", "field_labels", "field_geometries", "pm7"}
    other |= {"field_rounds"}
    other |= {"train_ranker", "train_autoencoder", "fit_autoencoder", "latent_map", "map_figure", "curve_figure"}
    folder = PACKAGE / "mdlatent" / "conformers"
    files = [path for path in folder.iterdir() if path.suffix in (".py", ".npz", ".pt") and path.stem not in other]
    return ["lanes.py", *sorted(f"conformers/{path.name}" for path in files)]


@functools.cache
def topology(simulation):
    """The topology file of a simulation inside the study."""
    row = SIMULATIONS[simulation]
    suffix = ".pdb" if "simulate" in row else sources.extension(row["topology"])
    return f"{STUDY}/trajectories/{simulation}/topology{suffix}"


def reference(simulation):
    """The reference structure of a simulation inside the study."""
    suffix = sources.extension(SIMULATIONS[simulation]["reference"])
    return f"{STUDY}/trajectories/{simulation}/reference{suffix}"


def compared_references():
    """The comparisons with reference structures, for simulations that have one."""
    return [f"{STUDY}/reference/{name}.parquet" for name, row in SIMULATIONS.items() if "reference" in row]


def local_source(uri):
    """A local file as an input, so that a changed one is seen; nothing for a download."""
    source = sources.parse(uri)
    return [str(Path(source.location).expanduser())] if source.kind == "path" else []


@functools.cache
def parts(simulation):
    """Names of the trajectory parts of a simulation inside the study, `part000` → its file, in order of time."""
    row = SIMULATIONS[simulation]
    uris = ["part.dcd"] if "simulate" in row else row["trajectory"]
    files = [sources.part_file_name(uri, index) for index, uri in enumerate(uris)]
    return {Path(file).stem: f"{STUDY}/trajectories/{simulation}/{file}" for file in files}


def stored_parts(simulation):
    """The stored frames of a simulation, one file per trajectory part."""
    return [f"{STUDY}/frames/{simulation}/{part}.h5" for part in parts(simulation)]


def of_each(names, batch_file, files):
    """What a rule asks for of these simulations: the file of each batch, and `files(name)` of those in none.

    What a batch makes of its simulations is no output by itself; it stands behind the one file of the batch.
    """
    shared = dict.fromkeys(BATCH_OF[name] for name in names if name in BATCH_OF)
    alone = [name for name in names if name not in BATCH_OF]
    return [batch_file.format(batch=batch) for batch in shared] + [file for name in alone for file in files(name)]


def stored(names):
    """The stored frames of these simulations."""
    return of_each(names, f"{STUDY}/frames/{{batch}}.json", stored_parts)


def own_index(wildcards):
    """The index that lists the frames of a simulation, alone or with others of its batch."""
    name = wildcards.simulation
    return f"{STUDY}/frames/{BATCH_OF.get(name, f'{name}/index')}.json"


def all_stored_parts(wildcards=None):
    """The stored frames of all simulations."""
    return stored(SIMULATIONS)


def latent_tables(folder):
    """The latent of all simulations, in the folder of a model and seed."""
    return of_each(SIMULATIONS, f"{folder}/{{batch}}.json", lambda name: [f"{folder}/{name}.parquet"])


def stored_distances():
    """The distance files, if the configuration asks for them."""
    return [f"{STUDY}/distances/{name}.h5" for name in SIMULATIONS] if CONFIG["distances"]["store"] else []


def seeds(model):
    """Seeds of a model; one that is fitted in one step has no randomness, so the first seed stands for all."""
    return CONFIG["seeds"][:1] if MODELS[model]["family"] in DIRECT else CONFIG["seeds"]


def runs(pattern):
    """`pattern` with {model} and {seed} filled in for every run of the study."""
    return [f"{STUDY}/" + pattern.format(model=model, seed=seed) for model in MODELS for seed in seeds(model)]
