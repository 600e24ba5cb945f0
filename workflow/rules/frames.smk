# Needs: the verified trajectories and topologies.
# Makes: frames/<simulation>/{atoms.json,index.json,<part>.h5}, frames/training.json, frames/index.json; when asked for,
# distances/<simulation>.h5 and reference/<simulation>.parquet.
#
# A simulation that is added must not make Snakemake read, train or map again what is there already. So nothing but
# the states and the report depends on a file that lists all simulations: what is trained on has an index of its own,
# and so has each simulation. (`ancient()` is no way out: Snakemake 9.27 then overlooks changed parameters.)

# The simulations that are trained on, and by whose coordinates informative atoms are chosen.
TRAINING = [name for name, row in SIMULATIONS.items() if row["role"] == "train"]
CHOSEN_BY_DATA = CONFIG["featurize"]["max_atoms"] is not None and CONFIG["featurize"]["reduction"] == "informative"


localrules:
    index_frames,


def listed(scope):
    """The simulations that an index lists: all in `index`, those to train on in `training`, one in `<name>/index`."""
    return {"index": list(SIMULATIONS), "training": TRAINING}.get(scope) or [scope.removesuffix("/index")]


def indexed_parts(wildcards):
    return stored(listed(wildcards.scope))


def atoms_file(name):
    return f"{STUDY}/frames/{name}/atoms.json"


def indexed_atoms(wildcards):
    return [atoms_file(name) for name in listed(wildcards.scope) if name not in BATCH_OF]


def own_topology(wildcards):
    return topology(wildcards.simulation)


def training_topologies(wildcards):
    return [topology(name) for name in TRAINING]


def training_first_parts(wildcards):
    """Only the first part of each, so that a simulation that grows does not change the atoms of all."""
    return [next(iter(parts(name).values())) for name in TRAINING]


def choice_by_data(wildcards):
    return [f"{STUDY}/frames/informative.json"] if CHOSEN_BY_DATA else []


def selection_records(names):
    """What `select_atoms` must know of simulations, as JSON."""
    return json.dumps(
        [
            {
                "name": name,
                "topology": topology(name),
                "first_part": next(iter(parts(name).values())),
                "role": SIMULATIONS[name]["role"],
            }
            for name in names
        ]
    )


def own_selection_record(wildcards):
    return selection_records([wildcards.simulation])


def index_records(wildcards):
    """What `index_frames` must know of the simulations it lists, as JSON."""
    return json.dumps([index_record(name) for name in listed(wildcards.scope)])


def index_record(name):
    row = SIMULATIONS[name]
    return {key: row.get(key) for key in ("name", "role", "time_step_ps", "temperature_k")} | {
        "topology": topology(name),
        "atoms": atoms_file(name),
        "parts": [
            {"file": file, "trajectory": trajectory}
            for file, trajectory in zip(stored_parts(name), parts(name).values(), strict=True)
        ],
    }


def index_options(wildcards):
    """The split is checked where it is about more than one simulation."""
    return options("split") if wildcards.scope in ("index", "training") else "{}"


def part_trajectory(wildcards):
    return parts(wildcards.simulation)[wildcards.part]


def fetched_reference(wildcards):
    return reference(wildcards.simulation)


def own_stored_parts(wildcards):
    return stored([wildcards.simulation])


def is_brought_by_batch(name, uri):
    """Whether the job of a batch fetches a file itself: not downloads, which need a network, and not what atoms are
    chosen by beforehand."""
    return name in BATCH_OF and not CHOSEN_BY_DATA and sources.is_local(uri)


def batch_files(name):
    """Files of a simulation inside the study and where they come from."""
    row = SIMULATIONS[name]
    return {topology(name): row["topology"]} | dict(zip(parts(name).values(), row["trajectory"], strict=True))


def batch_sources(wildcards):
    """The files that a batch is made from, where they lie or where they are fetched to."""
    pairs = [(name, *pair) for name in BATCHES[wildcards.batch] for pair in batch_files(name).items()]
    asked = [local_source(uri)[0] if is_brought_by_batch(name, uri) else file for name, file, uri in pairs]
    return list(dict.fromkeys(asked))


def batch_records(wildcards):
    """What `read_simulations` must know of the simulations of a batch, as JSON."""
    return json.dumps([batch_record(name) for name in BATCHES[wildcards.batch]])


def batch_record(name):
    brought = {file: uri for file, uri in batch_files(name).items() if is_brought_by_batch(name, uri)}
    return index_record(name) | {"uris": brought}


rule choose_informative_atoms:
    input:
        training_topologies,
        training_first_parts,
    output:
        f"{STUDY}/frames/informative.json",
    log:
        f"{STUDY}/logs/choose_informative_atoms.log",
    benchmark:
        f"{STUDY}/benchmarks/choose_informative_atoms.tsv"
    conda:
        "../../envs/frames.yaml"
    resources:
        mem_mb=grows(2000),
        runtime=grows(60),
    params:
        simulations=selection_records(TRAINING),
        options=options("featurize"),
        code=code("select_atoms.py", "reduction.py", "trajectory.py", "periodic.py"),
    message:
        "Choosing the most informative atoms"
    shell:
        "python -m mdlatent.select_atoms --simulations - --options {params.options:q} --output {output:q} --log {log:q}"
        " <<< {params.simulations:q}"


rule select_atoms:
    input:
        own_topology,
        like=choice_by_data,
    output:
        f"{STUDY}/frames/{{simulation}}/atoms.json",
    log:
        f"{STUDY}/logs/select_atoms/{{simulation}}.log",
    conda:
        "../../envs/frames.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        simulations=own_selection_record,
        options=options("featurize"),
        like="--like" if CHOSEN_BY_DATA else "",
        code=code("select_atoms.py", "trajectory.py"),
    message:
        "Choosing the atoms of {wildcards.simulation} to map"
    shell:
        "python -m mdlatent.select_atoms --simulations {params.simulations:q} {params.like} {input.like:q}"
        " --options {params.options:q} --output {output:q} --log {log:q}"


rule featurize:
    input:
        atoms=f"{STUDY}/frames/{{simulation}}/atoms.json",
        topology=own_topology,
        trajectory=part_trajectory,
    output:
        f"{STUDY}/frames/{{simulation}}/{{part}}.h5",
    log:
        f"{STUDY}/logs/featurize/{{simulation}}.{{part}}.log",
    benchmark:
        f"{STUDY}/benchmarks/featurize/{{simulation}}.{{part}}.tsv"
    conda:
        "../../envs/frames.yaml"
    resources:
        mem_mb=grows(2000),
        runtime=featurize_minutes,
        side_by_side=1,
    params:
        options=options("featurize"),
        code=code(
            "featurize.py",
            "frames.py",
            "hdf5.py",
            "trajectory.py",
            "dcd.py",
            "xtc.py",
            "xtc_kernels.py",
            "periodic.py",
        ),
    message:
        "Reading {wildcards.part} of {wildcards.simulation} into the frame store"
    shell:
        "python -m mdlatent.featurize --simulation {wildcards.simulation} --part {wildcards.part}"
        " --topology {input.topology:q} --trajectory {input.trajectory:q} --atoms {input.atoms:q}"
        " --options {params.options:q} --output {output:q} --log {log:q}"


rule read_simulations:
    input:
        batch_sources,
        like=choice_by_data,
    output:
        f"{STUDY}/frames/{{batch}}.json",
    log:
        f"{STUDY}/logs/read_simulations/{{batch}}.log",
    benchmark:
        f"{STUDY}/benchmarks/read_simulations/{{batch}}.tsv"
    conda:
        "../../envs/frames.yaml"
    resources:
        mem_mb=grows(2000),
        runtime=read_minutes,
    params:
        simulations=batch_records,
        options=options("featurize"),
        like="--like" if CHOSEN_BY_DATA else "",
        code=code(
            "simulation_reader.py",
            "fetch.py",
            "select_atoms.py",
            "featurize.py",
            "frames.py",
            "hdf5.py",
            "trajectory.py",
            "dcd.py",
            "xtc.py",
            "xtc_kernels.py",
            "periodic.py",
        ),
    message:
        "Reading the simulations of {wildcards.batch}"
    shell:
        "python -m mdlatent.read_simulations --simulations - {params.like} {input.like:q} --options {params.options:q}"
        " --code {params.code} --output {output:q} --log {log:q} <<< {params.simulations:q}"


rule index_frames:
    input:
        parts=indexed_parts,
        atoms=indexed_atoms,
    output:
        f"{STUDY}/frames/{{scope}}.json",
    log:
        f"{STUDY}/logs/index_frames/{{scope}}.log",
    wildcard_constraints:
        scope=r"index|training|[^/]+/index",
    conda:
        "../../envs/frames.yaml"
    resources:
        mem_mb=500,
        runtime=30,
    params:
        simulations=index_records,
        options=index_options,
        code=code("index_frames.py", "splits.py"),
    message:
        "Listing the stored frames ({wildcards.scope})"
    shell:
        "python -m mdlatent.index_frames --simulations - --options {params.options:q} --output {output:q} --log {log:q}"
        " <<< {params.simulations:q}"


rule compute_distances:
    input:
        index=own_index,
        parts=own_stored_parts,
    output:
        f"{STUDY}/distances/{{simulation}}.h5",
    log:
        f"{STUDY}/logs/compute_distances/{{simulation}}.log",
    benchmark:
        f"{STUDY}/benchmarks/compute_distances/{{simulation}}.tsv"
    conda:
        "../../envs/frames.yaml"
    resources:
        mem_mb=frames_mb,
        runtime=frames_minutes,
    params:
        code=code("compute_distances.py", "distances.py", "kernels.py"),
    message:
        "Writing the distances of {wildcards.simulation}"
    shell:
        "python -m mdlatent.compute_distances --frames {input.index:q} --simulation {wildcards.simulation}"
        " --output {output:q} --log {log:q}"


rule compare_reference:
    input:
        parts=own_stored_parts,
        index=own_index,
        reference=fetched_reference,
    output:
        f"{STUDY}/reference/{{simulation}}.parquet",
    log:
        f"{STUDY}/logs/compare_reference/{{simulation}}.log",
    benchmark:
        f"{STUDY}/benchmarks/compare_reference/{{simulation}}.tsv"
    conda:
        "../../envs/learn.yaml"
    resources:
        mem_mb=frames_mb,
        runtime=frames_minutes,
    params:
        atoms=f"{STUDY}/frames/{{simulation}}/atoms.json",
        code=code("compare_reference.py"),
    message:
        "Comparing {wildcards.simulation} with its reference structure"
    shell:
        "python -m mdlatent.compare_reference --frames {input.index:q} --atoms {params.atoms:q}"
        " --simulation {wildcards.simulation} --reference {input.reference:q} --output {output:q} --log {log:q}"
