# What jobs ask for. It grows with the frames and atoms that a job has to do with, and with each attempt: a job that was
# ended for want of memory or time asks for more when it is submitted again (`retries` of the profile).
# A profile overrides any of it with `set-resources` and `set-threads`. `side_by_side` is 1 for the rules that a profile may
# put many of into one job, so that it can say how many of them run at a time.


def frames_and_atoms(index):
    """(frames, atoms) of the frame store; Snakemake asks again when the file exists."""
    about = json.loads(Path(index).read_text(encoding="utf-8"))
    return about["n_frames"], about["n_atoms"]


def matrix_mb(index):
    """One number for each pair of atoms, a thousand times: what models and distances grow with."""
    return 0.004 * frames_and_atoms(index)[1] ** 2


def featurize_minutes(wildcards, input, attempt):
    """Five minutes and one for each 100 MB: what a busy shared file system still gives."""
    return round((5 + Path(input.trajectory).stat().st_size / 100e6) * attempt)


def read_minutes(wildcards, input, attempt):
    """As above, for all files of a batch; with a second for each simulation."""
    files = list(dict.fromkeys(input))
    return round((5 + len(files) / 60 + sum(Path(file).stat().st_size for file in files) / 100e6) * attempt)


def train_mb(wildcards, input, attempt):
    """A quarter more than `mdlatent describe` says, and 2 GB for what a GPU's driver or a second process needs."""
    n_frames, n_atoms = frames_and_atoms(input.index)
    model = MODELS[wildcards.model]
    batch_size = configuration.train_settings(CONFIG, model)["batch_size"]
    needed = model_memory.training_bytes(
        model["family"], n_atoms, model["latent_dim"], model["options"], batch_size, n_frames
    )
    return round((2000 + 1.25 * needed / 1e6) * attempt)


def train_minutes(wildcards, input):
    """Half an hour, and three times what a frame takes on one CPU core (conv2d: 1 µs for each pair of atoms).

    At most a day, and no more for a second attempt: training goes on from its last checkpoint.
    """
    n_frames, n_atoms = frames_and_atoms(input.index)
    model = MODELS[wildcards.model]
    settings = configuration.train_settings(CONFIG, model)
    frame_s = model_memory.frame_seconds(
        model["family"], n_atoms, model["latent_dim"], model["options"], settings["batch_size"]
    )
    passes = settings["epochs"] * {"never": 1, "early": 1.75, "always": 2}[settings["refit"]]
    return min(1440, round(30 + 3 * frame_s / 60 * n_frames * passes))


def frames_mb(wildcards, input, attempt):
    """Stages that pass over the frames of a simulation in pieces."""
    return round((2000 + matrix_mb(input.index)) * attempt)


def frames_minutes(wildcards, input, attempt):
    """Half an hour, and 2 µs for each pair of atoms and frame."""
    n_frames, n_atoms = frames_and_atoms(input.index)
    return round((30 + 2e-6 / 60 * n_atoms**2 * n_frames) * attempt)


def latent_mb(wildcards, input, attempt):
    """Stages that hold the latent of all frames, and trees of neighbours on it."""
    return round((2000 + 0.003 * frames_and_atoms(input.index)[0]) * attempt)


def latent_minutes(wildcards, input, attempt):
    """Half an hour, and 1 ms a frame."""
    return round((30 + frames_and_atoms(input.index)[0] / 60e3) * attempt)


def tica_mb(wildcards, input, attempt):
    """The components of all frames (30 numbers each), and of the distances what fitting them takes (0.5 GB)."""
    return round((3000 + matrix_mb(input.index) + 0.001 * frames_and_atoms(input.index)[0]) * attempt)


def evaluate_mb(wildcards, input, attempt):
    """The latent of all frames, a model at work, and ranks of all pairs of the frames that are compared (30 bytes)."""
    pairs_mb = 30e-6 * CONFIG["evaluate"]["max_frames"] ** 2
    more = 2 * matrix_mb(input.index) + 0.003 * frames_and_atoms(input.index)[0] + pairs_mb
    return round((2500 + more) * attempt)


def report_mb(wildcards, input, attempt):
    """Labels of all frames of every run; the page itself holds at most `report.max_points`."""
    return round((1500 + 0.0005 * frames_and_atoms(input.index)[0] * len(input.labels)) * attempt)


def molecules_mb(wildcards, input, attempt):
    """All molecules of the file of references at once: 20 times its size."""
    return round((1000 + 20 * Path(input[0]).stat().st_size / 1e6) * attempt)


def conformer_minutes(wildcards, input, attempt):
    """Half an hour, and a second for each conformer that a generator makes: two for each reference."""
    n = 2 * json.loads(Path(input.about).read_text(encoding="utf-8"))["references"]
    each = n * len(CONFIG["conformers"]["generators"]) / CONFIG["conformers"]["jobs"]
    return round((30 + each / 60) * attempt)


def grows(value):
    """`value`, once more with every attempt."""

    def resource(wildcards, attempt):
        return value * attempt

    return resource


def launcher(wildcards, resources):
    """What starts a training or mapping on the resources that the profile gives its rule: see profiles/README.md.

    A function of resources is no reason for Snakemake to train again when only they have changed.
    """
    if resources.get("mpi"):
        return f"{resources.mpi} -n {resources.tasks} python"
    processes = int(resources.get("processes") or resources.get("gpu") or 1)
    return f"torchrun --standalone --nproc-per-node={processes}" if processes > 1 else "python"


def is_fetched_here(rule_name):
    """Downloads run where Snakemake runs, often the only place with a network, unless the profile gives the rule a
    partition."""
    asked = workflow.resource_settings.overwrite_resources or {}
    return "slurm_partition" not in asked.get(rule_name, {})
